//! One page of metrics out of several. In: our own and every worker's, in the Prometheus text format. Out: the same with a `worker`
//! label on the workers' samples, and the number of their lines that were left out. Pure.
//!
//! The format wants every sample of a name in one group, so pages cannot simply follow each other. A scraper throws the whole page away for
//! one line that it cannot read, or for a label that stands there twice, so every line of a worker is read as strictly as Prometheus
//! and the other parsers do, and is written anew. A worker's sample of a name that is the activator's is left out: `max()` over it, which an
//! autoscaler may look at, would be the worker's word.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes that workers' samples may take on the page. A worker has some 10 KiB of them, so this is a thousand workers' with their names. A
/// page is in memory as long as a client reads it, and at most eight do.
const MAX_SAMPLES: usize = 16 << 20;
/// Labels of one sample. Ours have two.
const MAX_LABELS: usize = 32;
/// The label that we add.
const WORKER: &str = "worker";
/// The endings that a histogram or a summary adds to its name in the names of its samples.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// The kinds of metrics; a scraper rejects the page for any other word.
const KINDS: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

/// Samples of one name.
#[derive(Default)]
struct Family<'a> {
    kind: Option<&'a str>,
    help: Option<&'a str>,
    samples: String,
}

/// Bytes and samples of all pages together.
#[derive(Default)]
struct Page<'a> {
    families: BTreeMap<&'a str, Family<'a>>,
    /// Names of our own.
    ours: BTreeSet<&'a str>,
    /// Bytes that workers may still take.
    room: usize,
    left_out: u64,
}

/// Merges the activator's page and those of workers, by name. Returns the page and the number of workers' lines that were left out.
pub(crate) fn merge(own: &str, workers: &[(String, String)]) -> (String, u64) {
    let mut page = Page { room: MAX_SAMPLES, ..Page::default() };
    page.add(own, None);
    page.ours = page.families.keys().copied().collect();
    page.left_out = 0;
    for (name, theirs) in workers {
        page.add(theirs, Some(name));
    }
    let mut out = String::new();
    for (name, family) in page.families.iter().filter(|(_, family)| !family.samples.is_empty()) {
        family.help.iter().for_each(|help| out += &format!("# HELP {name} {help}\n"));
        family.kind.iter().for_each(|kind| out += &format!("# TYPE {name} {kind}\n"));
        out += &family.samples;
    }
    out.shrink_to_fit();
    (out, page.left_out)
}

impl<'a> Page<'a> {
    fn add(&mut self, text: &'a str, worker: Option<&str>) {
        // The family that TYPE has announced, and whether it is of the kind that the others with its name are.
        let mut announced: Option<(&str, bool)> = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let words =
                ["# TYPE ", "# HELP "].map(|word| line.strip_prefix(word).and_then(|rest| rest.split_once(' ')));
            let read = match words {
                // A comment.
                [None, None] if line.starts_with('#') => true,
                [Some((name, kind)), _] if self.may_have(name, line) && KINDS.contains(&kind) => {
                    let known = *self.families.entry(name).or_default().kind.get_or_insert(kind);
                    announced = Some((name, known == kind));
                    true
                }
                [_, Some((name, help))] if self.may_have(name, line) => {
                    self.families.entry(name).or_default().help.get_or_insert(help);
                    true
                }
                [None, None] => self.sample(line, announced, worker),
                _ => false,
            };
            self.left_out += u64::from(!read);
        }
    }

    /// Adds a sample; false when it is left out.
    fn sample(&mut self, line: &'a str, announced: Option<(&'a str, bool)>, worker: Option<&str>) -> bool {
        let Some(sample) = Sample::read(line, worker) else { return false };
        let family = match announced {
            Some((name, fits)) if belongs(sample.name, name) => Some(name).filter(|_| fits),
            _ => Some(sample.name),
        };
        let Some(family) = family.filter(|family| self.may_have(family, line) && self.may_have(sample.name, line))
        else {
            return false;
        };
        let samples = &mut self.families.entry(family).or_default().samples;
        let before = samples.len();
        sample.write(samples, worker);
        let written = samples.len() - before;
        if worker.is_some() {
            if written > self.room {
                samples.truncate(before);
                return false;
            }
            self.room -= written;
        }
        true
    }

    /// True if the page being read may have this name, and the line has no control character.
    fn may_have(&self, name: &str, line: &str) -> bool {
        is_name(name) && !self.is_ours(name) && !line.chars().any(|c| c.is_control() && c != '\t')
    }

    /// True if the name is one of the activator's own, or that of a sample of its histograms or summaries.
    fn is_ours(&self, name: &str) -> bool {
        let kind = |family: &str| self.families.get(family).and_then(|family| family.kind);
        let has_parts = |family: &str| matches!(kind(family), Some("histogram" | "summary"));
        let mut families = PARTS.into_iter().filter_map(|part| name.strip_suffix(part));
        self.ours.contains(name) || families.any(|family| self.ours.contains(family) && has_parts(family))
    }
}

/// A histogram's samples have names of their own.
fn belongs(sample: &str, family: &str) -> bool {
    sample.strip_prefix(family).is_some_and(|rest| rest.is_empty() || PARTS.contains(&rest))
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// A value as every parser reads it: Rust's takes words that others do not, such as `-nan`.
fn is_number(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    matches!(text, "NaN" | "+Inf" | "-Inf") || (text.chars().all(plain) && text.parse::<f64>().is_ok())
}

struct Sample<'a> {
    name: &'a str,
    /// The text between the braces, without a comma at its end.
    labels: &'a str,
    value: &'a str,
    /// Milliseconds since 1970.
    time: Option<&'a str>,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str, worker: Option<&str>) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest, worker.is_some())?,
            None => ("", rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().filter(|value| is_number(value))?;
        let time = words.next();
        let whole = words.next().is_none() && time.is_none_or(|time| time.parse::<i64>().is_ok());
        (is_name(name) && whole).then_some(Self { name, labels, value, time })
    }

    fn write(&self, out: &mut String, worker: Option<&str>) {
        let Self { name, labels, value, time } = self;
        let time = time.map(|time| format!(" {time}")).unwrap_or_default();
        let comma = if labels.is_empty() { "" } else { "," };
        match worker {
            Some(worker) => {
                let worker = worker.replace('\\', "\\\\").replace('"', "\\\"");
                *out += &format!("{name}{{{WORKER}=\"{worker}\"{comma}{labels}}} {value}{time}\n");
            }
            None if labels.is_empty() => *out += &format!("{name} {value}{time}\n"),
            None => *out += &format!("{name}{{{labels}}} {value}{time}\n"),
        }
    }
}

/// The labels before the closing brace, and what follows it; `None` if a scraper would reject them, or they have the label `worker` already.
fn labels(text: &str, of_a_worker: bool) -> Option<(&str, &str)> {
    let mut names: Vec<&str> = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((text[..at].trim_end_matches(','), rest));
        }
        let (name, rest) = rest.split_once("=\"")?;
        let value = &rest[..end_of_value(rest)?];
        let plain = is_name(name) && !name.contains(':') && !names.contains(&name) && names.len() < MAX_LABELS;
        // A bound that is no number is an error to parsers that build histograms.
        let counts = !matches!(name, "le" | "quantile") || is_number(value);
        if !plain || !counts || (of_a_worker && name == WORKER) {
            return None;
        }
        names.push(name);
        at += name.len() + 2 + value.len() + 1;
        match text[at..].chars().next()? {
            ',' => at += 1,
            '}' => {}
            _ => return None,
        }
    }
}

/// The position of the quote that ends a value; `None` also for an escape that there is not.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' | '"' | 'n' if escaped => escaped = false,
            _ if escaped => return None,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_are_one_group_with_the_workers_name() {
        let own = "# HELP o Ours\n# TYPE o counter\no{x=\"1\"} 1\n# HELP z Last\n# TYPE z gauge\nz 5\n";
        let one = "# HELP a Theirs\n# TYPE a counter\na{x=\"}\\\"\"} 2\n# HELP b Time\n# TYPE b histogram\nb_bucket{le=\"+Inf\"} 3\nb_sum 0.5\nb_count 3\n";
        let two = "# TYPE b histogram\nb_bucket{le=\"+Inf\"} 4\nb_sum NaN\nb_count 4 1700000000000\nfree 7\n";
        let merged = merge(own, &[("w-1".into(), one.into()), ("w\"2".into(), two.into())]);
        let expected = "# HELP a Theirs\n# TYPE a counter\na{worker=\"w-1\",x=\"}\\\"\"} 2\n\
            # HELP b Time\n# TYPE b histogram\n\
            b_bucket{worker=\"w-1\",le=\"+Inf\"} 3\nb_sum{worker=\"w-1\"} 0.5\nb_count{worker=\"w-1\"} 3\n\
            b_bucket{worker=\"w\\\"2\",le=\"+Inf\"} 4\nb_sum{worker=\"w\\\"2\"} NaN\nb_count{worker=\"w\\\"2\"} 4 1700000000000\n\
            free{worker=\"w\\\"2\"} 7\n\
            # HELP o Ours\n# TYPE o counter\no{x=\"1\"} 1\n\
            # HELP z Last\n# TYPE z gauge\nz 5\n";
        assert_eq!(merged, (expected.to_owned(), 0));
    }

    fn of_one(own: &str, worker: &str) -> (String, u64) {
        merge(own, &[("w".into(), worker.into())])
    }

    #[test]
    fn a_line_that_a_scraper_rejects_is_left_out_and_counted() {
        let bad = [
            "no",
            "no{ 1",
            "no{a=\"} 1",
            "no{a} 1",
            "no{a=1} 1",
            "no{a=\"1\" b=\"2\"} 1",
            "no{a=\"1\",a=\"2\"} 1",
            "no{a:b=\"1\"} 1",
            "no{1=\"1\"} 1",
            "no{a=\"\\q\"} 1",
            "no{worker=\"another\"} 1",
            "no{le=\"many\"} 1",
            "no{a=\"\u{0}\"} 1",
            "<html>",
            "1a 5",
            "a x",
            "a -nan",
            "a infinity",
            "a 1_0",
            "a 1 soon",
            "a 1 2 3",
            "# TYPE - gauge",
            "# TYPE a number",
            "# HELP - x",
            "{} 1",
        ];
        for line in bad {
            assert_eq!(of_one("", &format!("{line}\na 1\n")), ("a{worker=\"w\"} 1\n".to_owned(), 1), "{line}");
        }
        let good = "# any comment\n# TYPE\n\na{x=\"\\\\\\n\",} +Inf\n";
        assert_eq!(of_one("", good), ("a{worker=\"w\",x=\"\\\\\\n\"} +Inf\n".to_owned(), 0));
    }

    #[test]
    fn a_worker_cannot_speak_for_us_or_in_another_kind() {
        let own = "# TYPE demand gauge\ndemand 3\n";
        assert_eq!(of_one(own, "# TYPE demand gauge\ndemand 4000\n"), (own.to_owned(), 2));
        assert_eq!(of_one(own, "# TYPE demand_x counter\n# TYPE d counter\ndemand 4000\n"), (own.to_owned(), 1));
        let own = "# TYPE start histogram\nstart_bucket{le=\"+Inf\"} 1\nstart_sum 1\nstart_count 1\n";
        for line in ["start_bucket{le=\"+Inf\"} 9", "start_sum 9", "start_count 9", "# TYPE start_count counter"] {
            assert_eq!(of_one(own, &format!("{line}\n")), (own.to_owned(), 1), "{line}");
        }
        let pages = ["# TYPE a counter\na 3\n", "# TYPE a gauge\na 1\nb 2\n"];
        let pages = pages.map(|page| (page.len().to_string(), page.to_owned()));
        let merged = "# TYPE a counter\na{worker=\"21\"} 3\nb{worker=\"23\"} 2\n";
        assert_eq!(merge("", &pages), (merged.to_owned(), 1));
    }

    #[test]
    fn workers_lines_are_bounded_by_what_they_become() {
        // A name that is long makes much out of little.
        let page = "a 1\n".repeat(MAX_SAMPLES / 200);
        let (merged, left_out) = merge("", &[("x".repeat(250), page)]);
        assert!(merged.len() <= MAX_SAMPLES && left_out > 0, "{} {left_out}", merged.len());
    }
}
