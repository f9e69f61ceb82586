//! The one timer of all publishers. In: publishers with their schedules. Out: each message written to its socket when it is due.
//!
//! Note: timers of tokio fire on whole milliseconds, so that hundreds of publishers would send in the same moment. A timerfd has the
//! resolution of the kernel's clock.
//!
//! Note: a message that the socket has no room for is kept, with the time at which it was due to be written, and the messages behind it too:
//! a publisher that waited with writing would hide the time that its messages wait.
#![expect(clippy::disallowed_methods, reason = "shell: a timer and a task")]

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::rc::Rc;

use liveedgecast_common::rtmp::{MessageHeader, type_id, writer};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::BenchClock;
use super::payload::{self, PayloadStamp, Shape};
use super::procfs;
use super::schedule::Schedule;

/// Chunk size that OBS uses.
pub const CHUNK_SIZE: u32 = 4096;
/// Messages sent before the sink gets its turn.
const TURN: usize = 8;

/// A publisher whose messages the pacer writes.
#[derive(Debug)]
pub struct Paced {
    /// Connection to the relay.
    pub socket: Rc<TcpStream>,
    /// Bytes that the socket had no room for.
    pub pending: Vec<u8>,
    /// Numbered messages written, or pending.
    pub messages: u64,
    /// True if the connection has failed.
    pub cut: bool,
    /// Notified when bytes are pending, and when the connection has failed.
    pub wake: Rc<Notify>,
    stream: u32,
    begin: u64,
    schedule: Schedule,
}

/// What the pacer has done since [`Pacer::reset`].
#[derive(Clone, Debug, Default)]
pub struct PacerTally {
    /// CPU seconds spent on writing.
    pub busy: f64,
    /// Nanoseconds from the time at which a message was due to the time at which it was written.
    pub late: Vec<u64>,
}

struct Inner {
    due: BinaryHeap<Reverse<(u64, usize)>>,
    // Places are not used again, so that a deadline never finds another publisher than its own.
    publishers: Vec<Option<Paced>>,
    tally: PacerTally,
    body: Vec<u8>,
    out: Vec<u8>,
}

/// The timer of all publishers of one thread.
#[derive(Clone)]
pub struct Pacer {
    clock: BenchClock,
    inner: Rc<RefCell<Inner>>,
    /// Notified when a publisher was added whose first message is due before all others.
    sooner: Rc<Notify>,
}

impl Pacer {
    /// Starts the pacer on the current local set.
    ///
    /// # Errors
    /// The kernel has no timer left.
    pub fn start(clock: BenchClock) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // A timer is read as a pipe is.
        let timer = pipe::Receiver::from_file_unchecked(File::from(timer))?;
        let inner = Inner {
            due: BinaryHeap::new(),
            publishers: Vec::new(),
            tally: PacerTally::default(),
            body: Vec::new(),
            out: Vec::new(),
        };
        let pacer = Self { clock, inner: Rc::new(RefCell::new(inner)), sooner: Rc::default() };
        let running = pacer.clone();
        // It ends with the local set.
        tokio::task::spawn_local(async move { running.run(timer).await });
        Ok(pacer)
    }

    /// Begins to write a publisher's messages, the first one at once. Returns its place.
    #[must_use]
    pub fn add(&self, socket: Rc<TcpStream>, wake: Rc<Notify>, stream: u32, schedule: Schedule) -> usize {
        let begin = self.clock.now();
        let mut inner = self.inner.borrow_mut();
        let place = inner.publishers.len();
        let paced = Paced { socket, pending: Vec::new(), messages: 0, cut: false, wake, stream, begin, schedule };
        inner.publishers.push(Some(paced));
        inner.due.push(Reverse((begin, place)));
        self.sooner.notify_one();
        place
    }

    /// Stops writing a publisher's messages.
    ///
    /// # Panics
    /// Nobody has this place.
    #[must_use]
    pub fn remove(&self, place: usize) -> Paced {
        self.inner.borrow_mut().publishers[place].take().expect("a publisher leaves once")
    }

    /// Writes what is pending of a publisher, as far as the socket has room. `false`: something is left.
    #[must_use]
    pub fn flush(&self, place: usize) -> bool {
        let mut inner = self.inner.borrow_mut();
        let Some(paced) = inner.publishers[place].as_mut() else { return true };
        while !paced.pending.is_empty() && !paced.cut {
            match paced.socket.try_write(&paced.pending) {
                Ok(written) => drop(paced.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => paced.cut = true,
            }
        }
        true
    }

    /// True if the connection of a publisher has failed.
    #[must_use]
    pub fn is_cut(&self, place: usize) -> bool {
        self.inner.borrow().publishers[place].as_ref().is_none_or(|paced| paced.cut)
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        self.inner.borrow_mut().tally = PacerTally::default();
    }

    /// What was counted since then.
    #[must_use]
    pub fn tally(&self) -> PacerTally {
        self.inner.borrow().tally.clone()
    }

    async fn run(self, mut timer: pipe::Receiver) {
        // Longer than what a timer gives, so that tokio knows without another call that nothing is left.
        let mut fired = [0; 16];
        loop {
            let next = self.inner.borrow_mut().turn(self.clock);
            let wait = match next {
                Some(0) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Some(wait) => wait,
                None => {
                    self.sooner.notified().await;
                    continue;
                }
            };
            // It replaces an earlier time, and takes back that it has passed.
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let at = Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
            let armed = Itimerspec { it_interval: zero, it_value: at };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &armed).expect("a timer takes every time to come");
            tokio::select! {
                biased;
                read = timer.read(&mut fired) => { read.expect("a timer fires"); },
                () = self.sooner.notified() => {}
            }
        }
    }
}

impl std::fmt::Debug for Pacer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

impl Inner {
    /// Writes some of the messages that are due. Returns nanoseconds until the next one, 0 if more are due, `None` without publishers.
    fn turn(&mut self, clock: BenchClock) -> Option<u64> {
        let (mut now, before) = (clock.now(), procfs::this_thread());
        for _ in 0..TURN {
            let &Reverse((due, place)) = self.due.peek()?;
            if due > now {
                break;
            }
            self.due.pop();
            if let Some(next) = self.send(place, now) {
                self.tally.late.push(now - due);
                self.due.push(Reverse((next, place)));
            }
            now = clock.now();
        }
        self.tally.busy += procfs::this_thread() - before;
        self.due.peek().map(|Reverse((due, _))| due.saturating_sub(now))
    }

    /// Writes the next message of a publisher; returns the time at which the one behind it is due.
    fn send(&mut self, place: usize, now: u64) -> Option<u64> {
        let paced = self.publishers[place].as_mut().filter(|paced| !paced.cut)?;
        let due = paced.schedule.next();
        let stamp = PayloadStamp { stream: paced.stream, number: paced.messages, sent: now };
        self.body.clear();
        payload::write(&mut self.body, due.shape, &stamp, due.len);
        let type_id = if due.shape == Shape::Audio { type_id::AUDIO } else { type_id::VIDEO };
        let header =
            MessageHeader { csid: 4, timestamp: (due.at / 1_000_000) as u32, length: 0, type_id, stream_id: 1 };
        self.out.clear();
        writer::write_message(&mut self.out, &header, &self.body, CHUNK_SIZE);
        let mut rest = self.out.as_slice();
        while !rest.is_empty() && paced.pending.is_empty() && !paced.cut {
            match paced.socket.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => paced.cut = true,
            }
        }
        if !rest.is_empty() {
            paced.pending.extend_from_slice(rest);
            paced.wake.notify_one();
        }
        paced.messages += 1;
        paced.schedule.advance();
        Some(paced.begin + paced.schedule.next().at)
    }
}
