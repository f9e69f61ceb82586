//! One call to one activator, from its first SYN to its end. In: an address, what is to be said. Out: events for the machine.
//!
//! Nothing is said before the activator has proved that it knows the secret, and nothing that it says is passed on.
//!
//! Note: tonic gives the answer to a call only when its server has sent headers. An activator sends them, with its proof in them, before
//! it reads our first words.
#![expect(clippy::disallowed_methods, reason = "shell: a socket and deadlines")]

use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::control::wire::control_client::ControlClient;
use liveedgecast_common::control::wire::{ActivatorSays, WorkerSays};
use liveedgecast_common::control::{ActivatorMessage, WorkerMessage};
use liveedgecast_common::greet::greet;
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::proof::Purpose;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::machine::{Input, LinkEnd, LinkId};

/// Words that wait to be sent: a session for each stream of the largest capacity, all of which may end at once, and some.
/// An activator that has let this many wait does not read; the call is given up.
pub(super) const WORDS: usize = 16 << 10;
/// Largest word of an activator: an offer is some 100 bytes, a kick's reason is text.
const MOST_WORD: usize = 64 << 10;
/// Pings while nothing else comes: an activator whose machine vanished is noticed within this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection to the activator's proof: as long as Welcome may take after it.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// After hanging up: how long the last words may take to be sent.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a call is made with.
pub(super) struct Call {
    pub(super) link: LinkId,
    pub(super) address: SocketAddr,
    pub(super) patience: Duration,
    pub(super) words: mpsc::Receiver<WorkerMessage>,
    pub(super) events: mpsc::Sender<Input>,
    /// Set when we hang up.
    pub(super) hung_up: CancellationToken,
}

impl Call {
    /// Makes the call and reports everything of it, its end last.
    pub(super) async fn run(self, secret: Secret) {
        let Self { link, address, patience, words, events, hung_up } = self;
        let conversation = async {
            let channel = connect(address, patience).await?;
            let says = match timeout(PROOF_TIMEOUT, join(channel, words, &secret)).await {
                Ok(says) => says.map_err(Failure::Call)?,
                Err(_) => return Err(Failure::Connect("no proof in time".to_owned())),
            };
            let _ = events.send(Input::Connected(link)).await;
            converse(link, says, &events).await.map_err(Failure::Call)
        };
        tokio::select! {
            end = conversation => {
                if let Err(failure) = &end {
                    failure.log(address);
                }
                if !hung_up.is_cancelled() {
                    let end = end.map_or_else(|failure| failure.end(), |()| LinkEnd::Broken);
                    let _ = events.send(Input::Ended(link, end)).await;
                }
            }
            () = async { hung_up.cancelled().await; sleep(LAST_WORDS).await } => {}
        }
    }
}

enum Failure {
    Connect(String),
    Call(Status),
}

impl Failure {
    fn end(&self) -> LinkEnd {
        match self {
            Self::Call(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                LinkEnd::Refused
            }
            Self::Connect(_) | Self::Call(_) => LinkEnd::Broken,
        }
    }

    fn log(&self, activator: SocketAddr) {
        match self {
            Self::Connect(error) => tracing::debug!(%activator, error, "no activator there"),
            Self::Call(status) if self.end() == LinkEnd::Refused => {
                tracing::error!(%activator, answer = %LogSafe(status.message()), "registration refused, by the activator or by us");
            }
            Self::Call(status) => {
                tracing::info!(%activator, code = ?status.code(), answer = %LogSafe(status.message()), "the call broke");
            }
        }
    }
}

async fn connect(address: SocketAddr, patience: Duration) -> Result<Channel, Failure> {
    let failed = |error: tonic::transport::Error| Failure::Connect(causes(&error));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match timeout(patience, endpoint.connect()).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(Failure::Connect(format!("no connection within {} ms", patience.as_millis()))),
    }
}

/// Both sides prove themselves; then the call is open.
async fn join(
    channel: Channel,
    words: mpsc::Receiver<WorkerMessage>,
    secret: &Secret,
) -> Result<Streaming<ActivatorSays>, Status> {
    let greeted = greet(channel.clone(), secret, Purpose::Join).await?;
    let mut client = ControlClient::new(channel).max_decoding_message_size(MOST_WORD);
    let words = ReceiverStream::new(words).map(WorkerSays::from);
    greeted.proved(client.join(greeted.request(words)?).await?)
}

async fn converse(
    link: LinkId,
    mut says: Streaming<ActivatorSays>,
    events: &mpsc::Sender<Input>,
) -> Result<(), Status> {
    while let Some(ActivatorSays { say }) = says.message().await? {
        // Nothing in it: a newer activator said something that we do not know.
        if let Some(message) = say.and_then(ActivatorMessage::parse) {
            let _ = events.send(Input::Said(link, message)).await;
        }
    }
    Ok(())
}

/// An error with its causes: tonic's own says "transport error" only.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
