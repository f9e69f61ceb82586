//! Two activators that share a worker, without a cluster: streams that one of them holds are known to the other.

use liveedgecast_e2e::compare::{assert_decodes, assert_time_goes_forward};
use liveedgecast_e2e::process::RunningProgram;
use liveedgecast_e2e::prometheus::Prometheus;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, now, until, until_some};

use crate::ends::assert_continued;

by_descriptor_and_by_link! {
    a_publisher_that_returns_through_the_other_activator_continues_its_session
    a_second_publisher_through_the_other_activator_is_refused
    a_held_publisher_counts_at_both_activators_and_either_reaches_the_worker
    every_message_counts_once_in_prometheus_whoever_ends
}

/// Two activators with taps in front of them. The activators and their workers learn each other's addresses by name or from each other.
struct Pair {
    sink: Sink,
    activators: [ActivatorProcess; 2],
    taps: [Tap; 2],
}

impl Pair {
    fn by(handoff: &str) -> Self {
        let sink = Sink::start();
        let settings = || {
            let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
            settings.with("HANDOFF", handoff)
        };
        let settings = [settings(), settings()];
        let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
        let activators = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
        let taps = [0, 1].map(|number| Tap::before(activators[number].rtmp()));
        for activator in &activators {
            let heard = || activator.metric("liveedgecast_peers", &["state=\"synced\""]) == Some(1.0);
            until("activators to hear each other", heard);
        }
        Self { sink, activators, taps }
    }

    /// Starts a worker that is given the first activator's address only, and waits until both know it.
    fn worker(&self) -> WorkerProcess {
        let worker = WorkerProcess::of(&self.activators[0]);
        for activator in &self.activators {
            until("the worker to be known to both", || activator.workers().len() == 1);
        }
        worker
    }

    fn published(&self, by: usize, name: &str) -> RunningProgram {
        ffmpeg(Media::Both, &self.taps[by].url(&format!("live/{}", key(name))))
    }

    /// Ends the second publisher and returns the upstream's only session.
    fn ended(&self, mut second: RunningProgram) -> SinkSession {
        self.taps[1].started();
        let arrived = self.sink.only().recording.frames();
        self.sink.receives(arrived + 50);
        second.interrupt();
        let session = self.sink.ended();
        assert_eq!(self.sink.sessions().len(), 1, "one session at the upstream");
        assert!(session.said_goodbye());
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
        session
    }

    /// Messages that were published through one of the activators.
    fn published_by(&self, by: usize) -> Vec<liveedgecast_e2e::record::Message> {
        self.taps[by].only().publisher.media
    }
}

fn a_publisher_that_returns_through_the_other_activator_continues_its_session(handoff: &str) {
    let pair = Pair::by(handoff);
    let _worker = pair.worker();
    let mut first = pair.published(0, "returns");
    pair.sink.receives(50);
    first.kill();
    until("its first connection to end", || pair.taps[0].only().left.is_some());
    pair.activators[1].has_a_stream_that_is("grace");
    let second = pair.published(1, "returns");
    let session = pair.ended(second);
    let first = pair.published_by(0);
    assert_eq!(assert_continued(&first, &pair.published_by(1), session.media()), first.len());
    for activator in &pair.activators {
        until("the stream to be forgotten", || activator.demand() == Some((0, 0, 0)));
    }
}

/// The publisher of a linked stream loses its connection with its activator. With a descriptor the worker would keep it, and no publisher
/// would have to return.
#[test]
fn a_publisher_whose_activator_was_killed_returns_through_the_other_and_continues_its_session() {
    let mut pair = Pair::by("link");
    let _worker = pair.worker();
    let mut first = pair.published(0, "killed");
    pair.sink.receives(50);
    pair.activators[0].process.kill();
    assert!(!first.wait(SOON).success(), "its publisher stays");
    let second = pair.published(1, "killed");
    let session = pair.ended(second);
    assert_continued(&pair.published_by(0), &pair.published_by(1), session.media());
    // A held publisher counts for a minute after its activator has ended; this one was live, and a worker reports it.
    until("the stream to be forgotten", || pair.activators[1].demand() == Some((0, 0, 0)));
}

fn a_second_publisher_through_the_other_activator_is_refused(handoff: &str) {
    let pair = Pair::by(handoff);
    let _worker = pair.worker();
    let mut first = pair.published(0, "same");
    pair.sink.receives(50);
    let mut second = pair.published(1, "same");
    assert!(!second.wait(SOON).success(), "a second publisher is taken");
    let refused = pair.taps[1].only().server.statuses();
    assert!(refused.iter().any(|(_, status)| status == "NetStream.Publish.BadName"), "{refused:?}");
    let arrived = pair.sink.only().recording.frames();
    pair.sink.receives(arrived + 50);
    first.interrupt();
    assert!(pair.sink.ended().said_goodbye());
    assert_eq!(pair.sink.sessions().len(), 1);
    liveedgecast_e2e::compare::assert_arrived_whole(&pair.published_by(0), pair.sink.only().media());
}

fn a_held_publisher_counts_at_both_activators_and_either_reaches_the_worker(handoff: &str) {
    let pair = Pair::by(handoff);
    let names = ["one", "two"];
    let publishers = [0, 1].map(|by| pair.published(by, names[by]));
    for activator in &pair.activators {
        until("both streams to count at both activators", || activator.demand() == Some((2, 0, 2)));
    }
    let _worker = pair.worker();
    for name in names {
        until_some(format!("{name} at the upstream"), || {
            pair.sink.sessions().into_iter().find(|it| it.key == key(name) && it.recording.frames() > 20)
        });
    }
    for activator in &pair.activators {
        until("both streams to be live at both activators", || activator.demand() == Some((0, 2, 2)));
    }
    drop(publishers);
}

#[test]
fn worker_seconds_of_both_activators_add_up_to_the_time_that_has_passed() {
    let pair = Pair::by("link");
    let sum = || {
        let seconds = |activator: &ActivatorProcess, result: &str| {
            let label = format!("result=\"{result}\"");
            activator.metric("liveedgecast_worker_seconds_total", &[&label]).unwrap_or_default()
        };
        pair.activators.iter().map(|it| seconds(it, "used") + seconds(it, "avoided")).sum::<f64>()
    };
    // With one worker as the baseline, each second is used while a worker runs, and avoided otherwise.
    for with_worker in [false, true] {
        let _worker = with_worker.then(|| pair.worker());
        let (began, before) = (now(), sum());
        until("some seconds", || sum() > before + 4.0);
        let (grown, passed) = (sum() - before, now().saturating_duration_since(began).as_secs_f64());
        assert!(grown < 1.25 * passed, "{grown} s in {passed} s, with a worker: {with_worker}");
    }
}

fn every_message_counts_once_in_prometheus_whoever_ends(handoff: &str) {
    let mut pair = Pair::by(handoff);
    let mut prometheus = Prometheus::start([127, 0, 0, 1].into());
    let worker = pair.worker();
    let pages = |pair: &Pair, worker: &WorkerProcess| {
        let activators = pair.activators.iter().map(ActivatorProcess::http);
        activators.chain([worker.http()]).collect::<Vec<_>>()
    };
    prometheus.scrapes(&pages(&pair, &worker));
    let sent = |pair: &Pair| pair.taps.iter().flat_map(Tap::sessions).map(|it| it.publisher.media.len()).sum::<usize>();
    // A target that has gone keeps its last value in the sum.
    let counted = |pair: &Pair, prometheus: &Prometheus| {
        let sum = format!("{} messages in the sum over all targets", sent(pair));
        until(sum, || {
            let known = prometheus.knows("sum(max_over_time(liveedgecast_received_messages_total[10m]))");
            known.is_some_and(|known| format!("{known:.0}") == sent(pair).to_string())
        });
    };
    let publish = |pair: &Pair, by: usize, name: &str| {
        let mut publisher = pair.published(by, name);
        until_some(format!("{name} at the upstream"), || {
            pair.sink.sessions().into_iter().find(|it| it.key == key(name) && it.recording.frames() > 50)
        });
        publisher.interrupt();
        until_some(format!("the end of {name}"), || {
            pair.sink.sessions().into_iter().find(|it| it.key == key(name) && it.ended.is_some())
        });
    };
    publish(&pair, 0, "one");
    counted(&pair, &prometheus);

    // The worker is killed, and another one takes its place.
    let WorkerProcess { mut process, .. } = worker;
    process.kill();
    let worker = pair.worker();
    prometheus.scrapes(&pages(&pair, &worker));
    publish(&pair, 1, "two");
    counted(&pair, &prometheus);

    // The activator that shows the worker's counters is replaced; the worker tells the other one from then on.
    let teller = |activator: &ActivatorProcess| activator.metric("liveedgecast_worker_capacity", &[]).is_some();
    let tellers = pair.activators.each_ref().map(teller);
    assert_eq!(tellers.iter().filter(|it| **it).count(), 1, "one activator shows the worker");
    let (old, other) = if tellers[0] { (0, 1) } else { (1, 0) };
    assert!(pair.activators[old].process.terminate().success());
    until("the other activator to show the worker", || teller(&pair.activators[other]));
    publish(&pair, other, "three");
    counted(&pair, &prometheus);
    assert_eq!(pair.sink.sessions().len(), 3);
}
