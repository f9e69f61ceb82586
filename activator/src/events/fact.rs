//! The vocabulary: every fact that is told, with its figures. In: names, ids, times. Out: the event's name and its fields, never a key or a URL.
//! Next: `notice`. Pure.

use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::event;

/// The names of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamLabel {
    /// Id of the publisher's stay.
    pub stream: String,
    /// App that the publisher named, without its query; empty if it is no valid name.
    pub app: String,
    /// Name of the publisher's entry in the configuration file, if it has one.
    pub publisher: Option<String>,
}

/// The names of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationLabel {
    /// Name of the destination in its route; the host where the push URLs have no names.
    pub name: String,
    /// Host and port.
    pub host: String,
    /// The last live session was with the destination's backup.
    pub backup: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A publisher was told to start.
    StreamLive {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The worker that has it.
        worker: String,
        /// The time from `publish` to the start.
        start: Duration,
        /// A worker had to be started for it.
        cold: bool,
    },
    /// A start for which a worker had to be started, told with its first media or at its end.
    StartCold {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The worker.
        worker: String,
        /// The phases, by name.
        phases: Vec<(&'static str, Duration)>,
    },
    /// A stream that a worker had taken ended before it started.
    StartFailed {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The worker.
        worker: String,
    },
    /// Another worker has taken the stream.
    StreamTakenOver {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The worker that had it.
        from: String,
        /// The worker that has it now.
        to: String,
        /// The first one was lost with the stream, or its connection was. Incidents need it; it is not told.
        fault: bool,
    },
    /// A stream that was live is over.
    StreamEnded {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The cause in the worker's words; empty if it had none.
        reason: String,
        /// The time from its start to its end.
        live: Duration,
        /// Messages of the publisher, as its workers have counted them: what one has read again counts again.
        messages: u64,
        /// Bytes of the publisher, counted in the same way.
        bytes: u64,
    },
    /// No worker has passed on the last bytes of a stream that was live.
    StreamRestLost {
        /// The stream.
        of: StreamLabel,
        /// The reason for which no worker has got them.
        reason: &'static str,
        /// Bytes since the last state that every live upstream had; it may have got some of them.
        bytes: u64,
    },
    /// A publisher's connection was lost; the grace time runs.
    PublisherLost {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The worker that keeps its upstreams.
        worker: String,
    },
    /// A publisher returned, and goes on in the upstream sessions of its earlier stay.
    PublisherBack {
        /// The stream, under the id of the new stay.
        of: Arc<StreamLabel>,
        /// The worker that has it.
        worker: String,
        /// The id of the earlier stay.
        was: String,
    },
    /// A silent publisher was replaced.
    PublisherReplaced {
        /// The stream, under the id of the stay that is over.
        of: Arc<StreamLabel>,
        /// The id of the new stay.
        by: String,
    },
    /// Admission did not take a publisher.
    PublisherRefused {
        /// The stream that there would have been.
        of: StreamLabel,
        /// The reason.
        class: &'static str,
        /// Address of the publisher.
        client: String,
    },
    /// The lobby did not take a publisher, or does not hold it any longer.
    PublisherSentAway {
        /// The stream.
        of: StreamLabel,
        /// The reason.
        class: &'static str,
        /// Address of the publisher.
        client: String,
    },
    /// A destination of a stream moved.
    Upstream {
        /// The stream.
        of: Arc<StreamLabel>,
        /// The destination.
        destination: DestinationLabel,
        /// The move.
        turn: UpstreamTurn,
    },
    /// A worker died with streams.
    WorkerLost {
        /// The worker.
        worker: String,
        /// Its streams whose publishers are connected to this activator.
        streams: u64,
    },
    /// A worker process failed.
    ProcessFailed {
        /// The worker.
        worker: String,
        /// The cause.
        reason: String,
    },
    /// A file of the configuration is in force.
    FileReloaded {
        /// The setting that names it.
        setting: &'static str,
    },
    /// A file of the configuration has mistakes; the last good one stays in force.
    FileRejected {
        /// The setting that names it.
        setting: &'static str,
        /// The mistakes.
        reason: String,
    },
    /// Events before the next one are not kept any more.
    EventsMissed {
        /// Their number; `None` if the last one that the reader has is not of this process.
        missed: Option<u64>,
    },
}

/// A move of a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamTurn {
    /// It takes the stream for the first time.
    Live,
    /// It was not reached; it is asked again.
    Away {
        /// Class of the failure.
        class: String,
        /// The failure in words.
        error: String,
    },
    /// It refuses, or waiting alone does not help; it is asked again, rarely.
    Failed {
        /// Class of the failure.
        class: String,
        /// The failure in words.
        error: String,
    },
    /// It was live and is lost.
    Lost {
        /// Class of the failure; `taken_over` if the stream went to another worker.
        class: String,
        /// The failure in words.
        error: String,
        /// The time for which it was live.
        live: Duration,
    },
    /// It was lost and takes the stream again.
    Back {
        /// The time without it.
        away: Duration,
        /// Messages that it got twice, since it was lost.
        replayed: u64,
        /// Messages that it did not get, since it was lost.
        lost: u64,
    },
    /// Messages were skipped, because it lagged.
    Lagged {
        /// Their number, since the last such event.
        skipped: u64,
    },
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// Names and words.
    Text(&'a str),
    /// A number.
    Count(u64),
    /// A number that is not known.
    Unknown,
    /// Yes or no.
    Answer(bool),
    /// A time, in seconds with milliseconds.
    Time(Duration),
}

impl UpstreamTurn {
    fn event(&self) -> &'static str {
        match self {
            Self::Live => event::UPSTREAM_LIVE,
            Self::Away { .. } => event::UPSTREAM_AWAY,
            Self::Failed { .. } => event::UPSTREAM_FAILED,
            Self::Lost { .. } => event::UPSTREAM_LOST,
            Self::Back { .. } => event::UPSTREAM_BACK,
            Self::Lagged { .. } => event::UPSTREAM_LAGGED,
        }
    }

    fn each<'a>(&'a self, put: &mut impl FnMut(&'static str, Field<'a>)) {
        match self {
            Self::Live => {}
            Self::Away { class, error } | Self::Failed { class, error } => {
                put("class", Field::Text(class));
                put("error", Field::Text(error));
            }
            Self::Lost { class, error, live } => {
                put("class", Field::Text(class));
                put("error", Field::Text(error));
                put("live_seconds", Field::Time(*live));
            }
            Self::Back { away, replayed, lost } => {
                put("away_seconds", Field::Time(*away));
                put("replayed", Field::Count(*replayed));
                put("lost", Field::Count(*lost));
            }
            Self::Lagged { skipped } => put("skipped", Field::Count(*skipped)),
        }
    }
}

impl StreamLabel {
    fn each<'a>(&'a self, put: &mut impl FnMut(&'static str, Field<'a>)) {
        put("stream", Field::Text(&self.stream));
        put("app", Field::Text(&self.app));
        put("publisher", Field::Text(self.publisher.as_deref().unwrap_or_default()));
    }
}

/// The field of each phase of a cold start.
fn phase_field(phase: &str) -> &'static str {
    match phase {
        "pushed" => "pushed_seconds",
        "scaled" => "scaled_seconds",
        "pod_created" => "pod_created_seconds",
        "scheduled" => "scheduled_seconds",
        "process_started" => "process_started_seconds",
        "registered" => "registered_seconds",
        "handed_over" => "handed_over_seconds",
        "live" => "live_seconds",
        _ => "media_seconds",
    }
}

impl Fact {
    /// The name of the event.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::StreamLive { .. } => event::STREAM_LIVE,
            Self::StartCold { .. } => event::START_COLD,
            Self::StartFailed { .. } => event::START_FAILED,
            Self::StreamTakenOver { .. } => event::STREAM_TAKEN_OVER,
            Self::StreamEnded { .. } => event::STREAM_ENDED,
            Self::StreamRestLost { .. } => event::STREAM_REST_LOST,
            Self::PublisherLost { .. } => event::PUBLISHER_LOST,
            Self::PublisherBack { .. } => event::PUBLISHER_BACK,
            Self::PublisherReplaced { .. } => event::PUBLISHER_REPLACED,
            Self::PublisherRefused { .. } => event::PUBLISHER_REFUSED,
            Self::PublisherSentAway { .. } => event::PUBLISHER_SENT_AWAY,
            Self::Upstream { turn, .. } => turn.event(),
            Self::WorkerLost { .. } => event::WORKER_LOST,
            Self::ProcessFailed { .. } => event::PROCESS_FAILED,
            Self::FileReloaded { .. } => event::FILE_RELOADED,
            Self::FileRejected { .. } => event::FILE_REJECTED,
            Self::EventsMissed { .. } => event::EVENTS_MISSED,
        }
    }

    /// The id of the stream that the event is about, if it is about one.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        match self {
            Self::StreamLive { of, .. }
            | Self::StartCold { of, .. }
            | Self::StartFailed { of, .. }
            | Self::StreamTakenOver { of, .. }
            | Self::StreamEnded { of, .. }
            | Self::PublisherLost { of, .. }
            | Self::PublisherBack { of, .. }
            | Self::PublisherReplaced { of, .. }
            | Self::Upstream { of, .. } => Some(&of.stream),
            Self::StreamRestLost { of, .. }
            | Self::PublisherRefused { of, .. }
            | Self::PublisherSentAway { of, .. } => Some(&of.stream),
            Self::WorkerLost { .. }
            | Self::ProcessFailed { .. }
            | Self::FileReloaded { .. }
            | Self::FileRejected { .. }
            | Self::EventsMissed { .. } => None,
        }
    }

    /// Hands every field to `put`, in their order. Texts without a value are left out.
    pub(super) fn each<'a>(&'a self, mut put: impl FnMut(&'static str, Field<'a>)) {
        let put = &mut |name, field: Field<'a>| {
            if field != Field::Text("") {
                put(name, field);
            }
        };
        match self {
            Self::StreamLive { of, worker, start, cold } => {
                of.each(put);
                put("worker", Field::Text(worker));
                put("cold", Field::Answer(*cold));
                put("start_seconds", Field::Time(*start));
            }
            Self::StartCold { of, worker, phases } => {
                of.each(put);
                put("worker", Field::Text(worker));
                phases.iter().for_each(|(phase, time)| put(phase_field(phase), Field::Time(*time)));
                put("whole_seconds", Field::Time(phases.iter().map(|(_, time)| *time).sum()));
            }
            Self::StartFailed { of, worker } | Self::PublisherLost { of, worker } => {
                of.each(put);
                put("worker", Field::Text(worker));
            }
            Self::StreamTakenOver { of, from, to, fault: _ } => {
                of.each(put);
                put("from", Field::Text(from));
                put("to", Field::Text(to));
            }
            Self::StreamEnded { of, reason, live, messages, bytes } => {
                of.each(put);
                put("reason", Field::Text(reason));
                put("live_seconds", Field::Time(*live));
                put("messages", Field::Count(*messages));
                put("bytes", Field::Count(*bytes));
            }
            Self::StreamRestLost { of, reason, bytes } => {
                of.each(put);
                put("reason", Field::Text(reason));
                put("bytes", Field::Count(*bytes));
            }
            Self::PublisherBack { of, worker, was } => {
                of.each(put);
                put("worker", Field::Text(worker));
                put("was", Field::Text(was));
            }
            Self::PublisherReplaced { of, by } => {
                of.each(put);
                put("by", Field::Text(by));
            }
            Self::PublisherRefused { of, class, client } | Self::PublisherSentAway { of, class, client } => {
                of.each(put);
                put("client", Field::Text(client));
                put("class", Field::Text(class));
            }
            Self::Upstream { of, destination, turn } => {
                of.each(put);
                put("destination", Field::Text(&destination.name));
                put("host", Field::Text(&destination.host));
                put("backup", Field::Answer(destination.backup));
                turn.each(put);
            }
            Self::WorkerLost { worker, streams } => {
                put("worker", Field::Text(worker));
                put("streams", Field::Count(*streams));
            }
            Self::ProcessFailed { worker, reason } => {
                put("worker", Field::Text(worker));
                put("reason", Field::Text(reason));
            }
            Self::FileReloaded { setting } => put("setting", Field::Text(setting)),
            Self::FileRejected { setting, reason } => {
                put("setting", Field::Text(setting));
                put("reason", Field::Text(reason));
            }
            Self::EventsMissed { missed } => put("missed", missed.map_or(Field::Unknown, Field::Count)),
        }
    }

    /// The names of the fields that this fact has, in their order.
    #[must_use]
    pub fn field_names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        self.each(|name, _| names.push(name));
        names
    }

    /// One of each, with every field: the guide's table is made of them.
    #[must_use]
    pub fn samples() -> Vec<Self> {
        let name = String::from;
        let label =
            StreamLabel { stream: name("5f0c1d2e3a4b5c6d"), app: name("live"), publisher: Some(name("studio-a")) };
        let of = || Arc::new(label.clone());
        let (worker, second) = (|| name("worker-1-1"), Duration::from_secs(1));
        let upstream = |turn| Self::Upstream {
            of: of(),
            destination: DestinationLabel {
                name: name("youtube"),
                host: name("a.rtmps.youtube.com:443"),
                backup: true,
            },
            turn,
        };
        let (class, error) = (|| name("connection_refused"), || name("connection refused"));
        let phases = [
            "pushed",
            "scaled",
            "pod_created",
            "scheduled",
            "process_started",
            "registered",
            "handed_over",
            "live",
            "media",
        ];
        let phases = phases.map(|phase| (phase, second)).to_vec();
        vec![
            Self::StreamLive { of: of(), worker: worker(), start: second, cold: true },
            Self::StartCold { of: of(), worker: worker(), phases },
            Self::StartFailed { of: of(), worker: worker() },
            Self::StreamTakenOver { of: of(), from: worker(), to: name("worker-1-2"), fault: false },
            Self::StreamEnded { of: of(), reason: name("deleteStream"), live: second, messages: 75, bytes: 310_000 },
            Self::StreamRestLost { of: label.clone(), reason: "hold_spent", bytes: 180_000 },
            Self::PublisherLost { of: of(), worker: worker() },
            Self::PublisherBack { of: of(), worker: worker(), was: name("0123456789abcdef") },
            Self::PublisherReplaced { of: of(), by: name("0123456789abcdef") },
            Self::PublisherRefused { of: label.clone(), class: "key", client: name("192.0.2.1") },
            Self::PublisherSentAway { of: label.clone(), class: "hold_spent", client: name("192.0.2.1") },
            upstream(UpstreamTurn::Live),
            upstream(UpstreamTurn::Away { class: class(), error: error() }),
            upstream(UpstreamTurn::Failed { class: class(), error: error() }),
            upstream(UpstreamTurn::Lost { class: class(), error: error(), live: second }),
            upstream(UpstreamTurn::Back { away: second, replayed: 30, lost: 2 }),
            upstream(UpstreamTurn::Lagged { skipped: 60 }),
            Self::WorkerLost { worker: worker(), streams: 3 },
            Self::ProcessFailed { worker: worker(), reason: name("signal 9") },
            Self::FileReloaded { setting: "LIVEEDGECAST_CONFIG" },
            Self::FileRejected { setting: "LIVEEDGECAST_CONFIG", reason: name("line 3: …") },
            Self::EventsMissed { missed: Some(12) },
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sample_is_another_event_and_texts_without_a_value_are_left_out() {
        let samples = Fact::samples();
        let names: BTreeSet<_> = samples.iter().map(Fact::event).collect();
        assert_eq!(names.len(), samples.len());
        for sample in &samples {
            let fields = sample.field_names();
            assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), fields.len(), "{sample:?}");
        }
        let bare = Fact::StartFailed { of: Arc::default(), worker: "w".into() };
        assert_eq!(bare.field_names(), ["worker"]);
    }
}
