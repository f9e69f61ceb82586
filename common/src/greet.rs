//! The caller's side of the proofs of a control call. In: a connection, the secret. Out: a request with our proof, and the answer once its
//! sender has proved itself. Next: the call's maker (a worker's registration, the following of activators, [`crate::introduce`]).
//!
//! Note: the address may lead to anybody (stale DNS, a pod's address that was given away), so an answer is looked at in one way alone,
//! [`Greeted::proved`]. The channel has one connection and does not dial again, because the secret is bound to that connection
//! (see [`crate::encryption`]).

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::control::wire::Greeting;
use crate::control::wire::control_client::ControlClient;
use crate::encryption::{Protection, bound_secret};
use crate::key::{MAX_INSTANCE_NAME, Secret};
use crate::proof::{Exchange, METADATA, Purpose};
use crate::random;

/// Bytes of a challenge: a nonce and a name.
const MAX_MESSAGE: usize = 1 << 10;

/// A connection whose other end has told its nonce.
#[derive(Debug)]
pub struct Greeted {
    secret: Secret,
    exchange: Exchange,
}

/// Connects to an activator; `patience`: how long the connection may take, without TLS; `settings`: those of the channel beyond the connection.
/// Returns the channel, and the secret for every [`greet`] on it.
///
/// # Errors
/// No connection, or none that is encrypted where it has to be.
pub async fn connect(
    address: SocketAddr,
    patience: Duration,
    protection: &Protection,
    secret: &Secret,
    settings: impl FnOnce(Endpoint) -> Endpoint,
) -> io::Result<(Channel, Secret)> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(io::Error::other)?;
    let socket = protection.dial(address, patience).await?;
    let bound = bound_secret(secret, &socket)?;
    // The channel takes it once, at once: the lock only lets the connector be called by reference.
    let dialed = Mutex::new(Some(TokioIo::new(socket)));
    let connector = tower::service_fn(move |_| {
        let dialed = dialed.lock().unwrap_or_else(PoisonError::into_inner).take();
        ready(dialed.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = settings(endpoint).connect_with_connector(connector).await.map_err(io::Error::other)?;
    Ok((channel, bound))
}

/// Exchanges nonces for a call of this purpose. The caller has to limit the time.
///
/// # Errors
/// No answer came, or none as an activator of this version gives it.
pub async fn greet(channel: Channel, secret: &Secret, purpose: Purpose) -> Result<Greeted, Status> {
    let caller = random::bytes();
    let mut client = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let answer = client.greet(Greeting { nonce: caller.to_vec() }).await.map_err(|status| match status.code() {
        Code::Unimplemented => Status::unauthenticated(
            "the server at this address does not know this version of control: run one version of both sides",
        ),
        _ => status,
    })?;
    let challenge = answer.into_inner();
    let nonce = challenge.nonce.as_slice().try_into().ok().filter(|_| challenge.activator.len() <= MAX_INSTANCE_NAME);
    let nonce = nonce.ok_or_else(|| Status::unauthenticated("the challenge cannot be read"))?;
    let exchange = Exchange { purpose, caller, challenge: nonce, activator: challenge.activator };
    Ok(Greeted { secret: secret.clone(), exchange })
}

impl Greeted {
    /// The call, with our proof.
    ///
    /// # Errors
    /// Never, as a proof is hex digits.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let proof = MetadataValue::try_from(self.exchange.caller_proof(&self.secret));
        let mut request = Request::new(message);
        request.metadata_mut().insert(METADATA, proof.map_err(|_| Status::internal("the proof is no metadata"))?);
        Ok(request)
    }

    /// Seals the one message of this call, for the activator that was greeted: whoever passes the bytes on cannot read it.
    #[must_use]
    pub fn seal(&self, content: Vec<u8>) -> Vec<u8> {
        self.exchange.seal(&self.secret, content)
    }

    /// The answer, if its sender has proved that it knows the secret, too.
    ///
    /// # Errors
    /// It has not: nothing of the answer may be used.
    pub fn proved<T>(&self, answer: Response<T>) -> Result<T, Status> {
        let proof = answer.metadata().get(METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match self.exchange.judge_activator(&self.secret, proof) {
            Ok(()) => Ok(answer.into_inner()),
            Err(_) => Err(Status::unauthenticated(
                "the server at this address has not proved that it knows our CONTROL_SECRET: it is no activator of ours",
            )),
        }
    }
}
