//! The machine on virtual time, with the worker's end of the frames and a model of the published bytes.

use std::time::Duration;

use liveedgecast_common::handoff::frame::Reader;
use liveedgecast_common::handoff::{Close, Decline, Transport};
use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

use super::*;
use crate::handoff::limits::{ACCEPT_TIME, KICK_TIME};
use crate::handoff::testing::{assignment, keys, snapshot};

const ORIGIN: u64 = 3073;

fn carried(unread: &[u8]) -> Carried {
    Carried::new(Snapshot { unread: unread.to_vec(), ..snapshot(ORIGIN) })
}

/// The worker's end of a link, on memory.
struct Bench<'a> {
    link: Machine<'a>,
    reader: Reader,
    now: Instant,
    /// The bytes that the worker was given, in order.
    given: Vec<u8>,
    frames: Vec<Frame>,
    outputs: Vec<Output>,
}

impl<'a> Bench<'a> {
    fn new(carried: &'a mut Carried) -> Self {
        let keys = keys();
        let (_, mut writer) = keys.activator_end();
        let (reader, _) = keys.worker_end();
        let now = origin();
        let mut assigned = Vec::new();
        let assignment = assignment(Transport::Link, 1, carried.checkpoint.clone());
        writer.write(&mut assigned, &Frame::Assign(Box::new(assignment))).unwrap();
        let link = Machine::new(now, carried, writer, assigned);
        Self { link, reader, now, given: Vec::new(), frames: Vec::new(), outputs: Vec::new() }
    }

    /// Moves at most `most` bytes to the worker, and what the machine wants to us.
    fn pump(&mut self, mut most: usize) {
        while most > 0 && self.link.transmit() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = self.link.slices(&mut slices);
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
            assert!(!bytes.is_empty());
            self.link.transmitted(bytes.len());
            most -= bytes.len();
            self.reader.buffer().extend_from_slice(&bytes);
        }
        while let Some(frame) = self.reader.next().unwrap() {
            match frame {
                Frame::Assign(_) => {}
                Frame::Data(bytes) => self.given.extend_from_slice(&bytes),
                other => self.frames.push(other),
            }
        }
        while let Some(output) = self.link.poll_output() {
            self.outputs.push(output);
        }
    }

    fn says(&mut self, frame: Frame) {
        self.link.handle_frame(self.now, frame);
        self.pump(usize::MAX);
    }

    fn publishes(&mut self, bytes: &[u8]) {
        assert!(self.link.reads());
        self.receives(bytes);
        self.pump(usize::MAX);
    }

    /// Receives the publisher's bytes, in as many reads as there is room for.
    fn receives(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let before = bytes.len();
            for part in self.link.space().iter_mut() {
                let take = part.len().min(bytes.len());
                part[..take].copy_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
            }
            let now = self.now;
            self.link.handle_publisher(|| now, before - bytes.len());
        }
    }

    /// Lets time pass, tick by tick; with a worker that gives signs, or without.
    fn pass(&mut self, time: Duration, alive: bool) {
        let until = self.now + time;
        while let Some(next) = self.link.poll_timeout().filter(|next| *next <= until) {
            self.now = next;
            if alive {
                self.link.handle_frame(self.now, Frame::Alive);
            }
            self.link.handle_timeout(self.now);
            self.pump(usize::MAX);
        }
        self.now = until;
    }

    fn over(&self) -> Option<&HandoffOutcome> {
        match self.outputs.last() {
            Some(Output::Over(outcome)) => Some(outcome),
            _ => None,
        }
    }
}

fn lost(accepted: bool, started: bool) -> HandoffOutcome {
    HandoffOutcome::Lost { accepted, touched: accepted, started }
}

#[test]
fn publisher_is_not_read_before_the_worker_accepts() {
    let mut carried = carried(b"early");
    let mut bench = Bench::new(&mut carried);
    bench.pump(usize::MAX);
    assert!(!bench.link.reads() && bench.given.is_empty());
    bench.says(Frame::Accepted);
    assert!(bench.link.reads());
    assert_eq!(bench.given, b"early");
    bench.publishes(b" and late");
    assert_eq!(bench.given, b"early and late");
    bench.says(Frame::Started);
    assert_eq!(bench.outputs, [Output::Accepted, Output::Started]);
    bench.says(Frame::Done { how: Close::Graceful, reason: String::new() });
    assert_eq!(bench.over(), Some(&HandoffOutcome::Done { how: Close::Graceful, started: true, erred: false }));
    assert_eq!(bench.link.poll_timeout(), None);
}

#[test]
fn returned_stream_is_as_it_was() {
    let mut carried = carried(b"early");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Returned { why: Decline::Full });
    let expected = HandoffOutcome::Returned { why: Decline::Full, touched: false, started: false };
    assert_eq!(bench.over(), Some(&expected));
    let mut again = Bench::new(&mut carried);
    again.says(Frame::Accepted);
    assert_eq!(again.given, b"early");
}

#[test]
fn next_worker_begins_at_the_last_checkpoint() {
    let mut carried = carried(b"0123");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.publishes(b"456789");
    bench.says(Frame::Checkpoint(Box::new(snapshot(ORIGIN + 7))));
    bench.publishes(b"abc");
    bench.link.handle_lost(bench.now, WorkerLoss::Ended);
    bench.pump(usize::MAX);
    assert_eq!(bench.over(), Some(&HandoffOutcome::Broken { started: false }));
    assert_eq!(carried.checkpoint.session.position(), ORIGIN + 7);
    let mut next = Bench::new(&mut carried);
    next.says(Frame::Accepted);
    next.publishes(b"live");
    assert_eq!(next.given, b"789abclive");
    // A checkpoint of what this worker was not given is a lie.
    next.says(Frame::Checkpoint(Box::new(snapshot(ORIGIN + 1000))));
    assert_eq!(next.over(), Some(&lost(true, false)));
}

#[test]
fn both_sides_give_signs_and_a_worker_without_one_for_two_seconds_is_lost() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.frames.clear();
    bench.pass(Duration::from_secs(60), true);
    assert_eq!(bench.over(), None);
    assert!(bench.frames.len() >= 59, "{} signs in a minute", bench.frames.len());
    assert!(bench.frames.iter().all(|frame| *frame == Frame::Alive));
    // The last sign may be as old as the last tick.
    bench.pass(DEAD_AFTER - TICK, false);
    assert_eq!(bench.over(), None);
    bench.pass(TICK * 2, false);
    assert_eq!(bench.over(), Some(&lost(true, false)));
}

#[test]
fn ended_connection_is_a_break_and_not_a_death() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.link.handle_lost(bench.now, WorkerLoss::Ended);
    bench.pump(usize::MAX);
    assert_eq!(bench.over(), Some(&lost(false, false)), "it had nothing");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.says(Frame::Started);
    bench.link.handle_lost(bench.now, WorkerLoss::Ended);
    bench.pump(usize::MAX);
    assert_eq!(bench.over(), Some(&HandoffOutcome::Broken { started: true }));
}

#[test]
fn worker_is_read_before_it_is_given_up() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    assert!(!bench.link.gives_up(bench.now) && bench.link.gives_up(bench.now + ACCEPT_TIME));
    bench.says(Frame::Accepted);
    let silent = bench.now + DEAD_AFTER;
    assert!(!bench.link.gives_up(silent - Duration::from_millis(1)) && bench.link.gives_up(silent));
    bench.now = silent;
    bench.says(Frame::Alive);
    assert!(!bench.link.gives_up(silent));
}

#[test]
fn worker_that_does_not_accept_in_time_is_lost_without_harm() {
    let mut carried = carried(b"early");
    let mut bench = Bench::new(&mut carried);
    bench.pass(ACCEPT_TIME - Duration::from_millis(1), false);
    assert_eq!(bench.over(), None);
    bench.pass(Duration::from_millis(1), false);
    assert_eq!(bench.over(), Some(&lost(false, false)));
}

#[test]
fn bound_stops_the_reading_and_then_the_worker() {
    let block = vec![7; 64 << 10];
    let fill = |bench: &mut Bench<'_>| {
        while bench.link.reads() {
            bench.publishes(&block);
        }
    };
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    fill(&mut bench);
    assert_eq!(bench.given.len(), MAX_KEPT);
    // A healthy worker was only slower than the network.
    bench.pass(Duration::from_secs(1), true);
    bench.says(Frame::Checkpoint(Box::new(snapshot(ORIGIN + MAX_KEPT as u64 / 2))));
    assert!(bench.link.reads());
    bench.pass(DEAD_AFTER * 2, true);
    fill(&mut bench);
    bench.pass(DEAD_AFTER + TICK, true);
    assert_eq!(bench.over(), Some(&lost(true, false)));
    assert_eq!(carried.replay.len(), MAX_KEPT);
    // Its successor has as much time.
    let mut next = Bench::new(&mut carried);
    next.says(Frame::Accepted);
    assert!(!next.link.reads());
    next.pass(DEAD_AFTER - TICK, true);
    assert_eq!(next.over(), None);
    next.says(Frame::Checkpoint(Box::new(snapshot(ORIGIN + MAX_KEPT as u64))));
    assert!(next.link.reads());
}

#[test]
fn bytes_behind_a_goodbye_stay_here() {
    let mut carried = carried(b"0123");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.publishes(b"goodbye and more");
    bench.says(Frame::Reply(Bytes::from_static(b"well")));
    bench.says(Frame::Parted(Box::new(snapshot(ORIGIN + 11))));
    assert_eq!(bench.over(), Some(&HandoffOutcome::Parted));
    let parted = carried.parted();
    assert_eq!((parted.session.position(), &parted.unread[..]), (ORIGIN + 11, &b" and more"[..]));
    let session = liveedgecast_common::rtmp::server::ServerSession::restore(&parted.session).unwrap();
    assert_eq!(session.output(), b"well");
}

#[test]
fn end_of_a_publisher_is_reported_after_its_last_byte() {
    for end in [PublisherEnd::Fin, PublisherEnd::Reset, PublisherEnd::Silent] {
        let mut carried = carried(b"");
        let mut bench = Bench::new(&mut carried);
        bench.says(Frame::Accepted);
        bench.receives(b"last");
        bench.link.handle_publisher_end(bench.now, end);
        bench.pump(usize::MAX);
        assert_eq!((bench.given.as_slice(), bench.frames.as_slice()), (&b"last"[..], &[Frame::End(end)][..]));
        assert!(!bench.link.reads());
        bench.pass(END_TIME - Duration::from_millis(1), true);
        assert_eq!(bench.over(), None);
        bench.pass(Duration::from_millis(1), true);
        assert_eq!(bench.over(), Some(&HandoffOutcome::PublisherGone));
    }
}

#[test]
fn rest_of_a_publisher_that_has_ended_goes_to_the_next_worker_with_its_end() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.publishes(b"first");
    assert!(!bench.link.carried.is_started());
    bench.says(Frame::Started);
    bench.receives(b" and last");
    bench.link.handle_publisher_end(bench.now, PublisherEnd::Reset);
    bench.link.handle_lost(bench.now, WorkerLoss::Ended);
    bench.pump(usize::MAX);
    assert_eq!(bench.over(), Some(&HandoffOutcome::Broken { started: true }));
    assert!(carried.is_started() && carried.at_stake() == 14);
    let mut next = Bench::new(&mut carried);
    next.pass(ACCEPT_TIME - Duration::from_millis(1), true);
    assert!(!next.link.reads() && next.over().is_none(), "it has its time to accept");
    next.says(Frame::Accepted);
    assert_eq!(
        (next.given.as_slice(), next.frames.last()),
        (&b"first and last"[..], Some(&Frame::End(PublisherEnd::Reset)))
    );
    next.pass(END_TIME - Duration::from_millis(1), true);
    assert_eq!(next.over(), None);
    // A stream may kill every worker that gets it.
    next.now = origin() + REST_TIME;
    next.link.handle_lost(next.now, WorkerLoss::Ended);
    next.pump(usize::MAX);
    assert_eq!(next.over(), Some(&HandoffOutcome::PublisherGone));
    assert_eq!(carried.at_stake(), 14);
}

#[test]
fn full_stream_has_its_time_from_the_acceptance_on() {
    let mut carried = carried(b"");
    carried.replay.push(&vec![7; MAX_KEPT]);
    let mut bench = Bench::new(&mut carried);
    // The worker is busy, and has longer than that to accept.
    bench.pass(DEAD_AFTER * 2, false);
    assert!(DEAD_AFTER * 2 < ACCEPT_TIME);
    bench.says(Frame::Accepted);
    bench.pass(DEAD_AFTER - TICK, true);
    assert_eq!(bench.over(), None);
    bench.says(Frame::Checkpoint(Box::new(snapshot(ORIGIN + MAX_KEPT as u64))));
    assert!(bench.link.reads());
}

#[test]
fn replies_reach_a_publisher_that_reads_and_do_not_end_one_that_does_not() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.says(Frame::Reply(Bytes::from_static(b"ab")));
    bench.says(Frame::Reply(Bytes::from_static(b"cd")));
    assert_eq!(bench.link.reply(), Some(&b"ab"[..]));
    bench.link.replied(1);
    assert_eq!(bench.link.reply(), Some(&b"b"[..]));
    bench.link.replied(1);
    bench.link.replied(2);
    assert_eq!(bench.link.reply(), None);
    let replies = 3 * MAX_REPLIES / 1024;
    for number in 0..replies {
        bench.says(Frame::Reply(Bytes::from(vec![number as u8; 1024])));
    }
    bench.link.replied(1);
    assert_eq!((bench.over(), bench.link.reads()), (None, true));
    // The next worker goes on where this one was in a reply, and the last reply is there.
    bench.link.handle_lost(bench.now, WorkerLoss::Ended);
    let mut next = Bench::new(&mut carried);
    let mut heard = Vec::new();
    while let Some(reply) = next.link.reply().map(<[u8]>::to_vec) {
        next.link.replied(reply.len());
        heard.extend(reply);
    }
    assert_eq!(heard.len(), MAX_REPLIES - 1);
    assert_eq!((heard[..1023].to_vec(), heard.last()), (vec![0; 1023], Some(&((replies - 1) as u8))));
}

#[test]
fn kick_is_passed_on_and_has_a_deadline() {
    let mut carried = carried(b"");
    let mut bench = Bench::new(&mut carried);
    bench.says(Frame::Accepted);
    bench.link.kick(bench.now, "why not".to_owned());
    bench.pump(usize::MAX);
    assert_eq!(bench.frames, [Frame::Kick("why not".to_owned())]);
    bench.pass(KICK_TIME, true);
    assert_eq!(bench.over(), Some(&HandoffOutcome::Done { how: Close::Graceful, started: false, erred: false }));
}

/// A step of one handoff.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accepted,
    GivenBack,
    Done,
    Parted,
    WorkerEnds,
    PublisherEnds,
    /// Nothing comes from the worker for so long.
    Silent(Duration),
    /// Only signs of life come from the worker for so long.
    Alive(Duration),
    /// The publisher's bytes reach the bound, and the worker gives signs but no checkpoint for so long.
    Full(Duration),
}

impl Bench<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Accepted => self.says(Frame::Accepted),
            Step::GivenBack => self.says(Frame::Returned { why: Decline::Full }),
            Step::Done => self.says(Frame::Done { how: Close::Abort, reason: String::new() }),
            Step::Parted => self.says(Frame::Parted(Box::new(snapshot(ORIGIN)))),
            Step::WorkerEnds => self.link.handle_lost(self.now, WorkerLoss::Ended),
            Step::PublisherEnds => self.link.handle_publisher_end(self.now, PublisherEnd::Fin),
            Step::Silent(time) => self.pass(time, false),
            Step::Alive(time) => self.pass(time, true),
            Step::Full(time) => {
                while self.link.reads() {
                    self.publishes(&[7; 64 << 10]);
                }
                self.pass(time, true);
            }
        }
        self.pump(usize::MAX);
    }

    /// The state in the picture, or the outcome of the handoff.
    fn state(&self) -> &'static str {
        match self.over() {
            None if self.link.ending.is_some() => "Ending",
            None if self.link.is_accepted() => "Carrying",
            None => "Assigned",
            Some(HandoffOutcome::Returned { .. }) => "returned",
            Some(HandoffOutcome::Lost { .. }) => "lost",
            Some(HandoffOutcome::Broken { .. }) => "broken",
            Some(HandoffOutcome::Parted) => "parted",
            Some(HandoffOutcome::Done { .. } | HandoffOutcome::PartedForGood) => "done",
            Some(HandoffOutcome::PublisherGone) => "publisher gone",
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    let moment = Duration::from_millis(1);
    let states: [&[Step]; 3] = [&[], &[Step::Accepted], &[Step::Accepted, Step::PublisherEnds]];
    // A step, and the state after it from Assigned, Carrying and Ending.
    let table = [
        (Step::Accepted, ["Carrying", "lost", "lost"]),
        (Step::GivenBack, ["returned", "returned", "returned"]),
        (Step::Done, ["done"; 3]),
        (Step::Parted, ["lost", "parted", "done"]),
        (Step::WorkerEnds, ["lost", "broken", "broken"]),
        (Step::PublisherEnds, ["publisher gone", "Ending", "Ending"]),
        (Step::Silent(DEAD_AFTER - TICK), ["Assigned", "Carrying", "Ending"]),
        (Step::Silent(DEAD_AFTER + TICK), ["Assigned", "lost", "lost"]),
        (Step::Silent(ACCEPT_TIME), ["lost", "lost", "lost"]),
        (Step::Alive(END_TIME - moment), ["Assigned", "Carrying", "Ending"]),
        (Step::Alive(END_TIME), ["lost", "Carrying", "publisher gone"]),
        (Step::Full(DEAD_AFTER - TICK), ["Assigned", "Carrying", "Ending"]),
        (Step::Full(DEAD_AFTER + TICK), ["Assigned", "lost", "Ending"]),
    ];
    for (step, expected) in table {
        for (before, expected) in states.into_iter().zip(expected) {
            let mut carried = carried(b"");
            let mut bench = Bench::new(&mut carried);
            before.iter().for_each(|step| bench.step(*step));
            let from = bench.state();
            bench.step(step);
            assert_eq!(bench.state(), expected, "{from}, {step:?}");
        }
    }
}

proptest! {
    /// However bytes come, are written and are checkpointed, and whenever workers die: each worker gets, from the last checkpoint
    /// on, exactly what was published.
    #[test]
    fn no_byte_is_lost_or_repeated_across_workers(
        steps in proptest::collection::vec((0..5_u8, 1..5000_usize), 1..120),
    ) {
        let mut published: Vec<u8> = (0..10).collect();
        let mut carried = carried(&published);
        let mut checkpoint = 0;
        let mut steps = steps.into_iter();
        'workers: loop {
            let mut bench = Bench::new(&mut carried);
            bench.link.handle_frame(bench.now, Frame::Accepted);
            for (step, amount) in steps.by_ref() {
                match step {
                    0 | 1 => {
                        let block: Vec<u8> = (0..amount).map(|at| (at ^ published.len()) as u8).collect();
                        bench.receives(&block);
                        published.extend(block);
                    }
                    2 => bench.pump(amount),
                    3 => {
                        let position = checkpoint + amount;
                        if position - checkpoint <= bench.given.len() {
                            bench.given.drain(..position - checkpoint);
                            checkpoint = position;
                            let at = ORIGIN + position as u64;
                            bench.link.handle_frame(bench.now, Frame::Checkpoint(Box::new(snapshot(at))));
                        }
                    }
                    _ => continue 'workers,
                }
                prop_assert_eq!(&bench.given, &published[checkpoint..checkpoint + bench.given.len()]);
            }
            bench.pump(usize::MAX);
            prop_assert_eq!(&bench.given, &published[checkpoint..]);
            prop_assert_eq!(bench.over(), None);
            break;
        }
    }
}
