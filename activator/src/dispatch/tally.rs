//! The demand as one activator knows it by itself ([`Tally`]), and the sum over all activators ([`Need`]). Pure.
//!
//! Every worker tells every activator what it serves, so two views of one worker are two counts of the same streams: the larger one
//! is the newer, and they are never added. Publishers that wait are known to their own activator alone: those are added.

use std::collections::BTreeMap;

use super::view::Demand;

/// Streams of one worker that count in a sum although no activator holds their publishers: in grace, or left over by an activator that has
/// gone. Workers can tell of any number, and a worker that is there needs no second one for streams that it has; so this many are
/// taken on its word, as many as a worker takes by default.
const UNVOUCHED: usize = 50;

/// Streams by app.
pub type ByApp = BTreeMap<String, usize>;

/// The demand as one activator knows it by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Publishers of this activator that wait, by app.
    pub waiting: ByApp,
    /// Number of waiting publishers that need no capacity: an offer is open, or they wait for the worker that has their stream.
    pub provided: usize,
    /// Live streams of this activator whose worker is not registered just now.
    pub loose: ByApp,
    /// Live streams of this activator, by worker.
    pub placed: BTreeMap<String, ByApp>,
    /// The workers that are registered with it, by name.
    pub workers: BTreeMap<String, WorkerTally>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerTally {
    /// The worker takes no more streams and ends when it has none left; Kubernetes does not count it any more.
    pub draining: bool,
    /// The worker takes no streams for now; it is used again when it is needed.
    pub cordoned: bool,
    /// The worker is cordoned, serves nothing and may go, and Kubernetes knows which pod it is.
    pub leaving: bool,
    /// Free places, as if the worker were not cordoned.
    pub room: usize,
    /// Streams that are starting, live and in grace, by app.
    pub streams: ByApp,
}

/// The demand of one app, or of all, as all activators know it together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Streams that wait.
    pub waiting: usize,
    /// Streams that workers have which are not about to go.
    pub live: usize,
    /// Waiting streams for which no worker has a place, cordoned workers included.
    pub unplaced: usize,
    /// Waiting streams that wait until a cordoned worker is used again.
    pub cut_off: usize,
    /// Workers that are not about to go.
    pub workers: usize,
    /// Workers that are not about to go and have such a stream.
    pub busy: usize,
    /// Workers that are not draining and may go.
    pub leaving: usize,
}

impl Need {
    /// The sum. `fresh` are the views of activators that can be heard, `last` those of activators that have vanished: their
    /// publishers count a while longer, and their word of a worker counts if nobody else has one.
    pub fn of<'a>(
        fresh: impl IntoIterator<Item = &'a Tally>,
        last: impl IntoIterator<Item = &'a Tally>,
        app: Option<&str>,
    ) -> Self {
        let (fresh, last): (Vec<&Tally>, Vec<&Tally>) = (fresh.into_iter().collect(), last.into_iter().collect());
        let workers = workers(fresh.iter().copied(), last.iter().copied());
        let (mut waiting, mut all, mut provided, mut loose) = (0, 0, 0, 0);
        // Streams by worker, of the publishers that activators hold.
        let mut vouched: BTreeMap<&str, usize> = BTreeMap::new();
        for tally in fresh.into_iter().chain(last) {
            for (worker, by_app) in &tally.placed {
                *vouched.entry(worker).or_default() += select(by_app, app);
            }
            waiting += select(&tally.waiting, app);
            all += select(&tally.waiting, None);
            provided += tally.provided;
            loose += select(&tally.loose, app);
        }
        let staying = || workers.values().filter(|worker| !worker.draining);
        let live = workers.iter().filter(|(_, worker)| !worker.draining).map(|(name, worker)| {
            let vouched = vouched.get(name).copied().unwrap_or_default();
            select(&worker.streams, app).min(vouched + UNVOUCHED)
        });
        let cordoned: usize = staying().filter(|worker| worker.cordoned).map(|worker| worker.room).sum();
        let room = cordoned + staying().filter(|worker| !worker.cordoned).map(|worker| worker.room).sum::<usize>();
        let without = |room: usize| all.saturating_sub(provided).saturating_sub(room);
        Self {
            waiting,
            live: loose + live.sum::<usize>(),
            unplaced: without(room).min(waiting),
            cut_off: (without(room - cordoned) - without(room)).min(waiting),
            workers: staying().count(),
            busy: staying().filter(|worker| select(&worker.streams, app) > 0).count(),
            leaving: staying().filter(|worker| worker.leaving).count(),
        }
    }

    /// Streams that need a worker: waiting and live.
    pub fn demand(&self) -> usize {
        self.waiting + self.live
    }

    /// The demand as the API shows it.
    pub fn shown(&self) -> Demand {
        Demand { waiting: self.waiting, live: self.live, demand: self.demand() }
    }
}

/// The workers, as all activators together know them: see [`Need::of`].
pub(crate) fn workers<'a>(
    fresh: impl IntoIterator<Item = &'a Tally>,
    last: impl IntoIterator<Item = &'a Tally>,
) -> BTreeMap<&'a str, WorkerTally> {
    let mut workers: BTreeMap<&str, WorkerTally> = BTreeMap::new();
    for (name, worker) in fresh.into_iter().flat_map(|tally| &tally.workers) {
        workers.entry(name).and_modify(|known| known.join(worker)).or_insert_with(|| worker.clone());
    }
    let known: Vec<&str> = workers.keys().copied().collect();
    for (name, worker) in last.into_iter().flat_map(|tally| &tally.workers) {
        if !known.contains(&name.as_str()) {
            workers.entry(name).and_modify(|known| known.join(worker)).or_insert_with(|| worker.clone());
        }
    }
    workers
}

impl WorkerTally {
    /// Streams of this worker, of all apps.
    pub fn streams(&self) -> usize {
        select(&self.streams, None)
    }

    /// Bytes of memory that this takes, its name included, about.
    pub(crate) fn bytes(&self) -> usize {
        // A name, an entry's share of a tree's node, and what the allocator adds.
        const ENTRY: usize = 256;
        size_of::<Self>() + ENTRY + self.streams.keys().map(|app| app.len() + 64).sum::<usize>()
    }

    /// Merges the view of another activator of the same worker.
    fn join(&mut self, other: &Self) {
        self.draining |= other.draining;
        self.cordoned |= other.cordoned;
        // A worker that may go is not counted, so one activator that knows better is enough.
        self.leaving &= other.leaving;
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
        WorkerTally { room, streams: by_app(streams), ..WorkerTally::default() }
    }

    fn tally(waiting: &[(&str, usize)], provided: usize, workers: &[(&str, WorkerTally)]) -> Tally {
        let workers = workers.iter().map(|(name, worker)| ((*name).to_owned(), worker.clone())).collect();
        Tally { waiting: by_app(waiting), provided, workers, ..Tally::default() }
    }

    #[test]
    fn publishers_are_added_and_views_of_a_worker_are_not() {
        let one = tally(&[("a", 2), ("b", 1)], 1, &[("w", worker(0, &[("a", 3)])), ("x", worker(1, &[]))]);
        let two = tally(&[("a", 4)], 0, &[("w", worker(2, &[("a", 2), ("b", 1)]))]);
        let need = |app| Need::of([&one, &two], [], app);
        assert_eq!(need(None), Need { waiting: 7, live: 4, unplaced: 5, workers: 2, busy: 1, ..Need::default() });
        assert_eq!(need(Some("b")), Need { waiting: 1, live: 1, unplaced: 1, workers: 2, busy: 1, ..Need::default() });
        assert_eq!(need(Some("c")), Need { workers: 2, ..Need::default() });
    }

    #[test]
    fn streams_that_a_worker_invents_count_as_one_workers_at_most() {
        let mut rogue = tally(&[], 0, &[("w", worker(0, &[("a", 10_000)]))]);
        let live = |tallies: &[&Tally]| Need::of(tallies.iter().copied(), [], None).live;
        assert_eq!(live(&[&rogue]), UNVOUCHED);
        // Publishers of this activator and of another one.
        rogue.placed.insert("w".into(), by_app(&[("a", 200)]));
        let mut other = tally(&[], 0, &[]);
        other.placed.insert("w".into(), by_app(&[("a", 100), ("b", 7)]));
        assert_eq!(live(&[&rogue, &other]), 307 + UNVOUCHED);
        let of_an_app = Need::of([&rogue, &other], [], Some("a"));
        assert_eq!((of_an_app.live, of_an_app.busy), (300 + UNVOUCHED, 1));
    }

    #[test]
    fn a_vanished_activators_view_counts_where_no_other_has_one() {
        let fresh = tally(&[], 0, &[("w", worker(0, &[("a", 1)]))]);
        let last = tally(&[("a", 1)], 0, &[("w", worker(0, &[("a", 9)])), ("gone", worker(0, &[("a", 2)]))]);
        let need = Need { waiting: 1, live: 3, unplaced: 1, workers: 2, busy: 2, ..Need::default() };
        assert_eq!(Need::of([&fresh], [&last], None), need);
    }

    #[test]
    fn a_draining_worker_does_not_count() {
        let going = WorkerTally { draining: true, ..worker(5, &[("a", 3)]) };
        let mut tally = tally(&[("a", 1)], 0, &[("w", going)]);
        tally.loose = by_app(&[("a", 2)]);
        let need = Need { waiting: 1, live: 2, unplaced: 1, ..Need::default() };
        assert_eq!(Need::of([&tally], [], None), need);
    }

    #[test]
    fn a_cordoned_worker_counts_and_its_room_is_cut_off() {
        let cordoned = WorkerTally { cordoned: true, leaving: true, ..worker(2, &[]) };
        let busy = worker(1, &[("a", 1)]);
        let one = tally(&[("a", 2)], 0, &[("w", busy.clone()), ("x", cordoned.clone())]);
        let need = Need { waiting: 2, live: 1, cut_off: 1, workers: 2, busy: 1, leaving: 1, ..Need::default() };
        assert_eq!(Need::of([&one], [], None), need);
        let more = tally(&[("a", 5)], 0, &[("w", busy), ("x", cordoned.clone())]);
        let need = Need { waiting: 5, unplaced: 2, cut_off: 2, ..need };
        assert_eq!(Need::of([&more], [], None), need);
        // One activator has heard already that it does not go.
        let other = tally(&[], 0, &[("x", WorkerTally { leaving: false, ..cordoned })]);
        assert_eq!(Need::of([&one, &other], [], None).leaving, 0);
    }
}
