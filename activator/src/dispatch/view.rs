//! Demand, streams and workers, as the HTTP API shows them (architecture.md, "Seen from outside"). In: the state of the dispatcher. Out:
//! views, to `lobby`. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::control::{MediaFigures, Session, SessionState, StreamFigures, UpstreamReport};
use liveedgecast_common::key::{Identity, StreamKey};
use serde::Serialize;

use super::dispatcher::{Dispatcher, PublisherRecord, State};
use super::elsewhere::Elsewhere;
use super::tally::{ByApp, Tally, WorkerTally};
use super::workers::{CallId, Worker};

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
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamView {
    /// Id of the stream.
    pub id: String,
    /// App that the publisher named.
    pub app: String,
    /// The publisher's name in the configuration file.
    pub publisher: Option<String>,
    /// Address of the publisher; unknown while no activator holds it.
    pub peer: Option<SocketAddr>,
    /// Arrival of the publisher.
    pub since: Option<UtcTime>,
    /// waiting, starting, live or grace.
    pub state: &'static str,
    /// Worker that has the stream, or is offered it.
    pub worker: Option<String>,
    /// Way of the handoff, descriptor or link, if the publisher came through this activator.
    pub handoff: Option<&'static str>,
    /// Bytes that the worker has received of the publisher.
    pub bytes: u64,
    /// Bits per second that it receives now.
    pub bitrate: u64,
    /// The video, once its headers have come.
    pub video: Option<VideoView>,
    /// The audio, likewise.
    pub audio: Option<AudioView>,
    /// Destinations; known once a worker has the stream.
    pub upstreams: Vec<UpstreamView>,
    /// The stream's own identity.
    #[serde(skip)]
    pub identity: Option<Identity>,
    /// The stream key, if it is to be shown in `/stat` and this activator holds the publisher.
    #[serde(skip)]
    pub shown_key: Option<StreamKey>,
}

/// The video of a stream; what is not known is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoView {
    /// Codec in lower case: h264, h265, av1, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Width in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Pictures per second, by the publisher's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
    /// Seconds between the last two keyframes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyframe_interval: Option<f64>,
    /// Bits per second, payloads alone, levelled over some seconds.
    pub bitrate: u64,
    /// Profile, constraint flags and level of H.264, as its header has them.
    #[serde(skip)]
    pub profile: [u8; 3],
}

/// The audio of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AudioView {
    /// Codec in lower case: aac, opus, mp3, …
    pub codec: String,
    /// Bits per second, payloads alone, levelled over some seconds.
    pub bitrate: u64,
    /// Channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Samples of a channel in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Object type of AAC.
    #[serde(skip)]
    pub object_type: u8,
}

/// A moment by both clocks, which converts all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// The moment.
    pub now: Instant,
    /// The same by the wall clock.
    pub utc: UtcTime,
}

impl WallClock {
    fn at(&self, moment: Instant) -> UtcTime {
        self.utc.before(self.now.saturating_duration_since(moment))
    }
}

/// The one that can end or change a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This activator holds the publisher.
    Here,
    /// The activator of this name does.
    Peer(String),
    /// No activator does that is known, but this worker has the stream.
    Worker(String),
}

/// A destination of a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UpstreamView {
    /// Name of the destination; empty if its worker does not tell it.
    pub name: String,
    /// Host and port.
    pub host: String,
    /// True while the destination's backup is in use.
    pub backup: bool,
    /// dialing, starting, live, backoff or failed.
    pub state: &'static str,
    /// Beginning of the state, by the worker's clock.
    pub since: Option<UtcTime>,
    /// Age of the oldest message that is to be written, in seconds.
    pub lag: f64,
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
    /// The class of the last error; empty if none.
    pub fault: String,
    /// Time of the last error, by the worker's clock.
    pub failed: Option<UtcTime>,
}

/// Worker-seconds since an activator began, of all workers that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorkerSecondsView {
    /// Time that workers were registered, added up.
    pub used: f64,
    /// Time that an always-on fleet would have run beyond that.
    pub avoided: f64,
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
    /// It takes none and gives away those that it has, because an operator wants it so.
    Drained,
    /// It goes down.
    Draining,
}

impl WorkerState {
    /// Every state, for metrics that exist before the first worker.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Cordoned, Self::Leaving, Self::Drained, Self::Draining];

    /// Label of the state in metrics; the API has the same words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Leaving => "leaving",
            Self::Drained => "drained",
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
                // A drained worker has no room, but Kubernetes counts it.
                draining: worker.is_draining() && !worker.is_drained(),
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

    /// Every stream: those that are held here in the order of their arrival, then those that are known from workers, then those of other
    /// activators that no worker has.
    pub(crate) fn streams(&self, clock: WallClock) -> impl Iterator<Item = StreamView> {
        let ours = self.places.values().map(move |held| self.view_of(held, clock));
        let others = self
            .workers
            .iter()
            .flat_map(|(_, worker)| worker.sessions.iter().map(move |(id, session)| (id.as_str(), worker, session)));
        let others = others.filter(|(id, _, _)| !self.by_id.contains_key(*id));
        // A stream that moves is known from two workers for a moment: the one that took it last has it.
        let newest = |id: &str, epoch| self.workers.serving(id).all(|(_, _, other)| other.epoch <= epoch);
        let others = others.filter(move |(id, _, session)| newest(id, session.epoch));
        let others = others.map(move |(id, worker, session)| {
            let view = elsewhere(id, &session.app, self.others.holder(id).map(|(_, held)| held));
            StreamView { state: word(session).unwrap_or("live"), ..view }.served(clock, worker, session)
        });
        let unserved = self.others.streams().filter(|held| {
            let id = held.stream.id.as_str();
            !self.by_id.contains_key(id) && !self.is_served(id)
        });
        let unserved = unserved.map(|held| StreamView {
            state: if held.waiting { "waiting" } else { "starting" },
            worker: Some(held.worker.clone()).filter(|worker| !worker.is_empty()),
            ..elsewhere(&held.stream.id, &held.app, Some(held))
        });
        ours.chain(others).chain(unserved)
    }

    /// The one that can end or change a stream; `None` if there is no such stream.
    pub(crate) fn holder(&self, stream_id: &str) -> Option<Holder> {
        if self.by_id.contains_key(stream_id) {
            return Some(Holder::Here);
        }
        let peer = self.others.holder(stream_id).map(|(peer, _)| Holder::Peer(peer.to_owned()));
        peer.or_else(|| {
            self.workers.serving(stream_id).next().map(|(_, worker, _)| Holder::Worker(worker.name.clone()))
        })
    }

    /// Returns whether a worker has the stream.
    pub(crate) fn is_served(&self, stream_id: &str) -> bool {
        self.workers.serving(stream_id).next().is_some()
    }

    /// The call of the worker that has the stream, by the newest claim, if it answers questions for excerpts.
    pub(crate) fn excerpts_of(&self, stream_id: &str) -> Option<CallId> {
        let (call, worker, _) = self.workers.serving(stream_id).max_by_key(|(.., session)| session.epoch)?;
        (worker.excerpts && !worker.is_suspect()).then_some(call)
    }

    /// Every registered worker.
    pub(crate) fn workers(&self) -> Vec<WorkerView> {
        let view = self.workers.iter().map(|(_, worker)| WorkerView {
            name: worker.name.clone(),
            state: match () {
                () if worker.is_drained() => WorkerState::Drained,
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

    fn sessions(&self) -> impl Iterator<Item = (&str, &str, &Session)> {
        self.workers.iter().flat_map(|(_, worker)| {
            worker.sessions.iter().map(|(id, session)| (id.as_str(), worker.name.as_str(), session))
        })
    }

    fn view_of(&self, held: &PublisherRecord, clock: WallClock) -> StreamView {
        let id = held.entry.stream_id.as_str();
        let worker = held.state.on().and_then(|(call, _)| self.workers.get(call));
        let session = worker.and_then(|worker| worker.sessions.get(id));
        let state = match held.state {
            State::Waiting | State::Offered { .. } => "waiting",
            State::Starting { .. } => session.and_then(word).unwrap_or("starting"),
            State::Live { .. } => session.and_then(word).unwrap_or("live"),
        };
        let view = StreamView {
            id: id.to_owned(),
            app: held.entry.app.name().to_owned(),
            publisher: held.entry.publisher.clone(),
            identity: held.entry.identities.first().copied(),
            shown_key: held.entry.shown_key.clone(),
            peer: Some(held.entry.client),
            since: Some(clock.at(held.entered)),
            state,
            worker: worker.map(|worker| worker.name.clone()),
            handoff: held.state.is_taken().then_some(if held.by_descriptor { "descriptor" } else { "link" }),
            ..StreamView::default()
        };
        match worker.zip(session) {
            Some((worker, session)) => view.served(clock, worker, session),
            None => view,
        }
    }
}

impl StreamView {
    /// Adds what the worker that has the stream knows.
    fn served(self, clock: WallClock, worker: &Worker, session: &Session) -> Self {
        let StreamFigures { bytes, kinds: _, keyframe_interval, media, .. } = &session.figures;
        let MediaFigures { video, audio, width, height, frame_rate, profile, object_type, channels, sample_rate } =
            media;
        let rates = worker.kind_rates(clock.now, &session.stream_id);
        let known = |number: u32| Some(number).filter(|number| *number > 0);
        let video = VideoView {
            codec: Some(video.clone()).filter(|codec| !codec.is_empty()),
            width: known(*width),
            height: known(*height),
            frame_rate: known(*frame_rate).map(|rate| f64::from(rate) / 1000.0),
            keyframe_interval: known(*keyframe_interval).map(|millis| f64::from(millis) / 1000.0),
            bitrate: rates.video,
            profile: *profile,
        };
        let audio = AudioView {
            codec: audio.clone(),
            bitrate: rates.audio,
            channels: Some(*channels).filter(|channels| *channels > 0),
            sample_rate: known(*sample_rate),
            object_type: *object_type,
        };
        let has_video = video.codec.is_some() || video.width.is_some();
        // An activator that holds the publisher knows better; in grace no activator does.
        let named = Some(session.publisher.clone()).filter(|name| !name.is_empty());
        Self {
            worker: Some(worker.name.clone()),
            publisher: self.publisher.or(named),
            identity: self.identity.or_else(|| session.identities.first().copied()),
            bytes: *bytes,
            bitrate: worker.bits_per_second(clock.now, &session.stream_id),
            video: has_video.then_some(video),
            audio: (!audio.codec.is_empty()).then_some(audio),
            upstreams: session.upstreams.iter().map(upstream).collect(),
            ..self
        }
    }
}

/// A stream that another activator holds, or none, without what its worker knows.
fn elsewhere(id: &str, app: &str, held: Option<&Elsewhere>) -> StreamView {
    StreamView {
        id: id.to_owned(),
        app: app.to_owned(),
        publisher: held.map(|held| held.stream.publisher.clone()).filter(|name| !name.is_empty()),
        identity: held.and_then(|held| held.identities.first().copied()),
        peer: held.and_then(|held| held.stream.client),
        since: held.map(|held| UtcTime(held.entered / 1000)),
        ..StreamView::default()
    }
}

fn word(session: &Session) -> Option<&'static str> {
    match session.state {
        SessionState::Starting => Some("starting"),
        SessionState::Live => Some("live"),
        SessionState::Grace => Some("grace"),
        SessionState::Ending => Some("ending"),
        SessionState::Unknown | SessionState::Ended => None,
    }
}

fn time(at: UtcTime) -> Option<UtcTime> {
    Some(at).filter(|at| *at != UtcTime::default())
}

fn upstream(told: &UpstreamReport) -> UpstreamView {
    UpstreamView {
        name: told.name.clone(),
        host: told.host.clone(),
        backup: told.backup,
        state: told.state.as_str(),
        since: time(told.times.since),
        lag: Duration::from_millis(told.counts.lag).as_secs_f64(),
        bytes: told.counts.bytes,
        messages: told.counts.messages,
        lost: told.counts.lost,
        replayed: told.counts.replayed,
        reconnects: told.counts.reconnects,
        error: told.error.clone(),
        fault: told.fault.clone(),
        failed: time(told.times.failed),
    }
}
