//! The chronicle: which reports of workers are events, and whether they are this activator's to tell. In: publishers that get and leave their
//! places here, reports of workers, decisions of the dispatcher. Out: facts. Pure. Next: `task`, its shell.
//!
//! ```text
//!            entered             reported            ended, and the publisher has left
//!   (none) ──────────▶ Waiting ───────────▶ Served ──────────────────────────────────▶ (none)
//!                       │   ▲                  │
//!                       │   └── worker gone ───┘
//!                       └── left ──▶ (none)
//! ```
//! Note: every activator hears of every stream of its workers. An event is told by the activator that the publisher is connected to, or was
//! last, so that all activators together tell it once. A publisher that returns may come to another activator, under a new id: the first
//! one tells nothing of the old id then but its loss, and the other one tells the return.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::control::{Session, SessionCounters, SessionState};
use liveedgecast_common::key::Identity;

use super::destination::DestinationWatch;
use super::fact::{DestinationLabel, Fact, StreamLabel, UpstreamTurn};

/// An event in the life of a stream or a worker.
#[derive(Clone, Debug)]
pub(crate) enum Input<'a> {
    /// A publisher gets a place here. With its stream's own identity, and the names of its destinations in their order.
    Entered(StreamLabel, Option<Identity>, Vec<String>),
    /// The publisher of this stream has given its place back.
    Left(&'a str),
    /// A worker reports a stream.
    Reported(&'a str, &'a Session),
    /// A worker reports counters.
    Counted(&'a str, &'a [SessionCounters]),
    /// A worker is not registered any more.
    WorkerGone(&'a str),
    /// A publisher was told to start for the first time.
    Started {
        stream: &'a str,
        worker: &'a str,
        start: Duration,
        /// A worker had to be started.
        cold: bool,
        /// The stream that it goes on with.
        returns_to: Option<&'a str>,
    },
    /// The phases of a start for which a worker had to be started, by name.
    ColdStart { stream: &'a str, worker: &'a str, phases: Vec<(&'static str, Duration)> },
    /// A stream that a worker had taken ended before it started.
    NeverStarted { stream: &'a str, worker: &'a str },
    /// Another worker has taken a stream.
    TakenOver { stream: &'a str, from: &'a str, to: &'a str, fault: bool },
}

/// A stream of a publisher that is connected to this activator, or was last.
#[derive(Debug)]
struct ToldStream {
    label: Arc<StreamLabel>,
    identity: Option<Identity>,
    /// Names of the destinations, in the order of the session's upstreams.
    names: Vec<String>,
    /// The publisher has no place here any more.
    left: bool,
    started: Option<Instant>,
    /// The loss of the publisher was told.
    lost: bool,
    /// The id of the publisher's next stay.
    follower: Option<String>,
    /// The worker that has the stream.
    worker: Option<String>,
    /// The worker is not registered any more.
    gone: bool,
    epoch: u64,
    grace: bool,
    /// Messages that the present worker, or the last one, has counted.
    messages: u64,
    /// Bytes that it has counted.
    bytes: u64,
    /// Messages and bytes that earlier workers have counted.
    before: (u64, u64),
    reason: String,
    destinations: Vec<DestinationWatch>,
}

/// See the picture above.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    streams: HashMap<String, ToldStream>,
    by_identity: HashMap<Identity, BTreeSet<String>>,
    outputs: VecDeque<Fact>,
}

impl Chronicle {
    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub(super) fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Entered(label, identity, names) => self.entered(label, identity, names),
            Input::Left(id) => self.left(now, id),
            Input::Reported(worker, session) => self.reported(now, worker, session),
            Input::Counted(worker, streams) => streams.iter().for_each(|counters| self.counted(now, worker, counters)),
            Input::WorkerGone(worker) => self.worker_gone(now, worker),
            Input::Started { stream, worker, start, cold, returns_to } => {
                let Some(told) = self.streams.get_mut(stream) else { return };
                told.started = Some(now);
                let (of, worker) = (|| Arc::clone(&told.label), || worker.to_owned());
                self.outputs.push_back(match returns_to {
                    Some(was) => Fact::PublisherBack { of: of(), worker: worker(), was: was.to_owned() },
                    None => Fact::StreamLive { of: of(), worker: worker(), start, cold },
                });
            }
            Input::ColdStart { stream, worker, phases } => {
                let of = self.streams.get(stream).map(|told| Arc::clone(&told.label));
                self.outputs.extend(of.map(|of| Fact::StartCold { of, worker: worker.to_owned(), phases }));
            }
            Input::NeverStarted { stream, worker } => {
                let of = self.streams.get(stream).map(|told| Arc::clone(&told.label));
                self.outputs.extend(of.map(|of| Fact::StartFailed { of, worker: worker.to_owned() }));
            }
            Input::TakenOver { stream, from, to, fault } => {
                let of = self.streams.get(stream).map(|told| Arc::clone(&told.label));
                let (from, to) = (from.to_owned(), to.to_owned());
                self.outputs.extend(of.map(|of| Fact::StreamTakenOver { of, from, to, fault }));
            }
        }
    }

    /// The next fact.
    pub(super) fn poll_output(&mut self) -> Option<Fact> {
        self.outputs.pop_front()
    }

    fn entered(&mut self, label: StreamLabel, identity: Option<Identity>, names: Vec<String>) {
        let id = label.stream.clone();
        if let Some(identity) = identity {
            self.by_identity.entry(identity).or_default().insert(id.clone());
        }
        let told = ToldStream {
            label: Arc::new(label),
            identity,
            names,
            left: false,
            started: None,
            lost: false,
            follower: None,
            worker: None,
            gone: false,
            epoch: 0,
            grace: false,
            messages: 0,
            bytes: 0,
            before: (0, 0),
            reason: String::new(),
            destinations: Vec::new(),
        };
        self.streams.insert(id, told);
    }

    fn left(&mut self, now: Instant, id: &str) {
        let Some(told) = self.streams.get_mut(id) else { return };
        told.left = true;
        if told.worker.is_none() || told.gone {
            self.finish(now, id);
        } else {
            self.outputs.extend(told.loss());
        }
    }

    fn reported(&mut self, now: Instant, worker: &str, session: &Session) {
        let id = session.stream_id.as_str();
        if session.state != SessionState::Ended {
            self.note_follower(worker, session);
        }
        let Some(told) = self.streams.get_mut(id).filter(|told| session.epoch >= told.epoch) else { return };
        let here = told.worker.as_deref() == Some(worker);
        if session.state == SessionState::Ended {
            if here {
                (told.worker, told.grace) = (None, false);
                told.messages = told.messages.max(session.messages);
                told.bytes = told.bytes.max(session.figures.bytes);
                told.reason.clone_from(&session.reason);
            }
            if told.left && told.worker.is_none() {
                self.finish(now, id);
            }
            return;
        }
        if !here {
            let moved = told.each_destination(|destination, turns| destination.moved(now, turns));
            self.outputs.extend(moved);
            told.before = (told.before.0 + told.messages, told.before.1 + told.bytes);
            told.worker = Some(worker.to_owned());
        }
        (told.epoch, told.messages, told.gone) = (session.epoch, session.messages, false);
        told.bytes = session.figures.bytes;
        told.grace = session.state == SessionState::Grace;
        self.outputs.extend(told.loss());
        told.fit(session);
        let mut reports = session.upstreams.iter();
        let turns = told.each_destination(|destination, turns| {
            reports.next().into_iter().for_each(|report| destination.reported(now, report, turns));
        });
        self.outputs.extend(turns);
    }

    fn counted(&mut self, now: Instant, worker: &str, counters: &SessionCounters) {
        let Some(told) = self.streams.get_mut(&counters.stream_id) else { return };
        if told.worker.as_deref() != Some(worker) {
            return;
        }
        (told.messages, told.bytes) = (counters.messages, counters.bytes);
        let mut counts = counters.upstreams.iter();
        let turns = told.each_destination(|destination, turns| {
            counts.next().into_iter().for_each(|counts| destination.counted(now, counts, turns));
        });
        self.outputs.extend(turns);
    }

    fn worker_gone(&mut self, now: Instant, worker: &str) {
        let mut over = Vec::new();
        for (id, told) in &mut self.streams {
            if told.worker.as_deref() == Some(worker) {
                told.gone = true;
                "its worker is gone".clone_into(&mut told.reason);
                over.extend(told.left.then(|| id.clone()));
            }
        }
        over.iter().for_each(|id| self.finish(now, id));
    }

    /// A worker tells of a stream under its new id before it tells that the old one has ended.
    fn note_follower(&mut self, worker: &str, session: &Session) {
        let ids = session.identities.first().and_then(|identity| self.by_identity.get(identity));
        for id in ids.into_iter().flatten().filter(|id| **id != session.stream_id) {
            if let Some(told) = self.streams.get_mut(id)
                && told.worker.as_deref() == Some(worker)
                && told.follower.is_none()
            {
                told.follower = Some(session.stream_id.clone());
            }
        }
    }

    fn finish(&mut self, now: Instant, id: &str) {
        let Some(mut told) = self.streams.remove(id) else { return };
        if let Some(identity) = told.identity
            && let Some(ids) = self.by_identity.get_mut(&identity)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        let last = told.each_destination(|destination, turns| destination.ended(now, turns));
        self.outputs.extend(last);
        let of = told.label;
        self.outputs.extend(match (told.follower, told.started) {
            (Some(_), _) if told.lost => None,
            (Some(by), Some(_)) => Some(Fact::PublisherReplaced { of, by }),
            (None, Some(started)) => {
                let live = now.saturating_duration_since(started);
                let (messages, bytes) = (told.before.0 + told.messages, told.before.1 + told.bytes);
                let reason = told.reason;
                Some(Fact::StreamEnded { of, reason, live, messages, bytes })
            }
            (_, None) => None,
        });
    }
}

impl ToldStream {
    /// The loss of the publisher, once. Note: a worker has a stream in grace also when nothing but its connection to the activator broke; the
    /// publisher's place is kept then.
    fn loss(&mut self) -> Option<Fact> {
        if !self.left || !self.grace || self.follower.is_some() || std::mem::replace(&mut self.lost, true) {
            return None;
        }
        let worker = self.worker.clone().unwrap_or_default();
        Some(Fact::PublisherLost { of: Arc::clone(&self.label), worker })
    }

    /// Makes the list of destinations that of the session. A worker that has just taken the stream lists none yet.
    fn fit(&mut self, session: &Session) {
        if session.upstreams.is_empty() {
            return;
        }
        let mut before: Vec<Option<DestinationWatch>> =
            std::mem::take(&mut self.destinations).into_iter().map(Some).collect();
        for (at, report) in session.upstreams.iter().enumerate() {
            let (name, host) = (report.name.as_str(), report.host.as_str());
            let known = before.iter_mut().enumerate().find_map(|(place, watch)| {
                watch.take_if(|watch| match watch.name.is_empty() || name.is_empty() {
                    true => place == at && watch.host == host,
                    false => watch.name == name,
                })
            });
            let mut watch = known.unwrap_or_else(|| DestinationWatch::new(name, host));
            // A destination that moves keeps its name, and one whose name was not known has one from now on.
            host.clone_into(&mut watch.host);
            if !name.is_empty() {
                name.clone_into(&mut watch.name);
            }
            self.destinations.push(watch);
        }
    }

    /// Lets each destination take something; returns the facts that follow.
    fn each_destination(&mut self, mut take: impl FnMut(&mut DestinationWatch, &mut Vec<UpstreamTurn>)) -> Vec<Fact> {
        let (mut facts, mut turns) = (Vec::new(), Vec::new());
        for (at, destination) in self.destinations.iter_mut().enumerate() {
            take(destination, &mut turns);
            facts.extend(turns.drain(..).map(|turn| {
                let listed = self.names.get(at).unwrap_or(&destination.host);
                let name = if destination.name.is_empty() { listed } else { &destination.name }.clone();
                let destination = DestinationLabel { name, host: destination.host.clone(), backup: destination.backup };
                Fact::Upstream { of: Arc::clone(&self.label), destination, turn }
            }));
        }
        facts
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
