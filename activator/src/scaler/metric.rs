//! The number that KEDA hands to the HPA. In: a trigger's metadata, the need of all activators. Out: a metric and its target, whose
//! quotient is the wanted number of workers. Pure. Next: `service`, which answers KEDA.
//!
//! The HPA compares `value / (target × existing)` with 1 and does nothing within a tenth, so ten workers never become eleven if the value
//! is the number of streams. When more workers are needed than exist, the value therefore stands for
//! `max(needed, ⌊1.1 × existing⌋ + 1)` workers (architecture.md, "Demand and KEDA"), and it never stands for fewer than are busy. With
//! `scaleIn: idle` the value falls below the existing workers only by those that take no streams, serve none and cost Kubernetes least
//! ([`Need::leaving`]), so that the HPA removes these.

use std::collections::HashMap;

use crate::dispatch::Need;

use super::limits::MAX_APP_IN_NAME;

/// The valid metadata of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The app whose streams count; `None` counts the streams of all apps.
    pub app: Option<String>,
    /// Streams for each worker. Positive and finite.
    pub target: f64,
    /// True if the number may fall by released workers alone (`scaleIn: idle`), so that the HPA removes them one by one.
    pub idle_may_go: bool,
}

/// A mistake in a trigger's metadata, and its fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// The target is not a number by which streams can be divided.
    #[error(
        "metadata target: {0:?} is not a number of streams for each worker: write one from 0.001 to 1000000, such as 50"
    )]
    Target(String),
    /// The value cannot be the name of an app.
    #[error(
        "metadata app: {0:?} cannot be an app: write the part of the publish URL between host and key, or leave it out"
    )]
    App(String),
    /// The value is none of the known words.
    #[error("metadata scaleIn: {0:?} is not known: write none or idle")]
    ScaleIn(String),
    /// The key belongs to a later version.
    #[error("metadata route: this version has no routes; app chooses the streams of one app")]
    Route,
}

impl Trigger {
    /// Reads the metadata of a trigger. Keys that are KEDA's own, or a later version's, are ignored.
    ///
    /// # Errors
    /// The first mistake in the metadata.
    pub fn parse(metadata: &HashMap<String, String>, default_target: u32) -> Result<Self, TriggerError> {
        let set = |key: &str| metadata.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
        if set("route").is_some() {
            return Err(TriggerError::Route);
        }
        let target = match set("target") {
            None => f64::from(default_target),
            Some(text) => {
                let number = text.parse::<f64>().ok().filter(|number| (0.001..=1_000_000.0).contains(number));
                number.ok_or_else(|| TriggerError::Target(text.to_owned()))?
            }
        };
        let app = match set("app") {
            None => None,
            Some(text) if text.chars().any(char::is_control) || text.len() > 256 => {
                return Err(TriggerError::App(text.chars().take(64).collect()));
            }
            Some(text) => Some(text.to_owned()),
        };
        let idle_may_go = match set("scaleIn") {
            None | Some("none") => false,
            Some("idle") => true,
            Some(text) => return Err(TriggerError::ScaleIn(text.chars().take(64).collect())),
        };
        Ok(Self { app, target, idle_may_go })
    }

    /// Name of the metric: lower case, digits and hyphens alone, because KEDA and Kubernetes put it into names of their own.
    pub fn metric_name(&self) -> String {
        let name = "liveedgecast-streams".to_owned();
        let Some(app) = &self.app else { return name };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let app: String = app.chars().take(MAX_APP_IN_NAME).map(plain).collect();
        format!("{name}-{}", app.trim_end_matches('-')).trim_end_matches('-').to_owned()
    }

    /// Target for KEDA before 2.17, which takes whole numbers alone.
    pub fn whole_target(&self) -> i64 {
        whole(self.target)
    }

    /// Value of the metric: the wanted workers times the target.
    pub fn value(&self, need: &Need) -> f64 {
        count(self.workers(need)) * self.target
    }

    /// Value for KEDA before 2.17; divided by [`Self::whole_target`] it gives the same number of workers.
    pub fn whole_value(&self, need: &Need) -> i64 {
        let workers = i64::try_from(self.workers(need)).unwrap_or(i64::MAX);
        workers.saturating_mul(self.whole_target())
    }

    /// Wanted number of workers.
    pub fn workers(&self, need: &Need) -> usize {
        let needed = self.needed(need);
        let stay = if self.idle_may_go { need.workers.saturating_sub(need.leaving) } else { 0 };
        if needed > need.workers { needed.max(need.workers + need.workers / 10 + 1) } else { needed.max(stay) }
    }

    /// Number of workers for a number of streams, rounded up.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive whole number")]
    pub fn for_streams(&self, streams: usize) -> usize {
        (count(streams) / self.target).ceil() as usize
    }

    fn needed(&self, need: &Need) -> usize {
        let for_streams = |streams| self.for_streams(streams);
        // Streams that are spread over many workers may leave no place for one more, even if the target asks for no more workers.
        let more = if need.unplaced > 0 { need.workers + for_streams(need.unplaced) } else { 0 };
        for_streams(need.demand()).max(need.busy).max(more)
    }
}

#[expect(clippy::cast_precision_loss, reason = "streams are fewer than 2^52")]
fn count(streams: usize) -> f64 {
    streams as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a million at most, see parse")]
fn whole(target: f64) -> i64 {
    target.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Trigger, TriggerError> {
        let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Trigger::parse(&metadata, 50)
    }

    #[test]
    fn metadata_is_read_or_its_mistake_named() {
        let all = Trigger { app: None, target: 50.0, idle_may_go: false };
        assert_eq!(parse(&[]), Ok(all.clone()));
        assert_eq!(parse(&[("scalerAddress", "a:6000"), ("target", " "), ("app", ""), ("other", "x")]), Ok(all));
        let live = Trigger { app: Some("live".into()), target: 2.5, idle_may_go: true };
        assert_eq!(parse(&[("target", "2.5"), ("app", "live"), ("scaleIn", "idle")]), Ok(live));
        for bad in ["0", "-1", "many", "NaN", "inf", "1e9", "5 0"] {
            assert_eq!(parse(&[("target", bad)]), Err(TriggerError::Target(bad.into())));
        }
        assert!(matches!(parse(&[("app", "a\nb")]), Err(TriggerError::App(_))));
        assert_eq!(parse(&[("scaleIn", "all")]), Err(TriggerError::ScaleIn("all".into())));
        assert_eq!(parse(&[("route", "x")]), Err(TriggerError::Route));
    }

    #[test]
    fn metric_names_are_plain() {
        for (app, name) in [
            (None, "liveedgecast-streams"),
            (Some("live"), "liveedgecast-streams-live"),
            (Some("Live_2/é"), "liveedgecast-streams-live-2"),
            (Some("///"), "liveedgecast-streams"),
        ] {
            let trigger = Trigger { app: app.map(str::to_owned), target: 1.0, idle_may_go: false };
            assert_eq!(trigger.metric_name(), name);
        }
    }

    /// The HPA's number of workers for a value: the tolerance is a tenth, and at zero workers the HPA takes the quotient (KEDA has made it
    /// one by then).
    fn hpa(value: f64, target: f64, existing: usize) -> usize {
        let existing = count(existing);
        if existing > 0.0 && (value / (target * existing) - 1.0).abs() <= 0.1 {
            return existing as usize;
        }
        (value / target).ceil() as usize
    }

    #[test]
    fn hpa_adds_a_worker_whenever_one_is_needed_and_removes_no_busy_one() {
        for target in [1.0, 2.5, 10.0, 50.0] {
            let trigger = Trigger { app: None, target, idle_may_go: false };
            for workers in 0..=40 {
                for busy in 0..=workers {
                    for unplaced in [0, 1, 7] {
                        let live = busy * 3;
                        let need = Need { waiting: unplaced, live, unplaced, workers, busy, ..Need::default() };
                        let value = trigger.value(&need);
                        let then = hpa(value, target, workers);
                        assert!(then >= busy, "{need:?}");
                        assert!(unplaced == 0 || then > workers, "{need:?} {value} {then}");
                        let whole = trigger.whole_value(&need) as f64;
                        assert_eq!(hpa(whole, trigger.whole_target() as f64, workers), then, "{need:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn workers_follow_the_need() {
        let row =
            |waiting, live, unplaced, workers, busy| Need { waiting, live, unplaced, workers, busy, ..Need::default() };
        for (name, need, expected) in [
            ("nothing", row(0, 0, 0, 0, 0), 0),
            ("the first", row(1, 0, 1, 0, 0), 1),
            ("the first and its worker", row(0, 1, 0, 1, 1), 1),
            ("a crowd from zero", row(25, 0, 25, 0, 0), 3),
            ("ten workers are full", row(1, 100, 1, 10, 10), 12),
            ("a few streams, scattered", row(0, 4, 0, 8, 4), 4),
            ("all gone", row(0, 0, 0, 8, 0), 0),
            ("beyond the target, though there is room", row(0, 11, 0, 1, 1), 2),
        ] {
            let trigger = Trigger { app: None, target: 10.0, idle_may_go: false };
            assert_eq!(trigger.workers(&need), expected, "{name}");
        }
    }

    #[test]
    fn value_falls_by_idle_workers_that_may_go_alone() {
        let trigger = Trigger { app: None, target: 10.0, idle_may_go: true };
        for workers in 1..=12 {
            for leaving in 0..=workers {
                for busy in 0..=workers - leaving {
                    for (unplaced, cut_off) in [(0, 0), (0, 1), (1, 1)] {
                        let waiting = unplaced + cut_off;
                        let need = Need { waiting, live: busy, unplaced, cut_off, workers, busy, leaving };
                        let told = trigger.workers(&need);
                        assert!(told >= workers - leaving, "{need:?}");
                        assert!((unplaced > 0) == (told > workers), "{need:?} {told}");
                    }
                }
            }
        }
    }
}
