//! Charts of streams against cost and latency. In: figures of each relay and number of streams. Out: SVG, and the figures as CSV, from which
//! the charts can be drawn again.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::load::Row;
use super::relay::{RelayKind, Subject};

/// One row's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartFigure {
    /// Name of the row.
    pub name: String,
    /// Streams at once.
    pub streams: u32,
    /// CPU seconds per gigabyte; `None` without a relay.
    pub cpu_per_gb: Option<f64>,
    /// Latency, ms, 99th percentile.
    pub p99: f64,
    /// True if the generator's core had no time left.
    pub full: bool,
}

impl ChartFigure {
    /// The figures of a row.
    #[must_use]
    pub fn of(row: &Row, streams: u32) -> Self {
        let relayed = row.subject.kind != RelayKind::Direct;
        let (name, full) = (row.subject.name(), row.ground.full);
        Self { name, streams, cpu_per_gb: relayed.then_some(row.cpu_per_gb), p99: row.p99, full }
    }
}

/// The first line of the CSV, without the machine.
const COLUMNS: &str = "streams,cpu_s_per_gb,p99_ms,generator_full,relay";

/// Figures as CSV; the machine stands in the first line, as a comment.
#[must_use]
pub fn csv(machine: &str, figures: &[ChartFigure]) -> String {
    let mut out = format!("# {machine}\n{COLUMNS}\n");
    for figure in figures {
        let cpu = figure.cpu_per_gb.map_or_else(String::new, |cpu| format!("{cpu:.4}"));
        out += &format!("{},{cpu},{:.4},{},\"{}\"\n", figure.streams, figure.p99, figure.full, figure.name);
    }
    out
}

/// Machine and figures of a CSV that [`csv`] has written.
///
/// # Errors
/// It is not one.
pub fn read(csv: &str) -> anyhow::Result<(String, Vec<ChartFigure>)> {
    let mut lines = csv.lines();
    let machine = lines.next().and_then(|line| line.strip_prefix("# ")).context("the first line names no machine")?;
    anyhow::ensure!(lines.next() == Some(COLUMNS), "the columns are not {COLUMNS}");
    let figure = |line: &str| {
        let mut cells = line.splitn(5, ',');
        let mut next = || cells.next().context("a cell is missing");
        let (streams, cpu, p99, full, name) = (next()?, next()?, next()?, next()?, next()?);
        let cpu_per_gb = if cpu.is_empty() { None } else { Some(cpu.parse()?) };
        let (name, full) = (name.trim_matches('"').to_owned(), full.parse()?);
        anyhow::Ok(ChartFigure { name, streams: streams.parse()?, cpu_per_gb, p99: p99.parse()?, full })
    };
    let figures = lines.map(|line| figure(line).with_context(|| line.to_owned())).collect::<anyhow::Result<_>>()?;
    Ok((machine.to_owned(), figures))
}

/// Names and texts of the charts: CPU and p99.
#[must_use]
pub fn charts(machine: &str, figures: &[ChartFigure]) -> [(&'static str, String); 2] {
    let cpu = |figure: &ChartFigure| figure.cpu_per_gb;
    let p99 = |figure: &ChartFigure| Some(figure.p99);
    [
        ("cpu.svg", draw("CPU seconds per gigabyte, by number of streams", machine, figures, cpu, false)),
        ("p99.svg", draw("Latency p99 in ms, by number of streams", machine, figures, p99, true)),
    ]
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 430.0;
/// Colours that people who do not see red or green tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#999999"];

/// A number of a scale as a place between two others.
#[derive(Clone, Copy, Debug)]
struct ChartScale {
    from: f64,
    to: f64,
    log: bool,
}

impl ChartScale {
    fn at(self, value: f64, start: f64, end: f64) -> f64 {
        let along = |value: f64| if self.log { value.max(1e-3).ln() } else { value };
        let whole = along(self.to) - along(self.from);
        let part = if whole == 0.0 { 0.5 } else { (along(value) - along(self.from)) / whole };
        start + (end - start) * part
    }

    /// A scale for values, with its marks: from 0 in round steps, or in powers of ten.
    fn of(values: &[f64], log: bool) -> (Self, Vec<f64>) {
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if log {
            let least = values.iter().copied().fold(most, f64::min).max(1e-3);
            let (from, to) = (least.log10().floor(), most.max(1e-3).log10().ceil());
            let to = to.max(from + 1.0);
            let marks = (from as i32..=to as i32).map(|power| 10_f64.powi(power)).collect();
            return (Self { from: 10_f64.powf(from), to: 10_f64.powf(to), log }, marks);
        }
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| most / step <= 6.0).unwrap_or(10.0 * power);
        let steps = (most / step).ceil() as u32;
        let marks = (0..=steps).map(|mark| f64::from(mark) * step).collect();
        (Self { from: 0.0, to: f64::from(steps) * step, log }, marks)
    }
}

fn draw(
    title: &str,
    machine: &str,
    figures: &[ChartFigure],
    value: impl Fn(&ChartFigure) -> Option<f64>,
    log: bool,
) -> String {
    let values: Vec<f64> = figures.iter().filter_map(&value).collect();
    let streams: BTreeSet<u32> = figures.iter().map(|figure| figure.streams).collect();
    let ends = |end: Option<&u32>| f64::from(end.copied().unwrap_or(1));
    let across = ChartScale { from: ends(streams.first()), to: ends(streams.last()), log: true };
    let (up, marks) = ChartScale::of(&values, log);
    let x = |streams: u32| across.at(f64::from(streams), LEFT + 20.0, RIGHT - 20.0);
    let y = |value: f64| up.at(value, BOTTOM, TOP);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n<text x=\"{LEFT}\" y=\"44\" fill=\"#555\">{}</text>\n",
        escaped(title),
        escaped(machine)
    );
    for mark in marks {
        let (y, text) = (y(mark), (mark * 1000.0).round() / 1000.0);
        out += &format!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for streams in &streams {
        let x = x(*streams);
        out += &format!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{streams}</text>\n", BOTTOM + 18.0);
    }
    for (at, name) in names(figures).into_iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let (mut line, mut points) = (Vec::new(), String::new());
        for streams in &streams {
            let here = figures.iter().filter(|figure| figure.name == name && figure.streams == *streams);
            let full = here.clone().any(|figure| figure.full);
            let mut values: Vec<f64> = here.filter_map(&value).collect();
            values.sort_by(f64::total_cmp);
            let (Some(least), Some(most)) = (values.first(), values.last()) else { continue };
            let (x, median) = (x(*streams), y(values[values.len() / 2]));
            line.push(format!("{x:.1},{median:.1}"));
            // Hollow: the generator's core was full.
            let fill = if full { "white" } else { colour };
            points += &format!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{colour}\"/>\n",
                y(*least),
                y(*most)
            );
        }
        if line.is_empty() {
            continue;
        }
        let (key, text) = (TOP + 20.0 * at as f64, RIGHT + 40.0);
        out += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n{points}\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{key:.1}\" y2=\"{key:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{text:.1}\" y=\"{:.1}\">{}</text>\n",
            line.join(" "),
            RIGHT + 14.0,
            RIGHT + 34.0,
            key + 4.0,
            escaped(name)
        );
    }
    out + "</svg>\n"
}

/// Names of the rows, in the order of relays and then of their appearance.
fn names(figures: &[ChartFigure]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    let order = |name: &str| {
        <RelayKind as clap::ValueEnum>::value_variants().iter().position(|kind| Subject::plain(*kind).name() == name)
    };
    names.sort_by_key(|name| order(name).unwrap_or(usize::MAX));
    names
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Vec<ChartFigure> {
        let figure = |name: &str, streams, cpu_per_gb, p99, full| ChartFigure {
            name: name.into(),
            streams,
            cpu_per_gb,
            p99,
            full,
        };
        vec![
            figure("liveedgecast link, 2 destinations", 50, Some(4.5), 1.25, false),
            figure("liveedgecast link, 2 destinations", 100, Some(5.5), 120.0, true),
            figure("floor", 50, Some(1.5), 0.0125, false),
            figure("direct", 50, None, 0.0125, false),
        ]
    }

    #[test]
    fn charts_can_be_drawn_again_from_their_csv() {
        let (machine, read) = read(&csv("A & B, 2 CPUs", &figures())).unwrap();
        assert_eq!((machine.as_str(), &read), ("A & B, 2 CPUs", &figures()));
        assert_eq!(charts(&machine, &read), charts(&machine, &figures()));
        assert!(super::read("streams\n1").is_err() && super::read(&format!("# x\n{COLUMNS}\n1,2,3\n")).is_err());
    }

    #[test]
    fn chart_names_the_machine_and_draws_every_row_with_a_value() {
        let [(_, cpu), (_, p99)] = charts("A & B, 2 CPUs", &figures());
        assert!(cpu.contains("A &amp; B, 2 CPUs") && cpu.ends_with("</svg>\n"));
        assert_eq!((cpu.matches("<polyline").count(), p99.matches("<polyline").count()), (2, 3));
        assert_eq!(p99.matches("fill=\"white\" stroke").count(), 1, "the generator was full once");
        assert!(!cpu.contains("NaN") && !p99.contains("NaN"));
    }

    #[test]
    fn scales_have_round_marks_around_their_values() {
        let (scale, marks) = ChartScale::of(&[3.0, 11.0], false);
        assert_eq!((marks, scale.to), (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0], 12.0));
        let (scale, marks) = ChartScale::of(&[0.05, 70.0], true);
        assert_eq!((marks, scale.at(1.0, 0.0, 4.0).round()), (vec![0.01, 0.1, 1.0, 10.0, 100.0], 2.0));
        assert_eq!(ChartScale { from: 50.0, to: 50.0, log: true }.at(50.0, 0.0, 10.0), 5.0);
    }
}
