//! Asking some activator where all of them are. In: an address behind which there is one, whichever. Out: the addresses of those that
//! it knows, its own first.
//!
//! A name with an address for each activator would do, but for name servers that remember: where answers are good for half a minute
//! (CoreDNS in most clusters), an activator that has just begun cannot be found for that long, and "no such name" is remembered as well.
//! A Service's own address leads to whoever runs now, and its name never changes what it says.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, deadlines")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::control::wire::Stranger;
use crate::control::wire::control_client::ControlClient;
use crate::greet::greet;
use crate::key::Secret;
use crate::proof::Purpose;

/// For the name. The C library's resolver has limits of its own, and cannot be interrupted.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first SYN to the answer. Behind the address there may be one that is stopped; the next attempt may lead to another.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Addresses that are listened to: a site has a few activators.
const MAX_ADDRESSES: usize = 64;
/// Bytes of an answer: as many addresses.
const MAX_MESSAGE: usize = 8 << 10;

/// Asks whoever is at `host:port`. Nobody knows anything if there is no good answer in time: asking again is for the caller.
pub async fn ask(host: &str, port: u16, secret: &Secret) -> Vec<SocketAddr> {
    let found = match timeout(LOOKUP_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(host, %error, "the introducer's name cannot be resolved");
            return Vec::new();
        }
        Err(_) => {
            tracing::debug!(host, "no answer to the question for the introducer's name");
            return Vec::new();
        }
    };
    // One address, as a Service has it, or one of each family.
    for address in found.take(2) {
        match timeout(ANSWER_TIMEOUT, ask_at(address, secret)).await {
            Ok(Ok(activators)) => return activators,
            Ok(Err(error)) => tracing::debug!(%address, error, "nobody introduces us"),
            Err(_) => tracing::debug!(%address, "nobody introduces us in time"),
        }
    }
    Vec::new()
}

async fn ask_at(address: SocketAddr, secret: &Secret) -> Result<Vec<SocketAddr>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.tcp_nodelay(true).connect().await.map_err(|error| error.to_string())?;
    let told = async {
        let greeted = greet(channel.clone(), secret, Purpose::Introduce).await?;
        let mut client = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        greeted.proved(client.introduce(greeted.request(Stranger {})?).await?)
    };
    let addresses = told.await.map_err(|status| status.to_string())?.addresses;
    Ok(addresses.iter().filter_map(|text| text.parse().ok()).take(MAX_ADDRESSES).collect())
}
