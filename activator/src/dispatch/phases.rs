//! The phases of a cold start. In: the times of a start, and the worker's word about the first media. Out: the duration of each phase. Pure.
//!
//! ```text
//!  publish ──▶ Pushed ──▶ Scaled ──▶ PodCreated ──▶ Scheduled ──▶ ProcessStarted ──▶ Registered ──▶ HandedOver ──▶ Live ──▶ Media
//! ```
//! Each phase ends at the milestone of its name and begins where the one before it has ended, so all of them together are the time from
//! `publish` to the first media upstream. A milestone that this activator does not know has no phase: its time lies in the next one.
//!
//! Note: no clocks are compared. A worker tells the age of its process, and the time from its acceptance to the first media; both are counted from
//! the moment at which this activator heard of the registration and of the acceptance.

use std::time::{Duration, Instant};

use super::messages::Started;

/// Phases of a cold start, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColdPhase {
    /// Time until KEDA was pushed the demand, or the process fleet ordered a worker.
    Pushed,
    /// Time until the Deployment of the workers was scaled up, by the Kubernetes API.
    Scaled,
    /// Time until the worker's pod was created, by the Kubernetes API.
    PodCreated,
    /// Time until the worker's pod had a node, by the Kubernetes API.
    Scheduled,
    /// Time until the worker's process began, by the worker's own word.
    ProcessStarted,
    /// Time until the worker had registered here.
    Registered,
    /// Time until the worker had taken the stream.
    HandedOver,
    /// Time until the publisher was told to start: the first upstream, or every required one, had started.
    Live,
    /// Time until the first media of the publisher were written to an upstream, by the worker's own word.
    Media,
}

/// Labels of all phases in metrics and events.
pub(crate) const COLD_START_PHASES: [&str; 9] =
    ["pushed", "scaled", "pod_created", "scheduled", "process_started", "registered", "handed_over", "live", "media"];

impl ColdPhase {
    /// The label in metrics and events.
    pub(crate) fn as_str(self) -> &'static str {
        COLD_START_PHASES[self as usize]
    }
}

/// A start for which a worker had to come up, with the time of each of its phases that is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColdStartPhases {
    /// The stream.
    pub(crate) stream_id: String,
    /// The worker that had to be started.
    pub(crate) worker: String,
    /// The publisher connected.
    pub(crate) connected: Option<Instant>,
    /// The publisher entered the lobby, where the first phase begins.
    pub(crate) entered: Instant,
    /// The phases, in their order.
    pub(crate) phases: Vec<(ColdPhase, Duration)>,
}

impl ColdStartPhases {
    /// Takes a cold start apart. `media`: the time from the worker's acceptance to the first media upstream; `None`: there were none.
    pub(crate) fn of(start: Started, media: Option<Duration>) -> Self {
        // A worker's word moves its milestone within the time that we know for certain.
        let within = |at: Instant| at.clamp(start.entered, start.joined);
        let pushed = start.process.map(|(ordered, _)| ordered).or(start.pushed).map(within);
        let began = start.began.or(start.process.map(|(_, spawned)| spawned)).map(within);
        let milestones = [
            (ColdPhase::Pushed, pushed),
            (ColdPhase::Scaled, start.pod.scaled.map(within)),
            (ColdPhase::PodCreated, start.pod.created.map(within)),
            (ColdPhase::Scheduled, start.pod.scheduled.map(within)),
            (ColdPhase::ProcessStarted, began),
            (ColdPhase::Registered, Some(start.joined)),
            (ColdPhase::HandedOver, Some(start.taken)),
            (ColdPhase::Live, Some(start.started)),
            (ColdPhase::Media, media.and_then(|time| start.taken.checked_add(time))),
        ];
        let mut last = start.entered;
        let mut phase = |(phase, at): (ColdPhase, Option<Instant>)| {
            let before = last;
            last = at?.max(last);
            Some((phase, last - before))
        };
        let phases = milestones.into_iter().filter_map(&mut phase).collect();
        let Started { stream_id, worker, connected, entered, .. } = start;
        Self { stream_id, worker, connected, entered, phases }
    }

    /// The duration of a phase, if it is known.
    pub(crate) fn time(&self, phase: ColdPhase) -> Option<Duration> {
        self.phases.iter().find(|(known, _)| *known == phase).map(|(_, time)| *time)
    }

    /// Time of all phases together.
    pub(crate) fn whole(&self) -> Duration {
        self.phases.iter().map(|(_, time)| *time).sum()
    }
}

impl Started {
    /// Returns whether the worker came up after the publisher.
    pub(crate) fn is_cold(&self) -> bool {
        self.joined > self.entered
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;
    use crate::dispatch::pods::PodTimes;

    #[test]
    fn labels_are_those_of_the_phases() {
        use ColdPhase::{HandedOver, Live, Media, PodCreated, ProcessStarted, Pushed, Registered, Scaled, Scheduled};
        let all = [Pushed, Scaled, PodCreated, Scheduled, ProcessStarted, Registered, HandedOver, Live, Media];
        assert_eq!(all.map(ColdPhase::as_str), COLD_START_PHASES);
    }

    #[test]
    fn phases_add_up_to_the_time_from_publish_to_the_first_media() {
        let origin = origin();
        let at = |milliseconds| origin + Duration::from_millis(milliseconds);
        let start = |pushed: Option<u64>, process: Option<(u64, u64)>, began: Option<u64>| Started {
            stream_id: "s".into(),
            worker: "w".into(),
            connected: None,
            entered: at(10),
            pushed: pushed.map(at),
            joined: at(40),
            began: began.map(at),
            taken: at(50),
            started: at(60),
            process: process.map(|(ordered, spawned)| (at(ordered), at(spawned))),
            pod: PodTimes::default(),
            returns_to: None,
        };
        use ColdPhase::{HandedOver, Live, Media, ProcessStarted, Pushed, Registered};
        let rest = [(HandedOver, 10), (Live, 10)];
        // Name, push, order and spawn of the process, its beginning by the worker's word, first media after the acceptance; the phases.
        let table = [
            (
                "Kubernetes",
                Some(12),
                None,
                Some(35),
                Some(13),
                vec![(Pushed, 2), (ProcessStarted, 23), (Registered, 5)],
                3,
            ),
            (
                "process fleet",
                None,
                Some((11, 14)),
                Some(16),
                Some(13),
                vec![(Pushed, 1), (ProcessStarted, 5), (Registered, 24)],
                3,
            ),
            (
                "earlier release",
                None,
                Some((11, 14)),
                None,
                Some(13),
                vec![(Pushed, 1), (ProcessStarted, 3), (Registered, 26)],
                3,
            ),
            (
                "on its way",
                None,
                Some((2, 4)),
                Some(5),
                Some(13),
                vec![(Pushed, 0), (ProcessStarted, 0), (Registered, 30)],
                3,
            ),
            ("pushed elsewhere", None, None, Some(35), Some(13), vec![(ProcessStarted, 25), (Registered, 5)], 3),
            ("nothing known", None, None, None, Some(13), vec![(Registered, 30)], 3),
            (
                "pushed too late",
                Some(70),
                None,
                Some(35),
                Some(13),
                vec![(Pushed, 30), (ProcessStarted, 0), (Registered, 0)],
                3,
            ),
            (
                "younger than its call",
                Some(12),
                None,
                Some(90),
                Some(13),
                vec![(Pushed, 2), (ProcessStarted, 28), (Registered, 0)],
                3,
            ),
            (
                "media before the start",
                Some(12),
                None,
                Some(35),
                Some(2),
                vec![(Pushed, 2), (ProcessStarted, 23), (Registered, 5)],
                0,
            ),
        ];
        for (name, pushed, process, began, media, mut phases, last) in table {
            let start = start(pushed, process, began);
            assert!(start.is_cold());
            let cold = ColdStartPhases::of(start, media.map(Duration::from_millis));
            phases.extend(rest.into_iter().chain([(Media, last)]));
            let told: Vec<_> = cold.phases.iter().map(|(phase, time)| (*phase, time.as_millis())).collect();
            assert_eq!(told, phases, "{name}");
            assert_eq!(cold.whole(), at(60 + u64::try_from(last).unwrap()) - at(10), "{name}");
        }
        let silent = ColdStartPhases::of(start(None, None, None), None);
        assert_eq!((silent.time(Media), silent.whole()), (None, Duration::from_millis(50)), "no media came");
        let pod = PodTimes { scaled: Some(at(14)), created: Some(at(16)), scheduled: Some(at(19)) };
        let in_a_pod = ColdStartPhases::of(Started { pod, ..start(Some(12), None, Some(35)) }, None);
        let times: Vec<_> = in_a_pod.phases.iter().map(|(phase, time)| (phase.as_str(), time.as_millis())).collect();
        let first = [("pushed", 2), ("scaled", 2), ("pod_created", 2), ("scheduled", 3), ("process_started", 16)];
        assert_eq!(times, [first.as_slice(), &[("registered", 5), ("handed_over", 10), ("live", 10)]].concat());
        let warm = Started { joined: at(10), ..start(None, None, None) };
        assert!(!warm.is_cold(), "the worker was there");
    }
}
