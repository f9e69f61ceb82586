//! Demand, streams and workers, as the HTTP API shows them (architecture.md, "Seen from outside"). In: the state of the dispatcher. Out:
//! views, to `lobby`. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use liveedgecast_common::control::{Session, SessionState, UpstreamReport};
use serde::Serialize;

use super::dispatcher::{Dispatcher, PublisherRecord, State};
use super::tally::{ByApp, Tally, WorkerTally};

/// The demand that autoscaling acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Streams that wait for a worker.
    pub waiting: usize,
    /// Streams that a worker has: starting, live or in grace.
    pub live: usize,
    /// Waiting and live streams together.
    pub demand: usize,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamView {
    /// Id of the stream.
    pub id: String,
    /// App that the publisher named.
    pub app: String,
    /// waiting, starting, live or grace.
    pub state: &'static str,
    /// Worker that has the stream, or is offered it.
    pub worker: Option<String>,
    /// Way of the handoff, descriptor or link, if the publisher came through this activator.
    pub handoff: Option<&'static str>,
    /// Destinations; known once a worker has the stream.
    pub upstreams: Vec<UpstreamView>,
}

/// A destination of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpstreamView {
    /// Host and port.
    pub host: String,
    /// dialing, starting, live, backoff or failed.
    pub state: &'static str,
    /// Bytes written.
    pub bytes: u64,
    /// Messages written.
    pub messages: u64,
    /// Messages that the upstream did not get.
    pub lost: u64,
    /// Messages that the upstream got twice, in two sessions.
    pub replayed: u64,
    /// Sessions after the first.
    pub reconnects: u64,
    /// The last error; empty if none.
    pub error: String,
}

/// The state of a worker as metrics and the API show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Its process was started, and it has not registered.
    Starting,
    /// It takes streams.
    Ready,
    /// It takes none, because an activator cordoned it.
    Cordoned,
    /// It takes none, and its pod may be removed.
    Leaving,
    /// It goes down.
    Draining,
}

impl WorkerState {
    /// Every state, for metrics that exist before the first worker.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Cordoned, Self::Leaving, Self::Draining];

    /// Label of the state in metrics; the API has the same words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
        }
    }
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerView {
    /// Name of the worker.
    pub name: String,
    /// State of the worker.
    pub state: WorkerState,
    /// Streams that hold a place.
    pub streams: usize,
    /// Streams at most.
    pub capacity: u32,
}

impl Dispatcher {
    /// Waiting and live streams, each counted once.
    pub(crate) fn demand(&self) -> Demand {
        let taken = self.places.values().filter(|held| held.state.is_taken()).count();
        let waiting = self.places.len() - taken;
        let others: BTreeSet<&str> =
            self.sessions().map(|(id, _, _)| id).filter(|id| !self.by_id.contains_key(*id)).collect();
        let live = taken + others.len();
        Demand { waiting, live, demand: waiting + live }
    }

    /// The demand as this activator knows it by itself, for the sum of all activators.
    pub(crate) fn tally(&self, now: Instant) -> Tally {
        let mut tally = Tally { provided: self.bound.len(), ..Tally::default() };
        let one = |by_app: &mut ByApp, app: &str| match by_app.get_mut(app) {
            Some(count) => *count += 1,
            None => drop(by_app.insert(app.to_owned(), 1)),
        };
        for (worker, room) in self.rooms(now) {
            let mut told = WorkerTally {
                draining: worker.is_draining(),
                cordoned: worker.is_cordoned(),
                leaving: worker.is_leaving(),
                room,
                streams: ByApp::new(),
            };
            for (id, session) in &worker.sessions {
                // A stream that waits again is not counted twice.
                let waits = self.by_id.get(id).and_then(|key| self.places.get(key));
                if waits.is_none_or(|held| held.state.is_taken()) {
                    one(&mut told.streams, &session.app);
                }
            }
            tally.workers.insert(worker.name.clone(), told);
        }
        for held in self.places.values() {
            let app = held.entry.app.name();
            if !held.state.is_taken() {
                tally.provided += usize::from(!held.state.is_waiting());
                one(&mut tally.waiting, app);
                continue;
            }
            let worker = held.state.on().and_then(|(call, _)| self.workers.get(call));
            if let Some(worker) = worker {
                one(tally.placed.entry(worker.name.clone()).or_default(), app);
            }
            match worker.map(|worker| (worker, tally.workers.get_mut(&worker.name))) {
                Some((worker, Some(told))) if !worker.sessions.contains_key(held.entry.stream_id.as_str()) => {
                    one(&mut told.streams, app);
                }
                Some(_) => {}
                None => one(&mut tally.loose, app),
            }
        }
        tally
    }

    /// Number of changes that may have changed [`Self::tally`] and the news for peers.
    pub(crate) fn revision(&self) -> u64 {
        self.revision + self.workers.revision()
    }

    /// Streams whose publishers are connected here and which a worker has.
    pub(crate) fn live_here(&self) -> usize {
        self.places.values().filter(|held| held.state.is_taken()).count()
    }

    /// Tells whether no publisher has a place here.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every stream: those that are held here in the order of their arrival, then those that are known from workers alone.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamView> {
        let ours = self.places.values().map(|held| self.view_of(held));
        let others = self.sessions().filter(|(id, _, _)| !self.by_id.contains_key(*id));
        let others = others.map(|(id, worker, session)| StreamView {
            id: id.to_owned(),
            app: session.app.clone(),
            state: word(session).unwrap_or("live"),
            worker: Some(worker.to_owned()),
            handoff: None,
            upstreams: session.upstreams.iter().map(upstream).collect(),
        });
        ours.chain(others)
    }

    /// Every registered worker.
    pub(crate) fn workers(&self) -> Vec<WorkerView> {
        let view = self.workers.iter().map(|(_, worker)| WorkerView {
            name: worker.name.clone(),
            state: match () {
                () if worker.is_draining() => WorkerState::Draining,
                () if worker.is_leaving() => WorkerState::Leaving,
                () if worker.is_cordoned() => WorkerState::Cordoned,
                () => WorkerState::Ready,
            },
            streams: worker.streams(),
            capacity: worker.capacity,
        });
        view.collect()
    }

    /// Addresses at which workers serve their metrics, by name.
    pub(crate) fn scrapes(&self) -> Vec<(String, SocketAddr)> {
        self.workers.iter().filter_map(|(_, worker)| Some((worker.name.clone(), worker.http?))).collect()
    }

    fn sessions(&self) -> impl Iterator<Item = (&str, &str, &Session)> {
        self.workers.iter().flat_map(|(_, worker)| {
            worker.sessions.iter().map(|(id, session)| (id.as_str(), worker.name.as_str(), session))
        })
    }

    fn view_of(&self, held: &PublisherRecord) -> StreamView {
        let id = held.entry.stream_id.as_str();
        let worker = held.state.on().and_then(|(call, _)| self.workers.get(call));
        let session = worker.and_then(|worker| worker.sessions.get(id));
        let state = match held.state {
            State::Waiting | State::Offered { .. } => "waiting",
            State::Starting { .. } => session.and_then(word).unwrap_or("starting"),
            State::Live { .. } => session.and_then(word).unwrap_or("live"),
        };
        StreamView {
            id: id.to_owned(),
            app: held.entry.app.name().to_owned(),
            state,
            worker: worker.map(|worker| worker.name.clone()),
            handoff: held.state.is_taken().then_some(if held.by_descriptor { "descriptor" } else { "link" }),
            upstreams: session.into_iter().flat_map(|session| &session.upstreams).map(upstream).collect(),
        }
    }
}

fn word(session: &Session) -> Option<&'static str> {
    match session.state {
        SessionState::Starting => Some("starting"),
        SessionState::Live => Some("live"),
        SessionState::Grace => Some("grace"),
        SessionState::Unknown | SessionState::Ended => None,
    }
}

fn upstream(told: &UpstreamReport) -> UpstreamView {
    UpstreamView {
        host: told.host.clone(),
        state: told.state.as_str(),
        bytes: told.counts.bytes,
        messages: told.counts.messages,
        lost: told.counts.lost,
        replayed: told.counts.replayed,
        reconnects: told.counts.reconnects,
        error: told.error.clone(),
    }
}
