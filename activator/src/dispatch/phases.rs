//! The phases of a cold start. In: the times of a start. Out: the duration of each phase. Pure.

use std::time::Duration;

use super::messages::Started;

/// The parts of a start for which a worker had to come up, in their order. Together they are the time from `publish` to
/// `Publish.Start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Time until a worker was ordered.
    pub(crate) detect: Duration,
    /// Time until its process was spawned.
    pub(crate) scale: Duration,
    /// Time until the worker had registered.
    pub(crate) register: Duration,
    /// Time until the worker had taken the stream.
    pub(crate) handoff: Duration,
    /// Time until the first upstream had started.
    pub(crate) upstream: Duration,
}

impl Phases {
    /// The durations with their labels in metrics.
    pub(crate) fn named(&self) -> [(&'static str, Duration); 5] {
        [
            ("detect", self.detect),
            ("scale", self.scale),
            ("register", self.register),
            ("handoff", self.handoff),
            ("upstream", self.upstream),
        ]
    }
}

/// The parts of a start; `None` when the worker was there before the publisher.
pub(crate) fn cold(start: &Started) -> Option<Phases> {
    if start.joined <= start.entered {
        return None;
    }
    let (asked, spawned) = start.process.unwrap_or((start.entered, start.entered));
    // Part of the start of a worker that was being started already lies before the publisher came.
    let asked = asked.max(start.entered);
    let spawned = spawned.max(asked);
    let joined = start.joined.max(spawned);
    let taken = start.taken.max(joined);
    Some(Phases {
        detect: asked - start.entered,
        scale: spawned - asked,
        register: joined - spawned,
        handoff: taken - joined,
        upstream: start.started.saturating_duration_since(taken),
    })
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn phases_add_up_to_the_cold_start_and_a_warm_start_has_none() {
        let origin = origin();
        let at = |milliseconds| origin + Duration::from_millis(milliseconds);
        let start = |entered, joined, process| Started {
            stream_id: "s".into(),
            worker: "w".into(),
            entered: at(entered),
            joined: at(joined),
            taken: at(50),
            started: at(60),
            process,
            returns_to: None,
        };
        let told = |entered, joined, process| {
            cold(&start(entered, joined, process)).map(|phases| phases.named().map(|(_, time)| time.as_millis()))
        };
        assert_eq!(told(10, 40, Some((at(11), at(14)))), Some([1, 3, 26, 10, 10]));
        assert_eq!(told(10, 40, Some((at(2), at(20)))), Some([0, 10, 20, 10, 10]), "it was on its way");
        assert_eq!(told(10, 40, None), Some([0, 0, 30, 10, 10]), "somebody else's");
        assert_eq!(told(45, 40, Some((at(2), at(20)))), None);
    }
}
