//! The times at which `true` is pushed on one push stream of KEDA. In: the demand, time. Out: `true`, or the end. Pure. Next: `service`,
//! which owns the stream.
//!
//! ```text
//!        a stream waits without capacity                 all have their places
//!  Calm ────────────────────────────────▶ Urgent ─────────────────────────────────▶ Calm
//!   │ `true` every 30 s while anything      `true` at once, then after
//!   │ is asked for; else nothing            200, 400, 800 ms … 5 s; from the
//!   ▼                                       beginning when more wait
//!  Ended   (age, when calm; utmost age; going down)
//! ```
//! `false` is never pushed: KEDA before 2.18 acts on it without asking the other triggers, and KEDA from then on not at all.

use std::time::Instant;

use super::limits::{FIRST_AGAIN, MAX_AGE, MOST_AGAIN, RARELY, UTMOST_AGE};

/// The demand of one trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PushDemand {
    /// Streams that wait or are live.
    pub(super) demand: usize,
    /// Waiting streams among them for which no worker has a place.
    pub(super) unplaced: usize,
}

/// An order to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Say `true`.
    True,
    /// End the stream with OK.
    End,
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct Push {
    opened: Instant,
    asked: PushDemand,
    /// Number of `true`s since the demand last changed its urgency.
    said: u32,
    last: Option<Instant>,
    due: Option<Instant>,
    ended: bool,
    output: Option<Output>,
}

impl Push {
    /// The machine of a push stream that KEDA has just opened, with the demand at that time.
    pub(super) fn new(now: Instant, asked: PushDemand) -> Self {
        let opened = now;
        let mut push =
            Self { opened, asked: PushDemand::default(), said: 0, last: None, due: None, ended: false, output: None };
        push.handle(now, asked);
        push
    }

    /// Takes a new demand; drain [`Self::poll_output`] afterwards.
    pub(super) fn handle(&mut self, now: Instant, asked: PushDemand) {
        let last = std::mem::replace(&mut self.asked, asked);
        if asked.demand == 0 {
            (self.due, self.said) = (None, 0);
        } else if asked.unplaced > last.unplaced {
            // The `true` is due at once, but not within FIRST_AGAIN of the last one, because streams that come and go must not cost KEDA a
            // patch each.
            self.said = 0;
            self.due = Some(self.last.map_or(now, |last| now.max(last + FIRST_AGAIN)));
        } else if asked.unplaced == 0 && (last.unplaced > 0 || last.demand == 0) {
            self.said = 0;
            self.due = Some(self.last.map_or(now, |last| now.max(last + RARELY)));
        }
        self.handle_timeout(now);
    }

    /// Pushes `true`, or ends the stream, if either is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if self.end_due().is_some_and(|at| at <= now) {
            self.end();
        } else if self.due.is_some_and(|at| at <= now) {
            self.output = Some(Output::True);
            self.last = Some(now);
            let after = match self.asked.unplaced {
                0 => RARELY,
                _ => FIRST_AGAIN.saturating_mul(1 << self.said.min(10)).min(MOST_AGAIN),
            };
            self.said += 1;
            self.due = Some(now + after);
        }
    }

    /// Ends the stream, because the process goes down.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.due = None;
            self.output = Some(Output::End);
        }
    }

    /// The time at which [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.end_due()).min()
    }

    /// The next order to the shell.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    fn end_due(&self) -> Option<Instant> {
        let age = if self.asked.unplaced > 0 { UTMOST_AGE } else { MAX_AGE };
        (!self.ended).then(|| self.opened + age)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveedgecast_common::testkit::origin;

    use super::*;

    const NONE: PushDemand = PushDemand { demand: 0, unplaced: 0 };
    const SERVED: PushDemand = PushDemand { demand: 3, unplaced: 0 };
    const WAITING: PushDemand = PushDemand { demand: 3, unplaced: 1 };
    const MORE: PushDemand = PushDemand { demand: 4, unplaced: 2 };

    /// Outputs and their times in milliseconds up to `end`, for demands at given times.
    fn said(asked: &[(u64, PushDemand)], end: u64) -> Vec<(u64, Output)> {
        let start = origin();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut asked = asked.iter().copied().peekable();
        let mut push = Push::new(start, asked.next().unwrap().1);
        let (mut said, mut now) = (Vec::new(), start);
        loop {
            said.extend(push.poll_output().map(|output| ((now - start).as_millis() as u64, output)));
            let next = asked.peek().map(|(when, _)| at(*when));
            let Some(then) = next.into_iter().chain(push.poll_timeout()).min().filter(|then| *then <= at(end)) else {
                return said;
            };
            now = then;
            if next == Some(now) {
                push.handle(now, asked.next().unwrap().1);
            } else {
                push.handle_timeout(now);
            }
        }
    }

    fn times(asked: &[(u64, PushDemand)], end: u64) -> Vec<u64> {
        let said = said(asked, end);
        assert!(said.iter().all(|(_, output)| *output == Output::True), "{said:?}");
        said.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn true_is_repeated_ever_more_seldom_while_a_stream_waits() {
        let expected = [0, 200, 600, 1400, 3000, 6200, 11_200, 16_200];
        assert_eq!(times(&[(0, WAITING)], 20_000), expected, "waiting before the stream was opened");
        let later: Vec<u64> = expected.iter().map(|at| at + 7000).collect();
        assert_eq!(times(&[(0, NONE), (7000, WAITING)], 27_000), later);
    }

    #[test]
    fn true_follows_the_demand() {
        type Row = (&'static str, &'static [(u64, PushDemand)], u64, &'static [u64]);
        let rows: [Row; 7] = [
            ("nothing asked for, nothing said", &[(0, NONE)], 200_000, &[]),
            ("served: rarely", &[(0, SERVED)], 70_000, &[0, 30_000, 60_000]),
            ("it got its place", &[(0, WAITING), (300, SERVED)], 40_000, &[0, 200, 30_200]),
            (
                "another one waits: from the beginning",
                &[(0, WAITING), (2000, MORE)],
                3500,
                &[0, 200, 600, 1400, 2000, 2200, 2600, 3400],
            ),
            ("one less: as before", &[(0, MORE), (2000, WAITING)], 4000, &[0, 200, 600, 1400, 3000]),
            ("come and go", &[(0, WAITING), (10, NONE), (20, WAITING), (30, NONE), (40, WAITING)], 500, &[0, 200, 400]),
            ("gone: nothing more", &[(0, WAITING), (300, NONE)], 200_000, &[0, 200]),
        ];
        for (name, asked, end, expected) in rows {
            assert_eq!(times(asked, end), expected, "{name}");
        }
    }

    /// The state of the picture that a push stream is in.
    fn state_of(push: &Push) -> &'static str {
        match (push.ended, push.asked.unplaced) {
            (true, _) => "ended",
            (false, 0) => "calm",
            (false, _) => "urgent",
        }
    }

    #[test]
    fn push_stream_walks_every_edge_of_its_picture() {
        type Step = fn(&mut Push, Instant);
        const STOP: Step = |push, _| push.end();
        type Edge = (&'static str, PushDemand, &'static str, Step, &'static str, Option<Output>);
        let edges: [Edge; 10] = [
            ("calm", NONE, "a stream waits", |push, now| push.handle(now, WAITING), "urgent", Some(Output::True)),
            ("calm", SERVED, "30 s", |push, now| push.handle_timeout(now + RARELY), "calm", Some(Output::True)),
            ("calm", NONE, "30 s", |push, now| push.handle_timeout(now + RARELY), "calm", None),
            ("calm", NONE, "age", |push, now| push.handle_timeout(now + MAX_AGE), "ended", Some(Output::End)),
            ("calm", SERVED, "going down", STOP, "ended", Some(Output::End)),
            (
                "urgent",
                WAITING,
                "200 ms",
                |push, now| push.handle_timeout(now + FIRST_AGAIN),
                "urgent",
                Some(Output::True),
            ),
            ("urgent", WAITING, "all have their places", |push, now| push.handle(now, SERVED), "calm", None),
            ("urgent", WAITING, "age", |push, now| push.handle_timeout(now + MAX_AGE), "urgent", Some(Output::True)),
            (
                "urgent",
                WAITING,
                "utmost age",
                |push, now| push.handle_timeout(now + UTMOST_AGE),
                "ended",
                Some(Output::End),
            ),
            ("urgent", WAITING, "going down", STOP, "ended", Some(Output::End)),
        ];
        for (from, asked, edge, step, to, output) in edges {
            let now = origin();
            let mut push = Push::new(now, asked);
            push.poll_output();
            assert_eq!(state_of(&push), from, "{from}: {edge}");
            step(&mut push, now);
            assert_eq!((state_of(&push), push.poll_output()), (to, output), "{from}: {edge}");
        }
    }

    #[test]
    fn old_stream_ends_when_nothing_waits() {
        assert_eq!(said(&[(0, NONE)], 1_000_000), [(300_000, Output::End)]);
        let last = |asked: &[(u64, PushDemand)]| *said(asked, 1_000_000).last().unwrap();
        assert_eq!(last(&[(0, WAITING)]), (600_000, Output::End));
        assert_eq!(last(&[(0, WAITING), (400_000, SERVED)]), (400_000, Output::End));
    }

    #[test]
    fn ended_stream_says_nothing_more() {
        let now = origin();
        let mut push = Push::new(now, WAITING);
        assert_eq!(push.poll_output(), Some(Output::True));
        push.end();
        assert_eq!((push.poll_output(), push.poll_timeout()), (Some(Output::End), None));
        push.handle(now, MORE);
        push.end();
        assert_eq!(push.poll_output(), None);
    }
}
