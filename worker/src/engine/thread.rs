//! One thread and its streams. In: requests of the engine's task. Out: notices that a stream's task has ended, now or earlier.
//! Each stream's task is one task of the thread's runtime: a panic in it ends that task, and nothing else.
//!
//! Note: there is no need to watch tasks for panics. A task that has ended for any reason has dropped the receiver of its commands, and
//! that can be waited for.
//!
//! Note: the future that takes requests is polled when a request wakes it. With a `LocalSet` it was polled at every wake-up of any stream.
#![expect(clippy::disallowed_methods, reason = "shell: a thread and its tasks")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::control::ExcerptRefusal;
use liveedgecast_common::event;
use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::StreamId;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::sys::time_slice::set_time_slice;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::forward;
use super::table::StreamSlot;
use crate::receive::{self, FetchedStream};
use crate::stream::{Contest, ExcerptRequest, IncomingStream, PublisherHandoff, Report, StreamCommand};

/// Orders that wait for one thread. A thread takes them at once, so only a burst of offers fills the channel.
const REQUESTS: usize = 256;
/// Notices that wait in the thread: more come only when many streams end at once, each in a task of its own.
const NOTICES: usize = 64;

/// Limit of log lines about streams that take no commands. Publishers of a name that such a stream has can come as often as they like, and
/// each command to all streams meets every stream that hangs.
static DEAF: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Starts a stream's task in the current `LocalRuntime` and returns the sender of its commands: [`crate::stream::spawn`], or a stand-in in tests.
pub type StartStream = Arc<dyn Fn(IncomingStream, mpsc::Sender<Report>) -> mpsc::Sender<StreamCommand> + Send + Sync>;

/// Requests to a thread.
pub(super) enum ThreadRequest {
    /// Begin a stream.
    Start(StreamSlot, FetchedStream),
    /// Give a publisher to a stream of this thread.
    Attach(StreamSlot, FetchedStream),
    /// Ask a stream for upstreams.
    Contend(StreamSlot, Contest),
    /// End a stream.
    Kick(StreamSlot, String),
    /// Have a stream make an excerpt.
    Excerpt(StreamSlot, ExcerptRequest),
    /// End a stream that runs under a lower epoch.
    Fence(StreamSlot, u64),
    /// Tell every stream whether no activator is there.
    Alone(bool),
    /// Ask every stream to go back to its activator.
    HandBack,
}

/// Notices of a thread.
pub(super) enum ThreadNotice {
    /// The stream's task has ended.
    TaskEnd(StreamSlot),
    /// The stream to attach to had ended.
    Missed(StreamSlot, Box<FetchedStream>),
    /// The stream that has an upstream of this one does not take commands.
    Unheard(StreamId),
}

/// The streams of a thread.
type ThreadStreams = Rc<RefCell<HashMap<StreamSlot, mpsc::Sender<StreamCommand>>>>;

struct StreamThread {
    start: StartStream,
    reports: mpsc::Sender<Report>,
    notices: mpsc::Sender<ThreadNotice>,
    streams: ThreadStreams,
    /// The last value of [`ThreadRequest::Alone`].
    alone: Cell<bool>,
}

/// Starts a thread, which ends when the sender of its requests is dropped.
///
/// # Errors
/// The kernel has no thread, or no event queue for it.
pub(super) fn start(
    number: usize,
    start: StartStream,
    reports: mpsc::Sender<Vec<Report>>,
    notices: mpsc::Sender<ThreadNotice>,
) -> io::Result<mpsc::Sender<ThreadRequest>> {
    let (sender, mut requests) = mpsc::channel(REQUESTS);
    let (built, runtime) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        // The thread that takes offers has a short slice, which this one has inherited: bursts of media are better handled in one go.
        let _ = set_time_slice(Duration::ZERO);
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(built.send(Err(error))),
        };
        let _ = built.send(Ok(()));
        let (own_reports, reports_in) = mpsc::channel(forward::BATCH);
        let (own_notices, notices_in) = mpsc::channel(NOTICES);
        runtime.spawn_local(forward::forward(reports_in, notices_in, (reports, notices)));
        let (reports, notices) = (own_reports, own_notices);
        let thread =
            StreamThread { start, reports, notices, streams: ThreadStreams::default(), alone: Cell::new(false) };
        runtime.block_on(async {
            while let Some(request) = requests.recv().await {
                thread.handle(request);
            }
        });
    };
    std::thread::Builder::new().name(format!("streams-{number}")).spawn(run)?;
    runtime.recv().map_err(io::Error::other)??;
    Ok(sender)
}

impl StreamThread {
    /// Handles a request without waiting: a stream that hangs must not hold up the others.
    fn handle(&self, request: ThreadRequest) {
        match request {
            ThreadRequest::Start(slot, fetched) => self.begin(slot, fetched),
            ThreadRequest::Attach(slot, fetched) => self.attach(slot, fetched),
            ThreadRequest::Contend(slot, contest) => self.contend(slot, contest),
            ThreadRequest::Kick(slot, reason) => self.tell(slot, StreamCommand::Kick(reason)),
            ThreadRequest::Excerpt(slot, request) => self.ask(slot, request),
            ThreadRequest::Fence(slot, epoch) => self.tell(slot, StreamCommand::Fence(epoch)),
            ThreadRequest::Alone(alone) => {
                self.alone.set(alone);
                self.slots().into_iter().for_each(|slot| self.tell(slot, StreamCommand::Alone(alone)));
            }
            ThreadRequest::HandBack => {
                self.slots().into_iter().for_each(|slot| self.tell(slot, StreamCommand::HandBack))
            }
        }
    }

    fn slots(&self) -> Vec<StreamSlot> {
        self.streams.borrow().keys().copied().collect()
    }

    fn begin(&self, slot: StreamSlot, fetched: FetchedStream) {
        let started = incoming(fetched).map(|incoming| {
            let reports = self.reports.clone();
            // The restored state comes from outside; a mistake in reading it must not take the thread's other streams along.
            catch_unwind(AssertUnwindSafe(|| (self.start)(incoming, reports)))
        });
        match started {
            Ok(Ok(commands)) => {
                self.streams.borrow_mut().insert(slot, commands.clone());
                if self.alone.get() {
                    self.tell(slot, StreamCommand::Alone(true));
                }
                let (streams, notices) = (Rc::clone(&self.streams), self.notices.clone());
                spawn_local(async move {
                    commands.closed().await;
                    streams.borrow_mut().remove(&slot);
                    let _ = notices.send(ThreadNotice::TaskEnd(slot)).await;
                });
            }
            Ok(Err(_)) => self.notice(ThreadNotice::TaskEnd(slot)),
            Err(error) => {
                tracing::error!(event = event::STREAM_UNUSABLE, %error, "stream's sockets could not be used");
                self.notice(ThreadNotice::TaskEnd(slot));
            }
        }
    }

    fn attach(&self, slot: StreamSlot, fetched: FetchedStream) {
        let commands = self.streams.borrow().get(&slot).cloned();
        let place = commands.as_ref().map(mpsc::Sender::try_reserve);
        match place {
            Some(Ok(place)) => match incoming(fetched) {
                Ok(incoming) => place.send(StreamCommand::Attach(Box::new(incoming))),
                Err(error) => {
                    tracing::error!(event = event::STREAM_UNUSABLE, %error, "stream's sockets could not be used")
                }
            },
            Some(Err(mpsc::error::TrySendError::Full(()))) => {
                if DEAF.is_due(Instant::now()) {
                    let stream = &fetched.assignment.stream_id;
                    tracing::warn!(event = event::STREAM_DEAF, %stream, "stream refused: the stream of its identity takes no commands; logged rarely");
                }
                spawn_local(receive::refuse(fetched.connection, Frame::Returned { why: Decline::Other }));
            }
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => {
                self.notice(ThreadNotice::Missed(slot, Box::new(fetched)));
            }
        }
    }

    /// Asks a stream for upstreams. A stream that has ended gives no answer: the notice of its end is one.
    fn contend(&self, slot: StreamSlot, contest: Contest) {
        let commands = self.streams.borrow().get(&slot).cloned();
        let Some(Err(mpsc::error::TrySendError::Full(StreamCommand::Contend(contest)))) =
            commands.map(|commands| commands.try_send(StreamCommand::Contend(contest)))
        else {
            return;
        };
        if DEAF.is_due(Instant::now()) {
            let stream = &contest.stream_id;
            tracing::warn!(event = event::STREAM_DEAF, %stream, "stream refused: the stream that has its upstream takes no commands; logged rarely");
        }
        self.notice(ThreadNotice::Unheard(contest.stream_id));
    }

    fn tell(&self, slot: StreamSlot, command: StreamCommand) {
        let commands = self.streams.borrow().get(&slot).cloned();
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = commands.map(|commands| commands.try_send(command))
            && DEAF.is_due(Instant::now())
        {
            tracing::warn!(event = event::STREAM_DEAF, "command dropped: its stream takes none; logged rarely");
        }
    }

    /// Asks a stream for an excerpt, unless anything waits for the stream already: questions take no room from commands that change something.
    fn ask(&self, slot: StreamSlot, request: ExcerptRequest) {
        let Some(commands) = self.streams.borrow().get(&slot).cloned() else { return };
        if commands.capacity() < commands.max_capacity() {
            let _ = request.answer.send(Err(ExcerptRefusal::Busy));
        } else {
            let _ = commands.try_send(StreamCommand::Excerpt(request));
        }
    }

    fn notice(&self, notice: ThreadNotice) {
        let notices = self.notices.clone();
        spawn_local(async move {
            let _ = notices.send(notice).await;
        });
    }
}

/// Puts a fetched stream into this thread's runtime.
fn incoming(fetched: FetchedStream) -> io::Result<IncomingStream> {
    let control = fetched.connection.attach()?;
    let publisher = match fetched.publisher {
        Some(socket) => PublisherHandoff::Descriptor { socket: TcpStream::from_std(socket)?, control },
        None => PublisherHandoff::Link { control },
    };
    Ok(IncomingStream { assignment: fetched.assignment, publisher, ring: fetched.ring })
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::control::ExcerptPart;
    use liveedgecast_common::handoff::Transport;

    use super::*;
    use crate::testkit::{assignment, fetched_stream, soon};

    #[tokio::test]
    async fn stream_that_begins_without_an_activator_is_told_so() {
        let (told, mut tells) = mpsc::channel(8);
        let stream: StartStream = Arc::new(move |_, _| {
            let (sender, mut commands) = mpsc::channel(2);
            let told = told.clone();
            spawn_local(async move {
                while let Some(command) = commands.recv().await {
                    if let StreamCommand::Alone(alone) = command {
                        told.send(alone).await.unwrap();
                    }
                }
            });
            sender
        });
        let ((reports, _reports), (notices, _notices)) = (mpsc::channel(8), mpsc::channel(8));
        let requests = start(0, stream, reports, notices).unwrap();
        requests.send(ThreadRequest::Alone(true)).await.ok().unwrap();
        let (fetched, _activator) = fetched_stream(assignment("a", "a", Transport::Link)).await;
        requests.send(ThreadRequest::Start(StreamSlot(0), fetched)).await.ok().unwrap();
        assert_eq!(soon(tells.recv()).await, Some(true));
    }

    #[tokio::test]
    async fn questions_leave_the_room_for_commands_free() {
        let (hand_over, handed) = std::sync::mpsc::channel();
        // A stream that takes nothing: its commands wait where the test sees them.
        let stream: StartStream = Arc::new(move |_, _| {
            let (sender, commands) = mpsc::channel(4);
            hand_over.send(commands).unwrap();
            sender
        });
        let ((reports, _reports), (notices, _notices)) = (mpsc::channel(8), mpsc::channel(8));
        let requests = start(0, stream, reports, notices).unwrap();
        let (fetched, _activator) = fetched_stream(assignment("a", "a", Transport::Link)).await;
        requests.send(ThreadRequest::Start(StreamSlot(0), fetched)).await.ok().unwrap();
        let mut answers = Vec::new();
        for _ in 0..10 {
            let (answer, made) = tokio::sync::oneshot::channel();
            let request = ExcerptRequest { part: ExcerptPart::All, answer };
            requests.send(ThreadRequest::Excerpt(StreamSlot(0), request)).await.ok().unwrap();
            answers.push(made);
        }
        for made in answers.drain(1..) {
            assert_eq!(soon(made).await.unwrap(), Err(ExcerptRefusal::Busy));
        }
        requests.send(ThreadRequest::Fence(StreamSlot(0), 7)).await.ok().unwrap();
        let mut commands = handed.try_recv().unwrap();
        assert!(matches!(soon(commands.recv()).await, Some(StreamCommand::Excerpt(_))));
        assert!(matches!(soon(commands.recv()).await, Some(StreamCommand::Fence(7))));
    }
}
