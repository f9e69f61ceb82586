//! Going down, as a list of phases. In: signals, and the ends of steps. Out: the phase that everything else follows. Next: the `drain` of
//! each binary, which has its phases; its `task`, which takes the steps. Pure.
//!
//! ```text
//! first ──signal──▶ second ──┬──▶ … ──┬──▶ last
//!    │        done, time, signal ┘         ┘
//!    └──skip──▶ a later one (from any before it)
//! ```

use std::time::{Duration, Instant};

/// The longest time that a phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No limit but the step; the first phase waits for a signal, the last for nothing.
    Step,
    /// A time, counted from the beginning of the phase.
    AtMost(Duration),
    /// The time of live streams, counted from the first signal.
    Streams,
}

/// A cause for the next phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<P> {
    /// SIGTERM or SIGINT. Each further signal ends the wait of the current phase.
    Signal,
    /// The step of this phase has been taken.
    Done(P),
    /// The phases before this one have no purpose any more.
    Skip(P),
}

/// The list of phases and the position in it.
#[derive(Debug)]
pub struct Drain<P, const N: usize> {
    list: [(P, Wait); N],
    at: usize,
    streams: Duration,
    /// End of the wait of the current phase.
    until: Option<Instant>,
    /// End of the wait for streams.
    streams_until: Option<Instant>,
}

impl<P: Copy + PartialEq, const N: usize> Drain<P, N> {
    /// A list at its first phase. `streams`: the time that live streams have from the first signal on.
    #[must_use]
    pub fn new(list: [(P, Wait); N], streams: Duration) -> Self {
        const { assert!(N > 0) };
        Self { list, at: 0, streams, until: None, streams_until: None }
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> P {
        self.list[self.at].0
    }

    /// Takes one input; true if the phase has changed.
    pub fn handle(&mut self, now: Instant, input: Input<P>) -> bool {
        let next = match input {
            Input::Signal => self.at + 1,
            Input::Done(done) if done == self.phase() && self.at > 0 => self.at + 1,
            Input::Skip(to) => self.list.iter().position(|(phase, _)| *phase == to).unwrap_or_default(),
            Input::Done(_) => return false,
        };
        self.enter(now, next)
    }

    /// The time at which [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the wait of the current phase if it is over; true if the phase has changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now) && self.enter(now, self.at + 1)
    }

    fn enter(&mut self, now: Instant, at: usize) -> bool {
        let Some((_, wait)) = self.list.get(at).filter(|_| at > self.at) else { return false };
        self.at = at;
        let streams = *self.streams_until.get_or_insert(now + self.streams);
        self.until = match *wait {
            Wait::Step => None,
            Wait::AtMost(time) => Some(now + time),
            Wait::Streams => Some(streams),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::origin;

    const LIST: [(char, Wait); 5] = [
        ('a', Wait::Step),
        ('b', Wait::AtMost(Duration::from_secs(1))),
        ('c', Wait::Step),
        ('d', Wait::Streams),
        ('e', Wait::Step),
    ];

    /// Every edge of the picture: the phase, the input or the seconds that pass, and the phase after it with the end of its wait.
    #[test]
    fn every_phase_follows_the_picture() {
        enum Event {
            Input(Input<char>),
            Second(u64),
        }
        use Event::{Input as In, Second};
        let all = [
            // A step that was not begun is not done, and time alone begins nothing.
            ("a", 0, In(Input::Done('a')), 'a', None),
            ("a", 0, Second(100), 'a', None),
            ("a", 0, In(Input::Signal), 'b', Some(1)),
            ("b", 0, In(Input::Done('d')), 'b', Some(1)),
            ("b", 0, In(Input::Done('b')), 'c', None),
            ("b", 0, In(Input::Signal), 'c', None),
            ("b", 0, Second(1), 'c', None),
            ("c", 2, Second(100), 'c', None),
            ("c", 2, In(Input::Done('c')), 'd', Some(8)),
            ("d", 3, Second(7), 'd', Some(8)),
            ("d", 3, Second(8), 'e', None),
            ("d", 3, In(Input::Signal), 'e', None),
            ("d", 3, In(Input::Done('d')), 'e', None),
            ("e", 4, In(Input::Signal), 'e', None),
            ("e", 4, In(Input::Done('e')), 'e', None),
            ("a", 0, In(Input::Skip('e')), 'e', None),
            ("c", 0, In(Input::Skip('e')), 'e', None),
            ("e", 0, In(Input::Skip('b')), 'e', None),
        ];
        let start = origin();
        for (number, (from, after, event, to, until)) in all.into_iter().enumerate() {
            let second = |seconds| start + Duration::from_secs(seconds);
            let mut drain = Drain::new(LIST, Duration::from_secs(8));
            while drain.phase() != from.chars().next().unwrap() {
                assert!(drain.handle(start, Input::Signal));
            }
            let changed = match event {
                In(input) => drain.handle(second(after), input),
                Second(at) => drain.handle_timeout(second(at)),
            };
            assert_eq!((drain.phase(), drain.poll_timeout()), (to, until.map(second)), "row {number}");
            assert_eq!(changed, from != to.to_string(), "row {number}");
        }
    }
}
