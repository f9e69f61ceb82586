//! The bounds of the figures. In: figures, the text of `e2e/cost.txt`. Out: what is wrong with a line of the file, or the file written again.
//! The file is the only place that has bounds.
//!
//! A figure may neither exceed its bound nor fall far below it: a bound that is too high would let the next regression pass.

use super::CostFigure;

/// Share of a figure that its bound allows on top …
const MARGIN: f64 = 0.05;
/// … and what comes on top of that: the least of a few rounds still has some work that follows a clock and not the messages, such as the
/// reports of each second. The slower the machine, the more of that falls to a message.
const SLACK: [(&str, f64); 2] = [("instructions", 300.0), ("allocations", 0.2)];
const SLACK_OF_OTHERS: f64 = 0.1;
/// A bound may be this much higher than the one that the figure would be given today, and once more that slack.
const STALE: f64 = 1.1;
/// The smallest figure that has a line …
const LISTED: f64 = 0.1;
/// … but for these, which have one however small they are.
const ALWAYS: [&str; 3] = ["instructions", "allocations", "calls"];

/// The first lines of the file.
const HEAD: &str = "# What a message may cost at most, in each process, by each handoff: instructions, allocations, all system calls, and each system call.
# tools/cost.sh measures and compares. UPDATE_COST=1 tools/cost.sh writes this file again, with some 5 % above the figures of the day.
#
# process    handoff     figure                bound
";

fn slack(figure: &CostFigure) -> f64 {
    SLACK.iter().find(|(name, _)| *name == figure.name).map_or(SLACK_OF_OTHERS, |(_, slack)| *slack)
}

/// The bound that a figure is given.
fn bound(figure: &CostFigure) -> f64 {
    let bound = figure.value * (1.0 + MARGIN) + slack(figure);
    if bound >= 100.0 { (bound / 10.0).ceil() * 10.0 } else { (bound * 100.0).ceil() / 100.0 }
}

/// True if the figure has a line in the file.
fn is_listed(figure: &CostFigure) -> bool {
    figure.value >= LISTED || ALWAYS.contains(&figure.name.as_str())
}

fn line(figure: &CostFigure) -> String {
    format!("{:12} {:11} {:21} {}", figure.path.process, figure.path.handoff, figure.name, bound(figure))
}

/// The file with bounds for these figures.
#[must_use]
pub fn write(figures: &[CostFigure]) -> String {
    let mut listed: Vec<&CostFigure> = figures.iter().filter(|figure| is_listed(figure)).collect();
    listed.sort_by(|a, b| (a.path, &a.name).cmp(&(b.path, &b.name)));
    listed.into_iter().fold(HEAD.to_owned(), |file, figure| file + &line(figure) + "\n")
}

/// Fails if a figure does not keep its bound, with one line for each.
///
/// # Errors
/// The lines of [`compare`].
pub fn hold(file: &str, figures: &[CostFigure]) -> anyhow::Result<()> {
    let wrong = compare(file, figures);
    anyhow::ensure!(
        wrong.is_empty(),
        "e2e/cost.txt:\n  {}\nUPDATE_COST=1 tools/cost.sh writes it again.",
        wrong.join("\n  ")
    );
    Ok(())
}

/// Compares figures with the file. Out: one text for each line that is wrong or missing, which says what to do.
#[must_use]
pub fn compare(file: &str, figures: &[CostFigure]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lines: Vec<(usize, [&str; 3], f64)> = Vec::new();
    for (at, text) in file.lines().enumerate().filter(|(_, text)| !text.starts_with('#') && !text.trim().is_empty()) {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [process, handoff, name, bound] if bound.parse::<f64>().is_ok() => {
                lines.push((at + 1, [process, handoff, name], bound.parse().unwrap_or_default()));
            }
            _ => wrong.push(format!("line {} is not: process handoff figure bound: {text}", at + 1)),
        }
    }
    for figure in figures {
        let name = [figure.path.process, figure.path.handoff, &figure.name];
        let (value, today) = (figure.value, line(figure));
        let found = lines.iter().position(|(_, words, _)| *words == name).map(|at| lines.swap_remove(at));
        match found {
            // A figure that is listed on one day and not on another would fail on some.
            None if figure.value > LISTED + slack(figure) || ALWAYS.contains(&&*figure.name) => {
                wrong.push(format!("{value:.2} has no bound; add the line: {today}"))
            }
            Some((at, _, bound)) if value > bound => {
                wrong.push(format!(
                    "{} costs more than its bound in line {at}: {value:.2}, not {bound}",
                    name.join(" ")
                ));
            }
            Some((at, _, bound)) if bound > self::bound(figure) * STALE + slack(figure) => {
                wrong.push(format!("{} costs less: {value:.2}; tighten line {at} to: {today}", name.join(" ")));
            }
            _ => {}
        }
    }
    lines.sort_unstable_by_key(|(at, ..)| *at);
    // A figure that was not measured at all is one that costs nothing any more, such as a system call that is no longer made.
    wrong.extend(
        lines.iter().map(|(at, words, _)| format!("{} costs nothing any more; remove line {at}", words.join(" "))),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::CostPath;

    fn figure(name: &str, value: f64) -> CostFigure {
        CostFigure { path: CostPath { process: "worker", handoff: "link" }, name: name.to_owned(), value }
    }

    #[test]
    fn figures_of_the_day_keep_the_bounds_written_for_them() {
        let figures = [figure("instructions", 9876.0), figure("allocations", 0.0), figure("recvfrom", 1.0)];
        let file = write(&figures);
        assert!(file.ends_with("recvfrom              1.16\n"), "{file}");
        assert_eq!(compare(&file, &figures), Vec::<String>::new());
        let noise = [figure("instructions", 9990.0), figure("allocations", 0.01), figure("recvfrom", 1.0)];
        assert_eq!(compare(&file, &noise), Vec::<String>::new());
    }

    #[test]
    fn figures_above_and_far_below_their_bounds_are_named() {
        let file =
            "# a comment\nworker link instructions 10000\nworker link recvfrom 1.1\nworker link futex 1\nworker link\n";
        let figures =
            [figure("instructions", 10_001.0), figure("recvfrom", 0.5), figure("writev", 1.0), figure("brk", 0.01)];
        let wrong = compare(file, &figures);
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(wrong[0].starts_with("line 5 is not"), "{wrong:?}");
        assert!(wrong[1].contains("costs more than its bound in line 2: 10001.00, not 10000"), "{wrong:?}");
        assert!(
            wrong[2].contains("costs less: 0.50; tighten line 3 to: worker       link        recvfrom"),
            "{wrong:?}"
        );
        assert!(wrong[3].contains("add the line: worker       link        writev                1.16"), "{wrong:?}");
        assert!(wrong[4].contains("worker link futex costs nothing any more; remove line 4"), "{wrong:?}");
    }

    /// The figures that a file was written for, or somewhat lower ones.
    fn figures_of(file: &str) -> Vec<CostFigure> {
        let lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let figure = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [process, handoff] = [words[0], words[1]].map(|word| {
                ["activator", "worker", "descriptor", "link"].into_iter().find(|name| *name == word).unwrap()
            });
            let figure = CostFigure { path: CostPath { process, handoff }, name: words[2].to_owned(), value: 0.0 };
            let value = (words[3].parse::<f64>().unwrap() - slack(&figure)) / (1.0 + MARGIN);
            // Bounds are rounded up.
            CostFigure { value: value * 0.999, ..figure }
        };
        lines.map(figure).collect()
    }

    #[test]
    fn every_bound_of_the_file_fails_once_it_is_exceeded_and_once_it_is_out_of_date() {
        let file = include_str!("../../cost.txt");
        let kept = figures_of(file);
        hold(file, &kept).unwrap();
        for (at, figure) in kept.iter().enumerate() {
            let with = |value| {
                let mut figures = kept.clone();
                figures[at].value = value;
                hold(file, &figures).map_err(|error| error.to_string())
            };
            let exceeded = with(bound(figure) * 1.01).unwrap_err();
            assert!(exceeded.contains(&format!("{} costs more than its bound", figure.name)), "{exceeded}");
            // A bound that is little else than slack cannot be far too high.
            if figure.value > 6.0 * slack(figure) {
                let cheaper = with(figure.value * 0.5).unwrap_err();
                assert!(cheaper.contains(&format!("{} costs less", figure.name)), "{cheaper}");
            }
        }
        for handoff in ["descriptor", "link"] {
            let has = |name: &str| {
                kept.iter().any(|it| it.path == CostPath { process: "worker", handoff } && it.name == name)
            };
            assert!(ALWAYS.into_iter().chain(["epoll_wait", "writev"]).all(has), "by {handoff} a bound is missing");
        }
    }
}
