//! The parts that several listeners share. In: a socket and the end of its time; an address; files of certificates and tokens. Out: the socket as tonic's
//! servers take it; the key by which connections of one customer count together; the present certificates and tokens; a client for servers that are
//! asked or told something. Next: `accept`, `control`, `scaler`.

mod expiring;
mod http_client;
mod tls;
mod tokens;

use std::net::{IpAddr, Ipv6Addr};

pub(crate) use expiring::{Expiring, Expiry};
pub(crate) use http_client::{HttpAnswerStream, HttpCall, HttpCallError, HttpClient, HttpGet, HttpPost, HttpReply};
pub(crate) use tls::CurrentTls;
pub(crate) use tokens::{CurrentTokens, tell_limits};

/// The address under which a peer counts: an IPv4 address itself, of an IPv6 address the /64 (one customer has at least that many
/// addresses).
pub(crate) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}
