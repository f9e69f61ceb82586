//! One thread and its streams. In: orders of the engine's task. Out: notices that a stream's task is gone, or was gone
//! already. Each stream's task is one task of a `LocalSet`: a panic in it ends that task, and nothing else.
//!
//! What surprised us: there is no need to watch tasks for panics. A task that is gone for whatever reason has dropped the
//! receiver of its commands, and that can be waited for.
#![expect(clippy::disallowed_methods, reason = "shell: a thread and its tasks")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::StreamId;
use liveedgecast_common::log_limiter::LogLimiter;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::table::Slot;
use crate::receive::{self, Parcel};
use crate::stream::{Command, Contest, Incoming, Publisher, Report};

/// Orders that one thread has not looked at: it looks at once, so this is a burst of offers.
const ORDERS: usize = 256;

/// Log lines about streams that do not listen. Publishers of a name that such a stream has can come as often as they like, and each command to
/// all streams meets every one that hangs.
static DEAF: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Starts a stream's task on the current `LocalSet` and gives the way to it. Ours is [`crate::stream::spawn`].
pub type Start = Arc<dyn Fn(Incoming, mpsc::Sender<Report>) -> mpsc::Sender<Command> + Send + Sync>;

/// What a thread is to do.
pub(super) enum Order {
    /// Begin a stream.
    Start(Slot, Parcel),
    /// Give it to a stream that is here.
    Attach(Slot, Parcel),
    /// A stream is asked for upstreams.
    Contend(Slot, Contest),
    /// End a stream.
    Kick(Slot, String),
    /// End what a stream has under a lower epoch.
    Fence(Slot, u64),
    /// Every stream: whether no activator is there.
    Alone(bool),
    /// Every stream is to go back to its activator.
    HandBack,
}

/// What a thread says.
pub(super) enum Notice {
    /// The stream's task is gone.
    Gone(Slot),
    /// The stream to attach to was gone.
    Missed(Slot, Box<Parcel>),
    /// The stream that has an upstream of this one does not take commands.
    Unheard(StreamId),
}

/// The streams of a thread.
type Streams = Rc<RefCell<HashMap<Slot, mpsc::Sender<Command>>>>;

struct Desk {
    start: Start,
    reports: mpsc::Sender<Report>,
    notices: mpsc::Sender<Notice>,
    streams: Streams,
    /// The last value of [`Order::Alone`].
    alone: Cell<bool>,
}

/// Starts a thread; it ends when the sender of its orders is dropped.
///
/// # Errors
/// The kernel has no thread, or no event queue for it.
pub(super) fn start(
    number: usize,
    start: Start,
    reports: mpsc::Sender<Report>,
    notices: mpsc::Sender<Notice>,
) -> io::Result<mpsc::Sender<Order>> {
    // Made here, so that its errors are known here.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (sender, mut orders) = mpsc::channel(ORDERS);
    let run = move || {
        let desk = Desk { start, reports, notices, streams: Streams::default(), alone: Cell::new(false) };
        let streams = LocalSet::new();
        streams.block_on(&runtime, async {
            while let Some(order) = orders.recv().await {
                desk.obey(order);
            }
        });
    };
    std::thread::Builder::new().name(format!("streams-{number}")).spawn(run)?;
    Ok(sender)
}

impl Desk {
    /// Never waits: a stream that hangs must not hold up the others.
    fn obey(&self, order: Order) {
        match order {
            Order::Start(slot, parcel) => self.begin(slot, parcel),
            Order::Attach(slot, parcel) => self.attach(slot, parcel),
            Order::Contend(slot, contest) => self.contend(slot, contest),
            Order::Kick(slot, reason) => self.tell(slot, Command::Kick(reason)),
            Order::Fence(slot, epoch) => self.tell(slot, Command::Fence(epoch)),
            Order::Alone(alone) => {
                self.alone.set(alone);
                self.slots().into_iter().for_each(|slot| self.tell(slot, Command::Alone(alone)));
            }
            Order::HandBack => self.slots().into_iter().for_each(|slot| self.tell(slot, Command::HandBack)),
        }
    }

    fn slots(&self) -> Vec<Slot> {
        self.streams.borrow().keys().copied().collect()
    }

    fn begin(&self, slot: Slot, parcel: Parcel) {
        let started = incoming(parcel).map(|incoming| {
            let reports = self.reports.clone();
            // What is restored comes from outside; a mistake of ours in reading it must not take the thread's streams along.
            catch_unwind(AssertUnwindSafe(|| (self.start)(incoming, reports)))
        });
        match started {
            Ok(Ok(commands)) => {
                self.streams.borrow_mut().insert(slot, commands.clone());
                if self.alone.get() {
                    self.tell(slot, Command::Alone(true));
                }
                let (streams, notices) = (Rc::clone(&self.streams), self.notices.clone());
                spawn_local(async move {
                    commands.closed().await;
                    streams.borrow_mut().remove(&slot);
                    let _ = notices.send(Notice::Gone(slot)).await;
                });
            }
            Ok(Err(_)) => self.notice(Notice::Gone(slot)),
            Err(error) => {
                tracing::error!(%error, "a stream's sockets cannot be used");
                self.notice(Notice::Gone(slot));
            }
        }
    }

    fn attach(&self, slot: Slot, parcel: Parcel) {
        let commands = self.streams.borrow().get(&slot).cloned();
        let place = commands.as_ref().map(mpsc::Sender::try_reserve);
        match place {
            Some(Ok(place)) => match incoming(parcel) {
                Ok(incoming) => place.send(Command::Attach(Box::new(incoming))),
                Err(error) => tracing::error!(%error, "a stream's sockets cannot be used"),
            },
            Some(Err(mpsc::error::TrySendError::Full(()))) => {
                if DEAF.is_due(Instant::now()) {
                    let stream = &parcel.assignment.stream_id;
                    tracing::warn!(%stream, "the stream that has this identity does not listen; said once in a while");
                }
                spawn_local(receive::refuse(parcel.connection, Frame::Returned { why: Decline::Other }));
            }
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => {
                self.notice(Notice::Missed(slot, Box::new(parcel)));
            }
        }
    }

    /// A stream that is gone gives no answer: the notice of its end is one.
    fn contend(&self, slot: Slot, contest: Contest) {
        let commands = self.streams.borrow().get(&slot).cloned();
        let Some(Err(mpsc::error::TrySendError::Full(Command::Contend(contest)))) =
            commands.map(|commands| commands.try_send(Command::Contend(contest)))
        else {
            return;
        };
        if DEAF.is_due(Instant::now()) {
            let stream = &contest.stream_id;
            tracing::warn!(%stream, "a stream that has an upstream of this one does not listen; said once in a while");
        }
        self.notice(Notice::Unheard(contest.stream_id));
    }

    fn tell(&self, slot: Slot, command: Command) {
        let commands = self.streams.borrow().get(&slot).cloned();
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = commands.map(|commands| commands.try_send(command))
            && DEAF.is_due(Instant::now())
        {
            tracing::warn!("a stream does not listen to commands; said once in a while");
        }
    }

    fn notice(&self, notice: Notice) {
        let notices = self.notices.clone();
        spawn_local(async move {
            let _ = notices.send(notice).await;
        });
    }
}

/// Puts a parcel into this thread's runtime.
fn incoming(parcel: Parcel) -> io::Result<Incoming> {
    let control = parcel.connection.attach()?;
    let publisher = match parcel.publisher {
        Some(socket) => Publisher::Descriptor { socket: TcpStream::from_std(socket)?, control },
        None => Publisher::Link { control },
    };
    Ok(Incoming { assignment: parcel.assignment, publisher, ring: parcel.ring })
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::handoff::Transport;

    use super::*;
    use crate::testkit::{assignment, parcel, soon};

    #[tokio::test]
    async fn a_stream_that_begins_without_an_activator_is_told_so() {
        let (told, mut tells) = mpsc::channel(8);
        let stream: Start = Arc::new(move |_, _| {
            let (sender, mut commands) = mpsc::channel(2);
            let told = told.clone();
            spawn_local(async move {
                while let Some(command) = commands.recv().await {
                    if let Command::Alone(alone) = command {
                        told.send(alone).await.unwrap();
                    }
                }
            });
            sender
        });
        let ((reports, _reports), (notices, _notices)) = (mpsc::channel(8), mpsc::channel(8));
        let orders = start(0, stream, reports, notices).unwrap();
        orders.send(Order::Alone(true)).await.ok().unwrap();
        let (parcel, _activator) = parcel(assignment("a", "a", Transport::Link)).await;
        orders.send(Order::Start(Slot(0), parcel)).await.ok().unwrap();
        assert_eq!(soon(tells.recv()).await, Some(true));
    }
}
