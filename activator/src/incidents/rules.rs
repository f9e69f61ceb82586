//! The events that are incidents. In: facts. Out: the stream that one is about. Pure. Next: `task`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::{Fact, StreamLabel, UpstreamTurn};

/// Time between two incidents of one stream: what follows is mostly the same one, and its bytes are in the same file.
const EVERY: Duration = Duration::from_secs(10);
/// Lost workers whose streams are waited for.
const MOST_WORKERS: usize = 64;
/// Class of a destination that is lost because its stream went to another worker.
const TAKEN_OVER: &str = "taken_over";

/// The memory of the rules.
#[derive(Debug, Default)]
pub(super) struct IncidentRules {
    workers: VecDeque<String>,
    /// Time of the last incident, by the id of the stream.
    last: HashMap<String, Instant>,
}

impl IncidentRules {
    /// The stream of the incident that a fact is, if it is one.
    pub(super) fn handle(&mut self, now: Instant, fact: &Fact) -> Option<Arc<StreamLabel>> {
        let of = match fact {
            Fact::Upstream { of, turn: UpstreamTurn::Lost { class, .. }, .. } if class != TAKEN_OVER => of,
            // A stream also changes its worker without any fault. A publisher that returns elsewhere, or a process that fails, tells of one later.
            Fact::StreamTakenOver { of, from, fault, .. } if *fault || self.workers.contains(from) => of,
            // By link the stream has left the worker before the end of its call is noticed.
            Fact::WorkerLost { worker, .. } | Fact::ProcessFailed { worker, .. } => {
                self.workers.truncate(MOST_WORKERS - 1);
                self.workers.push_front(worker.clone());
                return None;
            }
            _ => return None,
        };
        self.last.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        if self.last.contains_key(&of.stream) {
            return None;
        }
        self.last.insert(of.stream.clone(), now);
        Some(Arc::clone(of))
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;
    use crate::events::DestinationLabel;

    #[test]
    fn loss_of_a_destination_or_of_a_worker_is_an_incident_and_a_planned_move_is_none() {
        let mut rules = IncidentRules::default();
        let of = |stream: &str| Arc::new(StreamLabel { stream: stream.to_owned(), ..StreamLabel::default() });
        let lost = |stream: &str, class: &str| {
            let turn = UpstreamTurn::Lost { class: class.to_owned(), error: String::new(), live: EVERY };
            Fact::Upstream { of: of(stream), destination: DestinationLabel::default(), turn }
        };
        let taken = |stream: &str, from: &str, fault| Fact::StreamTakenOver {
            of: of(stream),
            from: from.into(),
            to: "b".into(),
            fault,
        };
        let moved = |stream: &str, from: &str| taken(stream, from, false);
        let now = origin();
        // Seconds, the fact, whether it is an incident.
        let table = [
            (0, lost("one", "closed"), true),
            (1, lost("one", "closed"), false),
            (1, lost("two", TAKEN_OVER), false),
            (2, lost("two", "lost"), true),
            (10, lost("one", "closed"), true),
            (11, moved("three", "a"), false),
            (12, Fact::WorkerLost { worker: "a".into(), streams: 2 }, false),
            (12, moved("three", "a"), true),
            (12, moved("four", "a"), true),
            (13, moved("five", "c"), false),
            (13, Fact::ProcessFailed { worker: "c".into(), reason: String::new() }, false),
            (13, moved("five", "c"), true),
            // The worker of another activator, or the connection to it.
            (14, taken("six", "d", true), true),
            (15, taken("six", "d", true), false),
        ];
        for (row, (seconds, fact, incident)) in table.into_iter().enumerate() {
            let found = rules.handle(now + Duration::from_secs(seconds), &fact);
            assert_eq!(found.is_some(), incident, "row {row}");
        }
        for number in 0..3 * MOST_WORKERS {
            rules.handle(now, &Fact::WorkerLost { worker: number.to_string(), streams: 1 });
        }
        assert_eq!(rules.workers.len(), MOST_WORKERS);
    }
}
