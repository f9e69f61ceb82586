//! The figures that follow from what happens and change nothing: phases of cold starts, worker-seconds, bytes by the publisher's name. In: the
//! dispatcher's inputs, as `dispatcher` takes them. Out: outputs for metrics, and sums when somebody asks. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use liveedgecast_common::control::Session;

use super::dispatcher::Dispatcher;
use super::messages::{Output, Started};
use super::phases::ColdStartPhases;
use super::worker_seconds::{BaselineCounter, WorkerSeconds, WorkerTime};
use super::workers::CallId;

/// A publisher of the configuration file, as metrics by name show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPublisher {
    pub(crate) name: String,
    /// Bytes that workers have received of its streams.
    pub(crate) bytes: u64,
    /// Its streams here that wait for a worker.
    pub(crate) waiting: usize,
    /// Its streams here that a worker has.
    pub(crate) live: usize,
}

impl Dispatcher {
    /// Counts worker-seconds from now on.
    pub(crate) fn count_seconds(&mut self, now: Instant) {
        self.seconds = Some(WorkerSeconds::new(now, self.rules.baseline));
        self.count_workers(now);
    }

    /// Worker-seconds of all workers so far, as this activator has seen them.
    pub(crate) fn worker_seconds(&self, now: Instant) -> WorkerTime {
        self.seconds.map(|seconds| seconds.seen(now)).unwrap_or_default()
    }

    /// This activator's share of the worker-seconds so far: the shares of all activators add up.
    pub(crate) fn share_of_worker_seconds(&self, now: Instant) -> WorkerTime {
        self.seconds.map(|seconds| seconds.share(now)).unwrap_or_default()
    }

    /// Notes which activator counts the time of missing workers.
    pub(super) fn counts_baseline(&mut self, now: Instant, counter: BaselineCounter) {
        self.seconds.iter_mut().for_each(|seconds| seconds.counts(now, counter));
    }

    /// Notes that a worker tells its counters to this activator, which it does until its call ends.
    pub(super) fn tells(&mut self, now: Instant, call: CallId) {
        if self.workers.tells(call) {
            self.count_workers(now);
        }
    }

    pub(super) fn count_workers(&mut self, now: Instant) {
        let (count, telling) = self.workers.count();
        self.seconds.iter_mut().for_each(|seconds| seconds.note(now, count, telling));
    }

    /// The bytes of publishers of the configuration file by name, and how many streams of each wait and are live here.
    pub(crate) fn named_publishers(&self) -> Vec<NamedPublisher> {
        let mut all: BTreeMap<&str, NamedPublisher> = BTreeMap::new();
        for (name, bytes) in self.publisher_totals.rows() {
            all.insert(name, NamedPublisher { name: name.to_owned(), bytes, waiting: 0, live: 0 });
        }
        for held in self.places.values() {
            if let Some(row) = held.entry.listed_name().and_then(|name| all.get_mut(name)) {
                *(if held.state.is_taken() { &mut row.live } else { &mut row.waiting }) += 1;
            }
        }
        all.into_values().collect()
    }

    /// Counts the bytes of a publisher of the configuration file, as the worker that has its stream reports them.
    pub(super) fn note_bytes(&mut self, call: CallId, stream_id: &str, bytes: u64) {
        if !self.publisher_totals.is_on() {
            return;
        }
        let Some(held) = self.by_id.get(stream_id).and_then(|key| self.places.get_mut(key)) else { return };
        if held.state.on().is_none_or(|(on, _)| on != call) {
            return;
        }
        let known = held.counted.replace((call, bytes)).filter(|(last, _)| *last == call).map_or(0, |(_, bytes)| bytes);
        if let Some(name) = held.entry.listed_name() {
            self.publisher_totals.add(name, bytes.saturating_sub(known));
        }
    }

    /// Notes that KEDA knows of the streams that wait for any worker.
    pub(super) fn pushed(&mut self, now: Instant, app: Option<&str>) {
        for (_, key) in &self.queue {
            if let Some(held) = self.places.get_mut(key)
                && app.is_none_or(|app| held.entry.app.name() == app)
            {
                held.pushed.get_or_insert(now);
            }
        }
    }

    /// Keeps a cold start until its first media are told.
    pub(super) fn await_media(&mut self, started: &Started) {
        if started.is_cold()
            && let Some(held) = self.by_id.get(&started.stream_id).and_then(|key| self.places.get_mut(key))
        {
            held.cold = Some(started.clone());
        }
    }

    /// Reports a cold start once the stream's worker has told the first media, or another worker has taken its place.
    pub(super) fn note_media(&mut self, call: CallId, session: &Session) {
        let first = session.figures.first_media;
        let Some(held) = self.by_id.get(&session.stream_id).and_then(|key| self.places.get_mut(key)) else { return };
        let ours = held.state.on() == Some((call, session.epoch));
        let Some(start) = held.cold.take_if(|_| ours && first > 0) else { return };
        let same = self.workers.get(call).is_some_and(|worker| worker.name == start.worker);
        let media = same.then(|| Duration::from_micros(first));
        self.outputs.push_back(Output::ColdStart(Box::new(ColdStartPhases::of(start, media))));
    }
}
