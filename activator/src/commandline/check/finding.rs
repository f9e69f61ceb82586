//! The findings of a check. In: a subject, a fault, its fix. Out: a line each, or JSON; the exit code. Pure.

use liveedgecast_common::config::Problems;
use liveedgecast_common::key::LogSafe;
use serde::Serialize;

use crate::commandline::table::Tone;

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    /// The gateway would not start.
    Mistake,
    /// Publishers would notice.
    Fault,
    /// A fault that costs nobody anything yet.
    Warning,
}

/// One finding: one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) weight: Weight,
    /// The part that was looked at: configuration, port, destination, certificate, server, clock, scaledobject.
    pub(super) part: &'static str,
    /// The setting, the destination, the server.
    pub(super) subject: String,
    /// The mistake, and its fix.
    pub(super) text: String,
}

/// All that a check has found.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Findings {
    /// The findings, in the order in which they were looked for.
    pub(super) findings: Vec<Finding>,
    /// The things that are as they should be, in words.
    pub(super) good: Vec<String>,
}

impl Findings {
    pub(super) fn add(&mut self, weight: Weight, part: &'static str, subject: &str, text: impl Into<String>) {
        let text = text.into().split_whitespace().collect::<Vec<_>>().join(" ");
        self.findings.push(Finding { weight, part, subject: subject.to_owned(), text });
    }

    pub(super) fn fault(&mut self, part: &'static str, subject: &str, text: impl Into<String>) {
        self.add(Weight::Fault, part, subject, text);
    }

    pub(super) fn warning(&mut self, part: &'static str, subject: &str, text: impl Into<String>) {
        self.add(Weight::Warning, part, subject, text);
    }

    pub(super) fn mistakes(&mut self, problems: &Problems) {
        for problem in problems.iter() {
            self.add(Weight::Mistake, "configuration", &problem.setting, problem.text.clone());
        }
    }

    pub(super) fn good(&mut self, text: impl Into<String>) {
        self.good.push(text.into());
    }

    /// Adds those of another check.
    pub(super) fn append(&mut self, mut other: Self) {
        self.findings.append(&mut other.findings);
        self.good.append(&mut other.good);
    }

    /// The number of findings of a weight.
    pub(super) fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|finding| finding.weight == weight).count()
    }

    /// The lines, each with its fix.
    pub(super) fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        for Finding { weight, part, subject, text: words } in &self.findings {
            let (word, tone) = match weight {
                Weight::Mistake => ("mistake", Tone::Bad),
                Weight::Fault => ("fault", Tone::Bad),
                Weight::Warning => ("warning", Tone::Changing),
            };
            text += &format!("{}  {part} {}: {words}\n", tone.paint(word, coloured), LogSafe(subject));
        }
        for words in &self.good {
            text += &format!("{}  {words}\n", Tone::Good.paint("good", coloured));
        }
        text
    }
}
