//! One call to one peer, from its first SYN to its end. In: an address. Out: the peer's messages, bounded and read one by one, and the end
//! of the call last. Next: `machine`.

use std::net::SocketAddr;

use liveedgecast_common::control::is_stream_id;
use liveedgecast_common::control::limits::{MAX_EPOCH, MAX_IDENTITIES};
use liveedgecast_common::discovery::AttemptId;
use liveedgecast_common::encryption::Protection;
use liveedgecast_common::event;
use liveedgecast_common::greet::{connect, greet};
use liveedgecast_common::key::{Identity, LogSafe, MAX_NAME_BYTES, Secret, is_instance_name};
use liveedgecast_common::proof::Purpose;
use liveedgecast_common::setting::MAX_CAPACITY;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::facts::{PeerMessage, PeerWelcome};
use super::limits::{CONNECT_TIMEOUT, MAX_MESSAGE, PING_EVERY, PING_TIMEOUT};
use super::machine::Input;
use super::proto::peers_client::PeersClient;
use super::proto::says::Say;
use super::proto::{Held, Hello, Worker};
use crate::dispatch::{Elsewhere, PeerChange, PeerStream, WorkerTally};
use crate::net::CurrentTokens;

/// A call that is about to be made.
pub(super) struct PeerCall {
    pub(super) attempt: AttemptId,
    pub(super) address: SocketAddr,
    pub(super) protection: Protection,
    pub(super) secrets: CurrentTokens,
    /// Name of this activator.
    pub(super) name: String,
    /// Control port at which the peer can follow this activator.
    pub(super) control_port: u16,
    pub(super) events: mpsc::Sender<Input>,
}

impl PeerCall {
    /// Follows the peer until the end of the call, and reports that too.
    pub(super) async fn run(self) {
        let address = self.address;
        match self.listen().await {
            Ok(()) => debug!(event = event::PEER_ENDED, peer = %address, "call ended by the peer"),
            Err(status) if matches!(status.code(), Code::Unauthenticated | Code::Unimplemented) => {
                let answer = LogSafe(status.message());
                warn!(event = event::PEER_REFUSED, peer = %address, %answer, "call refused, by the peer or by us");
            }
            Err(status) => debug!(event = event::PEER_FAILED, peer = %address, %status, "peer not followed"),
        }
        let _ = self.events.send(Input::Ended(self.attempt)).await;
    }

    /// Follows with the secret in force, and where that is refused with the one before: the peer may not have the new tokens yet.
    async fn listen(&self) -> Result<(), Status> {
        let mut refused = Status::unauthenticated("there is no secret");
        for secret in self.secrets.of_activators() {
            match self.follow(&secret).await {
                Err(status) if status.code() == Code::Unauthenticated => refused = status,
                ended => return ended,
            }
        }
        Err(refused)
    }

    async fn follow(&self, secret: &Secret) -> Result<(), Status> {
        let connected = connect(self.address, CONNECT_TIMEOUT, &self.protection, secret, |endpoint| {
            endpoint.http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT).keep_alive_while_idle(true)
        });
        let (channel, secret) = connected.await.map_err(|error| Status::unavailable(error.to_string()))?;
        let greeted = greet(channel.clone(), &secret, Purpose::Follow).await?;
        let mut client = PeersClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let hello = Hello { activator: self.name.clone(), control_port: self.control_port.into() };
        let mut says = greeted.proved(client.follow(greeted.request(hello)?).await?)?;
        while let Some(said) = says.message().await? {
            // A message without content comes from a newer activator, of a kind that this version does not know.
            if let Some(message) = said.say.map(parse).transpose()?.flatten() {
                let _ = self.events.send(Input::Said(self.attempt, message)).await;
            }
        }
        Ok(())
    }
}

/// The message in the machine's terms; `None` for a fact that is out of bounds.
///
/// # Errors
/// The peer's name is not a valid name, so none of its facts can be used.
fn parse(say: Say) -> Result<Option<PeerMessage>, Status> {
    Ok(match say {
        Say::Welcome(welcome) if !is_instance_name(&welcome.activator) => {
            return Err(Status::invalid_argument("the peer has no name that can be shown"));
        }
        Say::Welcome(welcome) => Some(PeerMessage::Welcome(PeerWelcome {
            name: welcome.activator,
            // A port out of range counts as 0: the peer is found at the dialed address.
            control_port: u16::try_from(welcome.control_port).unwrap_or_default(),
            started: welcome.started,
        })),
        Say::Held(held) => held_change(held).map(PeerMessage::Change),
        Say::Gone(number) => Some(PeerMessage::Change(PeerChange::Gone(number))),
        Say::Worker(worker) => worker_change(worker).map(PeerMessage::Change),
        Say::WorkerGone(name) => Some(PeerMessage::Change(PeerChange::WorkerGone(name))),
        Say::Acts(acts) => Some(PeerMessage::Acts(acts)),
        Say::Synced(_) => Some(PeerMessage::Synced),
        Say::Goodbye(_) => Some(PeerMessage::Goodbye),
    })
}

fn held_change(held: Held) -> Option<PeerChange> {
    let Held { number, identities, app, entered, waiting, provided, worker, epoch, stream_id, publisher, client } =
        held;
    let good = is_app(&app)
        && (worker.is_empty() || is_instance_name(&worker))
        && identities.len() <= MAX_IDENTITIES
        && epoch <= MAX_EPOCH;
    let identities = identities.iter().filter_map(|bytes| bytes.as_slice().try_into().ok().map(Identity)).collect();
    // An earlier activator does not tell the stream; a stream that cannot be shown counts as not told.
    let stream = match is_stream_id(&stream_id) && is_app(&publisher) {
        true => PeerStream { id: stream_id, publisher, client: client.parse().ok() },
        false => PeerStream::default(),
    };
    let held = Elsewhere { identities, app, entered, waiting, provided, worker, epoch, stream };
    good.then_some(PeerChange::Held(number, held))
}

fn worker_change(worker: Worker) -> Option<PeerChange> {
    let Worker { name, draining, room, streams, cordoned, leaving } = worker;
    let all: u64 = streams.values().copied().map(u64::from).sum();
    let good = is_instance_name(&name)
        && room <= MAX_CAPACITY
        // A worker may exceed its capacity for a moment, by streams in grace.
        && all <= 2 * u64::from(MAX_CAPACITY)
        && streams.keys().all(|app| is_app(app));
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let streams = streams.into_iter().map(|(app, streams)| (app, count(streams))).collect();
    good.then_some(PeerChange::Worker(name, WorkerTally { draining, cordoned, leaving, room: count(room), streams }))
}

/// True for the name of an app, as in a worker's session; the name is empty if the worker does not know it.
fn is_app(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES + '…'.len_utf8() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::proto::Welcome;

    #[test]
    fn a_fact_that_cannot_be_is_left_out() {
        let held = || Held { app: "live".into(), ..Held::default() };
        let worker = || Worker { name: "w".into(), ..Worker::default() };
        let streams = |count| [("live".to_owned(), count)].into();
        assert!(parse(Say::Held(held())).unwrap().is_some() && parse(Say::Worker(worker())).unwrap().is_some());
        for say in [
            Say::Held(Held { app: "x".repeat(1000), ..held() }),
            Say::Held(Held { app: "a\nb".into(), ..held() }),
            Say::Held(Held { worker: "x".repeat(1000), ..held() }),
            Say::Held(Held { epoch: u64::MAX, ..held() }),
            Say::Held(Held { identities: vec![vec![1; 16]; MAX_IDENTITIES + 1], ..held() }),
            Say::Worker(Worker { name: "x".repeat(1000), ..worker() }),
            Say::Worker(Worker { name: "a b".into(), ..worker() }),
            Say::Worker(Worker { room: u32::MAX, ..worker() }),
            Say::Worker(Worker { streams: streams(u32::MAX), ..worker() }),
            Say::Worker(Worker { streams: [("x".repeat(1000), 1)].into(), ..worker() }),
        ] {
            assert_eq!(parse(say.clone()).unwrap(), None, "{say:?}");
        }
    }

    #[test]
    fn stream_that_cannot_be_shown_is_not_known() {
        let told = |stream_id: &str, publisher: &str, client: &str| {
            let held = Held {
                stream_id: stream_id.into(),
                publisher: publisher.into(),
                client: client.into(),
                ..Held::default()
            };
            match parse(Say::Held(held)).unwrap() {
                Some(PeerMessage::Change(PeerChange::Held(_, held))) => held.stream,
                other => panic!("{other:?}"),
            }
        };
        let stream = PeerStream { id: "aa".into(), publisher: "studio".into(), client: "10.0.0.1:2".parse().ok() };
        assert_eq!(told("aa", "studio", "10.0.0.1:2"), stream);
        assert_eq!(told("aa", "studio", "nowhere"), PeerStream { client: None, ..stream });
        for (stream_id, publisher) in [("", "studio"), ("a b", ""), ("aa", "a\nb"), ("aa", &"x".repeat(1000))] {
            assert_eq!(told(stream_id, publisher, "10.0.0.1:2"), PeerStream::default(), "{stream_id:?} {publisher:?}");
        }
    }

    #[test]
    fn a_peer_without_a_name_is_not_followed() {
        for activator in ["", "a b", "\u{202e}"] {
            let welcome = Welcome { activator: activator.into(), ..Welcome::default() };
            assert!(parse(Say::Welcome(welcome)).is_err(), "{activator:?}");
        }
        let welcome = Welcome { activator: "a".into(), control_port: 1 << 16, started: 7 };
        let told = PeerWelcome { name: "a".into(), control_port: 0, started: 7 };
        assert_eq!(parse(Say::Welcome(welcome)).unwrap(), Some(PeerMessage::Welcome(told)));
    }
}
