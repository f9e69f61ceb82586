//! Requests of the API for streams whose publishers another activator holds. In: the name of that activator, a request. Out: its answer. Next: the
//! `service` of that activator, which has its `http` carry the request out.
//!
//! A request may hold a push URL with its key, and calls between activators are not secret by themselves, so it is sealed. Note: under a secret that
//! workers do not know, since no worker may change another one's streams.
#![expect(clippy::disallowed_methods, reason = "shell: a call with a deadline")]

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use liveedgecast_common::encryption::Protection;
use liveedgecast_common::greet::{connect, greet};
use liveedgecast_common::key::Secret;
use liveedgecast_common::proof::Purpose;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::cluster::Cluster;
use super::limits::{ACT_TIMEOUT, CONNECT_TIMEOUT, MAX_ACT};
use super::proto::Sealed;
use super::proto::peers_client::PeersClient;
use crate::net::CurrentTokens;

/// A request of the API, as one activator passes it on to another.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedRequest {
    /// The action's word.
    pub action: String,
    /// Id of the stream.
    pub stream_id: String,
    /// Name of the destination; empty if the request is about none.
    pub destination: String,
    /// The body of the request, which may hold a key.
    pub body: String,
    /// Address of the client.
    pub client: IpAddr,
}

impl fmt::Debug for ForwardedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardedRequest").field("action", &self.action).finish_non_exhaustive()
    }
}

/// The answer to a request that was passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedAnswer {
    /// Status of HTTP.
    pub status: u16,
    /// The JSON of the answer, or of the problem.
    pub body: String,
}

/// Carries out a request that another activator has passed on.
#[derive(Clone)]
pub struct RequestHandler(pub Arc<dyn Fn(&ForwardedRequest) -> ForwardedAnswer + Send + Sync>);

impl fmt::Debug for RequestHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestHandler")
    }
}

/// Why a request could not be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CourierError {
    /// The activator cannot be heard, or did not answer in time: it may have carried the request out.
    #[error("the activator that holds the publisher does not answer")]
    Unreachable,
    /// The activator has refused the request.
    #[error(
        "the activator that holds the publisher refuses: give all activators the same CONTROL_SECRET, ADMIN_TOKEN and VIEW_TOKEN"
    )]
    Refused,
    /// The activator is of a release that takes no requests.
    #[error("the activator that holds the publisher is of an earlier release: send the request to that one")]
    TooOld,
}

/// The way to the other activators.
#[derive(Clone)]
pub struct Courier {
    cluster: Cluster,
    protection: Protection,
    secrets: CurrentTokens,
}

impl Courier {
    /// The way to the activators of `cluster`, which know one of these secrets of theirs.
    #[must_use]
    pub fn new(cluster: Cluster, protection: Protection, secrets: CurrentTokens) -> Self {
        Self { cluster, protection, secrets }
    }

    /// The answer of the activator with this name.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn ask(&self, peer: &str, request: &ForwardedRequest) -> Result<ForwardedAnswer, CourierError> {
        match timeout(ACT_TIMEOUT, self.call(peer, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) if status.code() == Code::Unimplemented => Err(CourierError::TooOld),
            Ok(Err(status)) if status.code() == Code::Unauthenticated => Err(CourierError::Refused),
            Ok(Err(_)) | Err(_) => Err(CourierError::Unreachable),
        }
    }

    /// The answer under the secret in force, and where that is refused under the one before: the other activator may not have the new tokens yet.
    async fn call(&self, peer: &str, request: &ForwardedRequest) -> Result<ForwardedAnswer, Status> {
        let mut refused = Status::unauthenticated("there is no secret");
        for secret in self.secrets.of_acting_activators() {
            match self.call_with(&secret, peer, request).await {
                Err(status) if status.code() == Code::Unauthenticated => refused = status,
                ended => return ended,
            }
        }
        Err(refused)
    }

    async fn call_with(
        &self,
        secret: &Secret,
        peer: &str,
        request: &ForwardedRequest,
    ) -> Result<ForwardedAnswer, Status> {
        let address = self.cluster.peers().and_then(|peers| peers.address_of(peer));
        let address = address.ok_or_else(|| Status::unavailable("the activator cannot be heard"))?;
        let connected = connect(address, CONNECT_TIMEOUT, &self.protection, secret, |endpoint| endpoint);
        let (channel, secret) = connected.await.map_err(|error| Status::unavailable(error.to_string()))?;
        let greeted = greet(channel.clone(), &secret, Purpose::Act).await?;
        let content = serde_json::to_vec(request).map_err(|error| Status::internal(error.to_string()))?;
        let sealed = greeted.request(Sealed { content: greeted.seal(content) })?;
        let mut client = PeersClient::new(channel).max_decoding_message_size(MAX_ACT);
        let acted = greeted.proved(client.act(sealed).await?)?;
        let status = u16::try_from(acted.status).map_err(|_| Status::internal("the answer has no status"))?;
        Ok(ForwardedAnswer { status, body: acted.body })
    }
}
