//! One call to one peer, from its first SYN to its end. In: an address. Out: what it says, its end last.

use std::net::SocketAddr;

use liveedgecast_common::greet::greet;
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::proof::Purpose;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::limits::{CONNECT_TIMEOUT, MAX_MESSAGE, PING_EVERY, PING_TIMEOUT};
use super::machine::{Input, LinkId};
use super::proto::Hello;
use super::proto::peers_client::PeersClient;

/// Follows until the end, which is told too.
pub(super) async fn follow(
    link: LinkId,
    address: SocketAddr,
    secret: Secret,
    hello: Hello,
    events: mpsc::Sender<Input>,
) {
    match listen(link, address, &secret, hello, &events).await {
        Ok(()) => debug!(peer = %address, "an activator has ended the call"),
        Err(status) if matches!(status.code(), Code::Unauthenticated | Code::Unimplemented) => {
            warn!(peer = %address, answer = %LogSafe(status.message()), "another activator does not tell us what it knows");
        }
        Err(status) => debug!(peer = %address, %status, "an activator cannot be followed"),
    }
    let _ = events.send(Input::Ended(link)).await;
}

async fn listen(
    link: LinkId,
    address: SocketAddr,
    secret: &Secret,
    hello: Hello,
    events: &mpsc::Sender<Input>,
) -> Result<(), Status> {
    let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreachable)?;
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(unreachable)?;
    let greeted = greet(channel.clone(), secret, Purpose::Follow).await?;
    let mut client = PeersClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let mut says = greeted.proved(client.follow(greeted.request(hello)?).await?)?;
    while let Some(said) = says.message().await? {
        // Nothing in it: a newer activator says something that we do not know.
        if let Some(say) = said.say {
            let _ = events.send(Input::Said(link, say)).await;
        }
    }
    Ok(())
}
