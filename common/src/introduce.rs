//! The two questions that [`crate::discovery`] asks: the addresses of a name, and the addresses that an activator knows. In: a name and a
//! port; for the second question, those of an introducer, behind which there is any one activator. Out: addresses, the introducer's own
//! first. Next: the shells of both machines that find activators, a worker's `register` and an activator's `peers`.
//!
//! A name with an address for each activator would do, but for name servers that remember: where answers are good for half a minute
//! (CoreDNS in most clusters), an activator that has just begun cannot be found for that long, and "no such name" is remembered as well.
//! A Service's own address leads to an activator that runs now, and its name always resolves to the same address.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, deadlines")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::control::wire::Stranger;
use crate::control::wire::control_client::ControlClient;
use crate::discovery::MAX_ADDRESSES;
use crate::encryption::Protection;
use crate::event;
use crate::greet::{connect, greet};
use crate::key::Secret;
use crate::proof::Purpose;

/// Longest wait for a name server. The C library's resolver has limits of its own, usually 5 s per server, and cannot be interrupted.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the first SYN to the answer. The activator behind the address may be stopped; the next attempt may lead to another one.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of an answer: [`MAX_ADDRESSES`] of them.
const MAX_MESSAGE: usize = 8 << 10;

/// Every address of a name; `None` when there is no answer in time, or no such name.
pub async fn resolve(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    match timeout(LOOKUP_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(found)) => return Some(found.collect()),
        Ok(Err(error)) => tracing::debug!(event = event::NAME_UNRESOLVED, host, %error, "name not resolved"),
        Err(_) => tracing::debug!(event = event::NAME_UNRESOLVED, host, "name not resolved in time"),
    }
    None
}

/// Addresses of activators, as the one at `host:port` knows them; none when there is no good answer in time. Asking again is for the
/// caller.
pub async fn ask(host: &str, port: u16, protection: &Protection, secret: &Secret) -> Vec<SocketAddr> {
    let found = resolve(host, port).await.unwrap_or_default();
    // One address, as a Service has it, or one of each family.
    for address in found.into_iter().take(2) {
        match timeout(ANSWER_TIMEOUT, ask_at(address, protection, secret)).await {
            Ok(Ok(activators)) => return activators,
            Ok(Err(error)) => {
                tracing::debug!(event = event::INTRODUCER_FAILED, %address, error, "introducer did not answer");
            }
            Err(_) => {
                tracing::debug!(event = event::INTRODUCER_FAILED, %address, "introducer did not answer in time");
            }
        }
    }
    Vec::new()
}

async fn ask_at(address: SocketAddr, protection: &Protection, secret: &Secret) -> Result<Vec<SocketAddr>, String> {
    let connected = connect(address, ANSWER_TIMEOUT, protection, secret, |endpoint| endpoint).await;
    let (channel, secret) = connected.map_err(|error| error.to_string())?;
    let answer = async {
        let greeted = greet(channel.clone(), &secret, Purpose::Introduce).await?;
        let mut client = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        greeted.proved(client.introduce(greeted.request(Stranger {})?).await?)
    };
    let addresses = answer.await.map_err(|status| status.to_string())?.addresses;
    Ok(addresses.iter().filter_map(|text| text.parse().ok()).take(MAX_ADDRESSES).collect())
}
