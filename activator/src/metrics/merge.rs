//! One page of metrics out of several. In: our own and every worker's, in the Prometheus text format. Out: the same with a `worker`
//! label on the workers' samples. Pure.
//!
//! What surprised us: the format wants every sample of a name in one group, so pages cannot simply follow each other; and a line that
//! is not a sample makes a scraper throw the whole page away, so what a worker sends is read and not just copied.

use std::collections::BTreeMap;

/// All samples of one name.
#[derive(Default)]
struct Family<'a> {
    kind: Option<&'a str>,
    help: Option<&'a str>,
    samples: String,
}

/// Merges pages: ours, and those of workers by name.
pub(crate) fn merge(own: &str, workers: &[(String, String)]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    add(&mut families, own, None);
    for (name, page) in workers {
        add(&mut families, page, Some(name));
    }
    let mut out = String::new();
    for (name, family) in families.iter().filter(|(_, family)| !family.samples.is_empty()) {
        family.help.iter().for_each(|help| out += &format!("# HELP {name} {help}\n"));
        family.kind.iter().for_each(|kind| out += &format!("# TYPE {name} {kind}\n"));
        out += &family.samples;
    }
    out
}

fn add<'a>(families: &mut BTreeMap<&'a str, Family<'a>>, page: &'a str, worker: Option<&str>) {
    // The family that TYPE has announced, and whether it is of the kind that the others with its name are.
    let mut announced: Option<(&str, bool)> = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ').filter(|(name, _)| is_name(name)) else { continue };
            let known = *families.entry(name).or_default().kind.get_or_insert(kind);
            announced = Some((name, known == kind));
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ').filter(|(name, _)| is_name(name)) else { continue };
            families.entry(name).or_default().help.get_or_insert(help);
        } else if let Some(sample) = Sample::read(line) {
            let family = match announced {
                Some((name, fits)) if belongs(sample.name, name) => fits.then_some(name),
                _ => Some(sample.name),
            };
            if let Some(family) = family {
                sample.write(&mut families.entry(family).or_default().samples, worker);
            }
        }
    }
}

/// A histogram's samples have names of their own.
fn belongs(sample: &str, family: &str) -> bool {
    sample.strip_prefix(family).is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

struct Sample<'a> {
    name: &'a str,
    /// What is between the braces.
    labels: &'a str,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => {
                let end = end_of_labels(rest)?;
                (&rest[..end], &rest[end + 1..])
            }
            None => ("", rest),
        };
        let value = value.trim();
        let number = value.split(' ').next()?;
        (is_name(name) && number.parse::<f64>().is_ok()).then_some(Self { name, labels, value })
    }

    fn write(&self, out: &mut String, worker: Option<&str>) {
        let Self { name, labels, value } = self;
        let comma = if labels.is_empty() { "" } else { "," };
        match worker {
            Some(worker) => {
                let worker = worker.replace('\\', "\\\\").replace('"', "\\\"");
                *out += &format!("{name}{{worker=\"{worker}\"{comma}{labels}}} {value}\n");
            }
            None if labels.is_empty() => *out += &format!("{name} {value}\n"),
            None => *out += &format!("{name}{{{labels}}} {value}\n"),
        }
    }
}

/// Where the closing brace is that is not within quotes.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at),
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
        let own = "# HELP a Ours\n# TYPE a counter\na{x=\"1\"} 1\n# HELP z Last\n# TYPE z gauge\nz 5\n";
        let one = "# HELP a Theirs\n# TYPE a counter\na{x=\"}\\\"\"} 2\n# HELP b Time\n# TYPE b histogram\nb_bucket{le=\"+Inf\"} 3\nb_sum 0.5\nb_count 3\n";
        let two = "# TYPE b histogram\nb_bucket{le=\"+Inf\"} 4\nb_sum NaN\nb_count 4 1700000000000\nfree 7\n";
        let merged = merge(own, &[("w-1".into(), one.into()), ("w\"2".into(), two.into())]);
        let expected = "# HELP a Ours\n# TYPE a counter\na{x=\"1\"} 1\na{worker=\"w-1\",x=\"}\\\"\"} 2\n\
            # HELP b Time\n# TYPE b histogram\n\
            b_bucket{worker=\"w-1\",le=\"+Inf\"} 3\nb_sum{worker=\"w-1\"} 0.5\nb_count{worker=\"w-1\"} 3\n\
            b_bucket{worker=\"w\\\"2\",le=\"+Inf\"} 4\nb_sum{worker=\"w\\\"2\"} NaN\nb_count{worker=\"w\\\"2\"} 4 1700000000000\n\
            free{worker=\"w\\\"2\"} 7\n\
            # HELP z Last\n# TYPE z gauge\nz 5\n";
        assert_eq!(merged, expected);
    }

    #[test]
    fn what_is_no_sample_is_left_out() {
        let bad = "no\nno{ 1\nno{a=\"} 1\n<html>\n1a 5\na x\n# TYPE\n# TYPE a\n# HELP - x\n\n{} 1\na 1";
        assert_eq!(merge("", &[("w".into(), bad.into())]), "a{worker=\"w\"} 1\n");
        let other_kind = "# TYPE a gauge\na 1\nb 2\n";
        assert_eq!(
            merge("# TYPE a counter\na 3\n", &[("w".into(), other_kind.into())]),
            "# TYPE a counter\na 3\nb{worker=\"w\"} 2\n"
        );
    }
}
