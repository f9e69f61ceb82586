//! The events that follow an incident. In: facts, the time. Out: which of them belong to the incident, and when no more do. Pure. Next: `task`, which writes
//! them into the incident's file.

use std::time::{Duration, Instant};

use crate::events::{Fact, UpstreamTurn};

/// Time after an incident that is followed: destinations that were away for a moment are back within a second, and the first waits between attempts are
/// over.
const FOLLOWED_FOR: Duration = Duration::from_secs(60);
/// Events that are kept of it.
pub(super) const EVENTS_AFTER: usize = 200;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Aftermath {
    stream: String,
    /// The destination that was lost, by its name and its host; `None`: a worker was.
    destination: Option<(String, String)>,
    events: usize,
    until: Instant,
}

/// The reason for which no more events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AftermathEnd {
    /// The destination takes the stream again.
    Back,
    /// The stream is over.
    Over,
    /// There are as many as are kept.
    Enough,
    /// The time is up.
    Time,
    /// There are no more events.
    Stopped,
}

impl AftermathEnd {
    /// The word in the file.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Back => "destination_back",
            Self::Over => "stream_ended",
            Self::Enough => "enough",
            Self::Time => "time",
            Self::Stopped => "activator_stopped",
        }
    }
}

impl Aftermath {
    /// Follows the incident that a fact of this stream is.
    pub(super) fn new(now: Instant, stream: &str, incident: &Fact) -> Self {
        let destination = match incident {
            Fact::Upstream { destination, .. } => Some((destination.name.clone(), destination.host.clone())),
            _ => None,
        };
        Self { stream: stream.to_owned(), destination, events: 0, until: now + FOLLOWED_FOR }
    }

    /// Time at which it ends by itself.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.until
    }

    /// Returns whether the event is kept, and whether it is the last one. Events of other streams are not kept; those of no stream are, since they may
    /// be the cause.
    pub(super) fn handle(&mut self, fact: &Fact) -> (bool, Option<AftermathEnd>) {
        if fact.stream().is_some_and(|stream| stream != self.stream) {
            return (false, None);
        }
        self.events += 1;
        let end = match fact {
            Fact::StreamEnded { .. } | Fact::PublisherReplaced { .. } => Some(AftermathEnd::Over),
            Fact::Upstream { destination, turn: UpstreamTurn::Back { .. }, .. }
                if self.destination.as_ref().is_some_and(|(name, host)| {
                    (name, host) == (&destination.name, &destination.host)
                        // A destination with a name may be back at another host.
                        || (name == &destination.name && name != host)
                }) =>
            {
                Some(AftermathEnd::Back)
            }
            _ if self.events >= EVENTS_AFTER => Some(AftermathEnd::Enough),
            _ => None,
        };
        (true, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use liveedgecast_common::testkit::origin;

    use super::*;
    use crate::events::{DestinationLabel, StreamLabel};

    fn of(stream: &str) -> Arc<StreamLabel> {
        Arc::new(StreamLabel { stream: stream.to_owned(), ..StreamLabel::default() })
    }

    fn upstream(stream: &str, name: &str, turn: UpstreamTurn) -> Fact {
        let destination = DestinationLabel { name: name.to_owned(), host: "h:1935".to_owned(), backup: false };
        Fact::Upstream { of: of(stream), destination, turn }
    }

    fn back() -> UpstreamTurn {
        UpstreamTurn::Back { away: FOLLOWED_FOR, replayed: 0, lost: 0 }
    }

    fn lost() -> UpstreamTurn {
        UpstreamTurn::Lost { class: "closed".to_owned(), error: String::new(), live: FOLLOWED_FOR }
    }

    fn ended(stream: &str) -> Fact {
        Fact::StreamEnded { of: of(stream), reason: String::new(), live: FOLLOWED_FOR, messages: 0, bytes: 0 }
    }

    #[test]
    fn destination_that_is_back_and_the_end_of_its_stream_end_the_aftermath() {
        let incident = upstream("one", "main", lost());
        let now = origin();
        let follow = || Aftermath::new(now, "one", &incident);
        assert_eq!(follow().poll_timeout(), now + FOLLOWED_FOR);
        let table = [
            (upstream("two", "main", back()), (false, None)),
            (upstream("one", "other", back()), (true, None)),
            (upstream("one", "main", UpstreamTurn::Lagged { skipped: 1 }), (true, None)),
            (upstream("one", "main", back()), (true, Some(AftermathEnd::Back))),
            (Fact::ProcessFailed { worker: "w".into(), reason: String::new() }, (true, None)),
            (ended("two"), (false, None)),
            (ended("one"), (true, Some(AftermathEnd::Over))),
        ];
        for (fact, expected) in table {
            assert_eq!(follow().handle(&fact), expected, "{fact:?}");
        }
        let worker = Fact::StreamTakenOver { of: of("one"), from: "a".into(), to: "b".into(), fault: true };
        let mut of_worker = Aftermath::new(origin(), "one", &worker);
        assert_eq!(of_worker.handle(&upstream("one", "main", back())), (true, None), "others may not be back");
    }

    #[test]
    fn events_that_are_kept_are_bounded() {
        let mut aftermath = Aftermath::new(origin(), "one", &upstream("one", "main", lost()));
        let ends = (0..EVENTS_AFTER).map(|_| aftermath.handle(&upstream("one", "main", lost())));
        let ends: Vec<_> = ends.collect();
        assert_eq!(ends.last(), Some(&(true, Some(AftermathEnd::Enough))));
        assert!(ends[..EVENTS_AFTER - 1].iter().all(|(kept, end)| *kept && end.is_none()));
    }
}
