//! The chronicle, on virtual time: which activator tells what, and when.

use liveedgecast_common::control::{UpstreamCounts, UpstreamReport, UpstreamState};
use liveedgecast_common::testkit::origin;

use super::*;

/// One activator's chronicle.
struct World {
    chronicle: Chronicle,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { chronicle: Chronicle::default(), now: origin() }
    }

    fn tell(&mut self, input: Input<'_>) -> String {
        self.chronicle.handle(self.now, input);
        let facts = std::iter::from_fn(|| self.chronicle.poll_output());
        facts.map(|fact| show(&fact)).collect::<Vec<_>>().join(", ")
    }

    fn enter(&mut self, id: &str) -> String {
        let label = StreamLabel { stream: id.into(), app: "live".into(), publisher: Some("studio".into()) };
        self.tell(Input::Entered(label, Some(OWN), vec!["youtube".into()]))
    }

    fn start<'a>(&mut self, stream: &'a str, returns_to: Option<&'a str>) -> String {
        let start = Duration::from_millis(5);
        self.tell(Input::Started { stream, worker: "w1", start, cold: false, returns_to })
    }

    fn report(&mut self, worker: &str, id: &str, epoch: u64, state: SessionState) -> String {
        self.tell(Input::Reported(worker, &session(id, epoch, state, UpstreamState::Live)))
    }

    /// A stream that is live on worker `w1`, its events told.
    fn live(&mut self, id: &str) {
        assert_eq!(self.enter(id), "");
        assert_eq!(self.report("w1", id, 1, SessionState::Live), format!("upstream.live {id} youtube"));
        assert_eq!(self.start(id, None), format!("stream.live {id}"));
    }
}

const OWN: Identity = Identity([7; 16]);

fn session(id: &str, epoch: u64, state: SessionState, upstream: UpstreamState) -> Session {
    let upstream = UpstreamReport { host: "a:1935".into(), state: upstream, ..UpstreamReport::default() };
    Session {
        stream_id: id.into(),
        app: "live".into(),
        state,
        identities: vec![OWN],
        epoch,
        reason: "done".into(),
        messages: 9,
        upstreams: vec![upstream],
        ..Session::default()
    }
}

fn show(fact: &Fact) -> String {
    let mut words = fact.event().to_owned();
    fact.each(|name, field| {
        if let (super::super::fact::Field::Text(text), "stream" | "destination" | "was" | "by" | "reason") =
            (field, name)
        {
            words = format!("{words} {text}");
        }
    });
    words
}

#[test]
fn stream_is_told_from_its_start_to_its_end_and_no_other_stream_is() {
    let mut world = World::new();
    assert_eq!(world.report("w1", "other", 5, SessionState::Live), "", "another activator's");
    world.live("s");
    world.now += Duration::from_secs(3);
    assert_eq!(world.tell(Input::Left("s")), "");
    assert_eq!(world.report("w1", "s", 1, SessionState::Ended), "stream.ended s done");
    assert_eq!(world.report("w1", "s", 1, SessionState::Live), "", "it is over");
    assert!(world.chronicle.streams.is_empty() && world.chronicle.by_identity.is_empty());
}

#[test]
fn end_is_told_whether_the_worker_or_the_publisher_says_so_first() {
    let mut world = World::new();
    world.live("s");
    assert_eq!(world.report("w1", "s", 1, SessionState::Ended), "", "another worker may go on with it");
    assert_eq!(world.tell(Input::Left("s")), "stream.ended s done");
    assert_eq!(world.enter("never"), "");
    assert_eq!(world.tell(Input::Left("never")), "", "no worker had it");
    assert_eq!(world.enter("failed"), "");
    world.report("w1", "failed", 1, SessionState::Starting);
    assert_eq!(world.tell(Input::NeverStarted { stream: "failed", worker: "w1" }), "start.failed failed");
    assert_eq!(world.tell(Input::Left("failed")), "");
    assert_eq!(world.report("w1", "failed", 1, SessionState::Ended), "");
    assert!(world.chronicle.streams.is_empty());
}

#[test]
fn lost_publisher_is_told_once_when_it_has_left_and_its_upstreams_are_kept() {
    let mut world = World::new();
    world.live("s");
    assert_eq!(world.report("w1", "s", 1, SessionState::Grace), "", "the link may have broken alone");
    assert_eq!(world.report("w1", "s", 1, SessionState::Live), "");
    assert_eq!(world.report("w1", "s", 1, SessionState::Grace), "");
    assert_eq!(world.tell(Input::Left("s")), "publisher.lost s");
    assert_eq!(world.report("w1", "s", 1, SessionState::Grace), "");
    assert_eq!(world.report("w1", "s", 1, SessionState::Ended), "stream.ended s done");
}

#[test]
fn return_is_told_by_the_activator_that_the_publisher_comes_to() {
    for elsewhere in [false, true] {
        let (mut first, mut second) = (World::new(), World::new());
        first.live("s");
        first.tell(Input::Left("s"));
        assert_eq!(first.report("w1", "s", 1, SessionState::Grace), "publisher.lost s");
        let next = if elsewhere { &mut second } else { &mut first };
        assert_eq!(next.enter("t"), "");
        next.report("w1", "t", 2, SessionState::Live);
        assert_eq!(next.start("t", Some("s")), "publisher.back t s");
        first.report("w1", "t", 2, SessionState::Live);
        assert_eq!(first.report("w1", "s", 1, SessionState::Ended), "", "it goes on under its new id");
    }
}

#[test]
fn silent_publisher_that_was_replaced_is_told_with_its_successor() {
    let mut world = World::new();
    world.live("s");
    world.enter("t");
    world.report("w1", "t", 2, SessionState::Live);
    assert_eq!(world.report("w1", "s", 1, SessionState::Ended), "");
    assert_eq!(world.tell(Input::Left("s")), "publisher.replaced s t");
}

#[test]
fn stream_that_moves_to_another_worker_loses_its_destinations_for_a_moment() {
    let mut world = World::new();
    world.live("s");
    world.now += Duration::from_secs(1);
    assert_eq!(world.tell(Input::WorkerGone("w1")), "", "the publisher is there");
    let taken = Input::TakenOver { stream: "s", from: "w1", to: "w2", fault: false };
    assert_eq!(world.tell(taken), "stream.taken_over s");
    let mut starting = session("s", 2, SessionState::Starting, UpstreamState::Dialing);
    let upstreams = std::mem::take(&mut starting.upstreams);
    assert_eq!(world.tell(Input::Reported("w2", &starting)), "upstream.lost s youtube");
    starting.upstreams = upstreams;
    assert_eq!(world.tell(Input::Reported("w2", &starting)), "");
    assert_eq!(world.report("w1", "s", 1, SessionState::Ended), "", "of an older claim");
    assert_eq!(world.report("w2", "s", 2, SessionState::Live), "");
    world.now += Duration::from_secs(1);
    let counters = |worker| {
        let upstreams = vec![UpstreamCounts { replayed: 4, ..UpstreamCounts::default() }];
        (worker, [SessionCounters { stream_id: "s".into(), messages: 20, upstreams, ..SessionCounters::default() }])
    };
    let (worker, stale) = counters("w1");
    assert_eq!(world.tell(Input::Counted(worker, &stale)), "");
    let (worker, fresh) = counters("w2");
    assert_eq!(world.tell(Input::Counted(worker, &fresh)), "upstream.back s youtube");
}

#[test]
fn end_of_a_stream_has_the_figures_of_all_its_workers() {
    let mut world = World::new();
    world.live("s");
    let report = |world: &mut World, worker: &str, epoch, state, messages: u64| {
        let mut told = session("s", epoch, state, UpstreamState::Live);
        (told.messages, told.figures.bytes) = (messages, 100 * messages);
        world.chronicle.handle(origin(), Input::Reported(worker, &told));
    };
    report(&mut world, "w1", 1, SessionState::Live, 20);
    report(&mut world, "w2", 2, SessionState::Live, 5);
    report(&mut world, "w1", 1, SessionState::Ended, 21);
    report(&mut world, "w2", 2, SessionState::Ended, 7);
    report(&mut world, "w3", 3, SessionState::Live, 1);
    report(&mut world, "w3", 3, SessionState::Ending, 3);
    world.chronicle.handle(origin(), Input::Left("s"));
    report(&mut world, "w3", 3, SessionState::Ended, 3);
    let facts: Vec<Fact> = std::iter::from_fn(|| world.chronicle.poll_output()).collect();
    let Some(Fact::StreamEnded { messages, bytes, .. }) = facts.last() else { panic!("{facts:?}") };
    assert_eq!((*messages, *bytes), (30, 3000));
}

#[test]
fn stream_in_grace_ends_with_its_worker() {
    let mut world = World::new();
    world.live("s");
    world.tell(Input::Left("s"));
    world.report("w1", "s", 1, SessionState::Grace);
    assert_eq!(world.tell(Input::WorkerGone("w2")), "");
    assert_eq!(world.tell(Input::WorkerGone("w1")), "stream.ended s its worker is gone");
    assert!(world.chronicle.streams.is_empty());
}

#[test]
fn stream_whose_worker_is_gone_ends_with_its_publisher() {
    let mut world = World::new();
    world.live("s");
    assert_eq!(world.tell(Input::WorkerGone("w1")), "");
    assert_eq!(world.tell(Input::Left("s")), "stream.ended s its worker is gone");
    world.live("t");
    world.tell(Input::WorkerGone("w1"));
    assert_eq!(world.report("w1", "t", 1, SessionState::Live), "", "it is registered again");
    assert_eq!(world.tell(Input::Left("t")), "");
    assert_eq!(world.report("w1", "t", 1, SessionState::Ended), "stream.ended t done");
}

#[test]
fn destination_is_known_again_by_its_name_when_the_list_changes() {
    let mut world = World::new();
    world.live("s");
    let named = |names: &[&str]| {
        let one = session("s", 1, SessionState::Live, UpstreamState::Live);
        let upstreams = names.iter().map(|name| UpstreamReport { name: (*name).into(), ..one.upstreams[0].clone() });
        Session { upstreams: upstreams.collect(), ..one.clone() }
    };
    assert_eq!(world.tell(Input::Reported("w1", &named(&["a", "b"]))), "upstream.live s b", "the first one was known");
    assert_eq!(world.tell(Input::Reported("w1", &named(&["b", "c"]))), "upstream.live s c");
    assert_eq!(world.tell(Input::Reported("w1", &named(&["c"]))), "");
}
