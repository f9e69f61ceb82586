//! One call to one activator, from its first SYN to its end. In: an address, messages for the activator. Out: events for the machine.
//!
//! Before the activator has proved that it knows the secret, nothing is said to it and none of its messages is passed on.
//!
//! Note: tonic gives the answer to a call only when its server has sent headers. An activator sends them, with its proof in them, before
//! it reads our first message.
#![expect(clippy::disallowed_methods, reason = "shell: a socket and deadlines")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::control::wire::control_client::ControlClient;
use liveedgecast_common::control::wire::{ActivatorSays, WorkerSays};
use liveedgecast_common::control::{ActivatorMessage, WorkerMessage};
use liveedgecast_common::discovery::AttemptId;
use liveedgecast_common::encryption::Protection;
use liveedgecast_common::event;
use liveedgecast_common::greet::{self, greet};
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::proof::Purpose;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::machine::{CallEnd, Input};

/// Messages that wait to be sent: a session for each stream of the largest capacity, all of which may end at once, and some more.
/// An activator that has let this many wait does not read; the call is given up.
pub(super) const UNSENT_MESSAGES: usize = 16 << 10;
/// Bytes of an activator's message at most: an offer is some 100 bytes, a kick's reason is text.
const MAX_MESSAGE: usize = 64 << 10;
/// Pings while nothing else comes: an activator whose machine vanished is noticed within this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time from the connection to the activator's proof: as long as Welcome may take after it.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last messages to be sent after hanging up.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Limits the lines about calls that end before they serve their purpose.
static LOST: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// A call that is about to be made.
pub(super) struct ControlCall {
    pub(super) attempt: AttemptId,
    pub(super) address: SocketAddr,
    /// How long the connection may take.
    pub(super) patience: Duration,
    pub(super) messages: mpsc::Receiver<WorkerMessage>,
    pub(super) events: mpsc::Sender<Input>,
    /// Cancelled when we hang up.
    pub(super) hung_up: CancellationToken,
}

impl ControlCall {
    /// Makes the call and reports everything of it, its end last.
    pub(super) async fn run(self, protection: Protection, secret: Secret) {
        let Self { attempt, address, patience, messages, events, hung_up } = self;
        let joined = AtomicBool::new(false);
        let conversation = async {
            let (channel, secret) = connect(address, patience, &protection, &secret).await?;
            let says = match timeout(PROOF_TIMEOUT, join(channel, messages, &secret)).await {
                Ok(says) => says.map_err(CallError::Call)?,
                Err(_) => return Err(CallError::Connect("no proof in time".to_owned())),
            };
            joined.store(true, Ordering::Relaxed);
            let _ = events.send(Input::Connected(attempt)).await;
            converse(attempt, says, &events).await.map_err(CallError::Call)
        };
        tokio::select! {
            end = conversation => {
                if let Err(error) = &end {
                    error.log(address, joined.load(Ordering::Relaxed));
                }
                if !hung_up.is_cancelled() {
                    let end = end.map_or_else(|error| error.end(), |()| CallEnd::Broken);
                    let _ = events.send(Input::Ended(attempt, end)).await;
                }
            }
            () = async { hung_up.cancelled().await; sleep(FLUSH_TIMEOUT).await } => {}
        }
    }
}

/// Why there is no call, or no call any more.
enum CallError {
    Connect(String),
    Call(Status),
}

impl CallError {
    fn end(&self) -> CallEnd {
        match self {
            Self::Call(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                CallEnd::Refused
            }
            Self::Connect(_) | Self::Call(_) => CallEnd::Broken,
        }
    }

    /// `joined`: both sides had proved themselves.
    fn log(&self, activator: SocketAddr, joined: bool) {
        match self {
            Self::Connect(error) => {
                tracing::debug!(event = event::CALL_FAILED, %activator, error, "activator not reached");
            }
            Self::Call(status) if self.end() == CallEnd::Refused => {
                let answer = LogSafe(status.message());
                tracing::error!(event = event::CALL_REFUSED, %activator, %answer, "registration refused, by the activator or by us");
            }
            Self::Call(status) => {
                let (code, answer) = (status.code(), LogSafe(status.message()));
                // A call that never served its purpose is dialed again ten times a second at first.
                if joined || LOST.is_due(now()) {
                    tracing::info!(event = event::CALL_LOST, %activator, ?code, %answer, "call to the activator lost");
                } else {
                    tracing::debug!(event = event::CALL_LOST, %activator, ?code, %answer, "call to the activator lost");
                }
            }
        }
    }
}

/// The channel, and the secret as it counts on its connection.
async fn connect(
    address: SocketAddr,
    patience: Duration,
    protection: &Protection,
    secret: &Secret,
) -> Result<(Channel, Secret), CallError> {
    let connected = greet::connect(address, patience, protection, secret, |endpoint| {
        endpoint
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
    });
    connected.await.map_err(|error| CallError::Connect(causes(&error)))
}

/// The activator's messages, once both sides have proved themselves.
async fn join(
    channel: Channel,
    messages: mpsc::Receiver<WorkerMessage>,
    secret: &Secret,
) -> Result<Streaming<ActivatorSays>, Status> {
    let greeted = greet(channel.clone(), secret, Purpose::Join).await?;
    let mut client = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let messages = ReceiverStream::new(messages).map(WorkerSays::from);
    greeted.proved(client.join(greeted.request(messages)?).await?)
}

async fn converse(
    attempt: AttemptId,
    mut says: Streaming<ActivatorSays>,
    events: &mpsc::Sender<Input>,
) -> Result<(), Status> {
    while let Some(ActivatorSays { say }) = says.message().await? {
        // Without content, a newer activator said what this version does not know.
        if let Some(message) = say.and_then(ActivatorMessage::parse) {
            let _ = events.send(Input::Said(attempt, message)).await;
        }
    }
    Ok(())
}

/// An error with its causes: tonic's own text is "transport error" only.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
