//! What of the demand one activator knows by itself, and the sum of what all know. Pure.
//!
//! Every worker tells every activator what it serves, so two views of one worker are two counts of the same streams: the larger one
//! is the newer, and they are never added. Publishers that wait are known to their own activator alone: those are added.

use std::collections::BTreeMap;

use crate::lobby::Demand;

/// Streams by app.
pub type ByApp = BTreeMap<String, usize>;

/// One activator's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its publishers that wait.
    pub waiting: ByApp,
    /// Of those, the ones that need no capacity: a worker is on its way to them, or they wait for the one that has their stream.
    pub provided: usize,
    /// Its live streams whose worker is not registered just now.
    pub loose: ByApp,
    /// The workers that are registered with it, by name.
    pub workers: BTreeMap<String, WorkerTally>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerTally {
    /// It takes no more and goes when it has no stream left; Kubernetes does not count it any more.
    pub draining: bool,
    /// Places that can be had now.
    pub room: usize,
    /// Starting, live and in grace.
    pub streams: ByApp,
}

/// What is needed, all told; of one app, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Streams that wait.
    pub waiting: usize,
    /// Streams that workers have which are not about to go.
    pub live: usize,
    /// Of the waiting, the ones for which no worker has a place.
    pub unplaced: usize,
    /// Workers that are not about to go.
    pub workers: usize,
    /// Of those, the ones that have such a stream.
    pub busy: usize,
}

impl Need {
    /// The sum. `fresh` are the views of activators that can be heard, `last` those of activators that have vanished: their
    /// publishers count a while longer, and their word of a worker counts if nobody else has one.
    pub fn of<'a>(
        fresh: impl IntoIterator<Item = &'a Tally>,
        last: impl IntoIterator<Item = &'a Tally>,
        app: Option<&str>,
    ) -> Self {
        let mut workers: BTreeMap<&str, WorkerTally> = BTreeMap::new();
        let (mut waiting, mut all, mut provided, mut loose) = (0, 0, 0, 0);
        let mut publishers = |tally: &Tally| {
            waiting += select(&tally.waiting, app);
            all += select(&tally.waiting, None);
            provided += tally.provided;
            loose += select(&tally.loose, app);
        };
        for tally in fresh {
            publishers(tally);
            for (name, worker) in &tally.workers {
                workers.entry(name).and_modify(|known| known.join(worker)).or_insert_with(|| worker.clone());
            }
        }
        let known: Vec<&str> = workers.keys().copied().collect();
        for tally in last {
            publishers(tally);
            for (name, worker) in tally.workers.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
                workers.entry(name).and_modify(|known| known.join(worker)).or_insert_with(|| worker.clone());
            }
        }
        let staying = || workers.values().filter(|worker| !worker.draining);
        let room: usize = staying().map(|worker| worker.room).sum();
        Self {
            waiting,
            live: loose + staying().map(|worker| select(&worker.streams, app)).sum::<usize>(),
            unplaced: all.saturating_sub(provided).saturating_sub(room).min(waiting),
            workers: staying().count(),
            busy: staying().filter(|worker| select(&worker.streams, app) > 0).count(),
        }
    }

    /// What keeps workers: waiting and live.
    pub fn demand(&self) -> usize {
        self.waiting + self.live
    }

    /// As the API shows it.
    pub fn shown(&self) -> Demand {
        Demand { waiting: self.waiting, live: self.live, demand: self.demand() }
    }
}

impl WorkerTally {
    /// Two views of one worker.
    fn join(&mut self, other: &Self) {
        self.draining |= other.draining;
        self.room = self.room.min(other.room);
        for (app, streams) in &other.streams {
            let known = self.streams.entry(app.clone()).or_default();
            *known = (*known).max(*streams);
        }
    }
}

fn select(by_app: &ByApp, app: Option<&str>) -> usize {
    match app {
        Some(app) => by_app.get(app).copied().unwrap_or_default(),
        None => by_app.values().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_app(pairs: &[(&str, usize)]) -> ByApp {
        pairs.iter().map(|(app, count)| ((*app).to_owned(), *count)).collect()
    }

    fn worker(room: usize, streams: &[(&str, usize)]) -> WorkerTally {
        WorkerTally { draining: false, room, streams: by_app(streams) }
    }

    fn tally(waiting: &[(&str, usize)], provided: usize, workers: &[(&str, WorkerTally)]) -> Tally {
        let workers = workers.iter().map(|(name, worker)| ((*name).to_owned(), worker.clone())).collect();
        Tally { waiting: by_app(waiting), provided, loose: ByApp::new(), workers }
    }

    #[test]
    fn publishers_are_added_and_views_of_a_worker_are_not() {
        let one = tally(&[("a", 2), ("b", 1)], 1, &[("w", worker(0, &[("a", 3)])), ("x", worker(1, &[]))]);
        let two = tally(&[("a", 4)], 0, &[("w", worker(2, &[("a", 2), ("b", 1)]))]);
        let need = |app| Need::of([&one, &two], [], app);
        assert_eq!(need(None), Need { waiting: 7, live: 4, unplaced: 5, workers: 2, busy: 1 });
        assert_eq!(need(Some("b")), Need { waiting: 1, live: 1, unplaced: 1, workers: 2, busy: 1 });
        assert_eq!(need(Some("c")), Need { workers: 2, ..Need::default() });
    }

    #[test]
    fn the_last_word_of_who_vanished_is_the_word_nobody_else_has() {
        let fresh = tally(&[], 0, &[("w", worker(0, &[("a", 1)]))]);
        let last = tally(&[("a", 1)], 0, &[("w", worker(0, &[("a", 9)])), ("gone", worker(0, &[("a", 2)]))]);
        assert_eq!(Need::of([&fresh], [&last], None), Need { waiting: 1, live: 3, unplaced: 1, workers: 2, busy: 2 });
    }

    #[test]
    fn who_is_about_to_go_does_not_count() {
        let going = WorkerTally { draining: true, ..worker(5, &[("a", 3)]) };
        let mut tally = tally(&[("a", 1)], 0, &[("w", going)]);
        tally.loose = by_app(&[("a", 2)]);
        assert_eq!(Need::of([&tally], [], None), Need { waiting: 1, live: 2, unplaced: 1, workers: 0, busy: 0 });
    }
}
