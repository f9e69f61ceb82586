//! The comparison as a picture. In: names and numbers. Out: SVG. Pure.

use std::fmt::Write as _;

/// A row of the picture.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) worker_hours: f64,
    pub(super) cold_starts: u64,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 230.0;
const ROW: f64 = 46.0;
const TOP: f64 = 92.0;
const GAP: f64 = 40.0;
/// Room for the number behind a bar.
const NUMBER: f64 = 90.0;

/// Draws two panels side by side: the cost in worker-hours, and the cold starts.
pub(super) fn draw(title: &str, below: &str, bars: &[Bar]) -> String {
    let panel = (WIDTH - LEFT - GAP - 20.0) / 2.0;
    #[expect(clippy::cast_precision_loss, reason = "few rows, and a picture")]
    let (height, starts) = (TOP + ROW * bars.len() as f64 + 20.0, |bar: &Bar| bar.cold_starts as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\">\n\
         <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(title)
    );
    text(&mut svg, (20.0, 30.0), "start", (18, "#1b1f24"), title);
    text(&mut svg, (20.0, 52.0), "start", (13, "#57606a"), below);
    text(&mut svg, (LEFT, 80.0), "start", (13, "#57606a"), "worker-hours");
    text(&mut svg, (LEFT + panel + GAP, 80.0), "start", (13, "#57606a"), "cold starts");
    let most_hours = bars.iter().map(|bar| bar.worker_hours).fold(0.0, f64::max);
    let most_starts = bars.iter().map(starts).fold(0.0, f64::max);
    let mut y = TOP;
    for bar in bars {
        text(&mut svg, (LEFT - 12.0, y + 22.0), "end", (14, "#1b1f24"), &shortened(&bar.name));
        let panels = [
            (LEFT, bar.worker_hours, most_hours, "#0969da", grouped(bar.worker_hours)),
            (LEFT + panel + GAP, starts(bar), most_starts, "#bf5b04", grouped(starts(bar))),
        ];
        for (left, value, most, colour, shown) in panels {
            let length = if most > 0.0 { (panel - NUMBER) * value / most } else { 0.0 };
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"30\" rx=\"3\" fill=\"{colour}\"/>"
            );
            text(&mut svg, (left + length + 8.0, y + 21.0), "start", (13, "#1b1f24"), &shown);
        }
        y += ROW;
    }
    svg + "</svg>\n"
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, (size, colour): (u32, &str), words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
        escaped(words)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// As much of a name as fits beside its bars.
fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    if name.chars().count() <= MOST { name.to_owned() } else { name.chars().take(MOST - 1).chain(['…']).collect() }
}

/// A number with its thousands apart; with a decimal below a hundred.
pub(super) fn grouped(number: f64) -> String {
    let whole = number < 100.0 && (number - number.round()).abs() > 0.05;
    let text = if whole { format!("{number:.1}") } else { format!("{number:.0}") };
    let (digits, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(digits, rest)| (digits, format!(".{rest}")));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_has_a_bar_for_each_number_and_no_foreign_markup() {
        let bar = |name: &str, worker_hours, cold_starts| Bar { name: name.to_owned(), worker_hours, cold_starts };
        let svg = draw("a <b>", "c", &[bar("zero", 12.5, 30), bar("always on", 50.0, 0)]);
        assert_eq!(svg.matches("<rect x=").count(), 4);
        assert!(svg.contains(">12.5</text>") && svg.contains(">30</text>") && svg.contains("a &lt;b&gt;"), "{svg}");
        assert!(svg.contains("width=\"0.0\""), "{svg}");
        let longest = svg.matches(&format!("width=\"{:.1}\"", (WIDTH - LEFT - GAP - 20.0) / 2.0 - NUMBER)).count();
        assert_eq!(longest, 2, "the longest bar of each panel fills it: {svg}");
    }

    #[test]
    fn thousands_are_apart() {
        for (number, shown) in
            [(0.0, "0"), (7.25, "7.2"), (99.99, "100"), (1234.6, "1,235"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(grouped(number), shown);
        }
    }
}
