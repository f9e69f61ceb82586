//! The header with which a proxy names its client, PROXY protocol version 1 (text) and 2 (binary), as HAProxy's `proxy-protocol.txt`
//! specifies it. In: the first bytes of a connection. Out: the client's address and the length of the header, or the number of bytes that the
//! header still has. Pure. Next: the activator's `accept`, which reads it.
//!
//! ```text
//!  1: PROXY TCP4 198.51.100.7 203.0.113.1 51000 1935\r\n
//!  2: signature 12 | version and command 1 | family and transport 1 | length u16 | source, destination, ports | further fields
//! ```
//! The reader asks for no byte behind the header, so the connection goes on as if there had been none.
//!
//! Note: a header decides who a client is, so it counts from proxies alone that the operator names; that is for the caller. The decoder is our
//! own because it has to say how many bytes are missing: one byte too many would be taken from the connection behind the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1 (2.1: "107 chars").
pub const MAX_TEXT: usize = 107;
/// Longest header of version 2 that is read. Addresses have 36 bytes at most; the fields behind them, of TLS or of a cloud's endpoint, some hundred.
pub const MAX_BINARY: usize = 4096;

/// First bytes of version 1.
const TEXT: &[u8] = b"PROXY ";
/// Shortest header of version 1.
const LEAST_TEXT: usize = b"PROXY UNKNOWN\r\n".len();
/// First bytes of version 2.
const BINARY: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 up to the addresses.
const BINARY_HEAD: usize = 16;

/// The result of looking at the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProgress {
    /// So many bytes are missing at least, all of them the header's.
    More(usize),
    /// The header is whole.
    Whole(ProxyHeader),
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Bytes of the header.
    pub length: usize,
    /// The client, `::ffff:` taken off. `None`: the proxy speaks for itself, as it does to see whether this port is alive, or does not know.
    pub client: Option<SocketAddr>,
}

/// The reason why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The connection begins with something else.
    #[error("there is no PROXY header")]
    Absent,
    /// The header breaks the specification.
    #[error("the PROXY header cannot be understood")]
    Malformed,
    /// The header is longer than [`MAX_TEXT`] or [`MAX_BINARY`].
    #[error("the PROXY header is too long")]
    TooLong,
}

/// True if a connection that begins with these bytes, of which there should be six, comes from a proxy that names its client.
#[must_use]
pub fn is_announced(bytes: &[u8]) -> bool {
    bytes.starts_with(TEXT) || bytes.starts_with(&BINARY[..TEXT.len()])
}

/// Looks for a header in the first bytes of a connection.
///
/// # Errors
/// There is none.
pub fn decode(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    match bytes.len() {
        known if begins(BINARY) && known < BINARY.len() => Ok(ProxyProgress::More(BINARY.len() - known)),
        known if begins(TEXT) && known < BINARY.len() => Ok(ProxyProgress::More(BINARY.len() - known)),
        _ if begins(BINARY) => binary(bytes),
        _ if begins(TEXT) => text(bytes),
        _ => Err(ProxyError::Absent),
    }
}

fn text(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    let Some(end) = bytes.iter().take(MAX_TEXT).position(|byte| *byte == b'\n') else {
        return match bytes.len() {
            MAX_TEXT.. => Err(ProxyError::TooLong),
            known => Ok(ProxyProgress::More(LEAST_TEXT.saturating_sub(known).max(1))),
        };
    };
    let line = bytes[TEXT.len()..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let fields: Vec<&str> = line.ok_or(ProxyError::Malformed)?.split(' ').collect();
    let client = match fields[..] {
        // The rest says nothing.
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, port, other] => {
            Some(client::<Ipv4Addr>(source, destination, port, other).ok_or(ProxyError::Malformed)?)
        }
        ["TCP6", source, destination, port, other] => {
            Some(client::<Ipv6Addr>(source, destination, port, other).ok_or(ProxyError::Malformed)?)
        }
        _ => return Err(ProxyError::Malformed),
    };
    Ok(ProxyProgress::Whole(ProxyHeader { length: end + 1, client }))
}

/// The source of a version 1 header, if all four parts are good.
fn client<A: std::str::FromStr + Into<IpAddr>>(
    source: &str,
    destination: &str,
    port: &str,
    other: &str,
) -> Option<SocketAddr> {
    let number = |text: &str| {
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        is_decimal.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (source, _) = (source.parse::<A>().ok()?, destination.parse::<A>().ok()?);
    number(other)?;
    Some(SocketAddr::new(source.into().to_canonical(), number(port)?))
}

fn binary(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    let Some((head, rest)) = bytes.split_first_chunk::<BINARY_HEAD>() else {
        return Ok(ProxyProgress::More(BINARY_HEAD - bytes.len()));
    };
    let [command, family, high, low] = [head[12], head[13], head[14], head[15]];
    let following = usize::from(u16::from_be_bytes([high, low]));
    let length = BINARY_HEAD + following;
    // Version 2; LOCAL or PROXY.
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::Malformed);
    }
    if length > MAX_BINARY {
        return Err(ProxyError::TooLong);
    }
    let Some(body) = rest.get(..following) else {
        return Ok(ProxyProgress::More(length - bytes.len()));
    };
    let client = match (command, family) {
        (0x20, _) => None,
        // TCP over IPv4: two addresses, two ports.
        (_, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body else { return Err(ProxyError::Malformed) };
            if following < 12 {
                return Err(ProxyError::Malformed);
            }
            Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))))
        }
        // TCP over IPv6.
        (_, 0x21) => {
            let (Some(source), Some(&[high, low]), 36..) = (body.first_chunk::<16>(), body.get(32..34), following)
            else {
                return Err(ProxyError::Malformed);
            };
            let source = IpAddr::from(Ipv6Addr::from(*source)).to_canonical();
            Some(SocketAddr::new(source, u16::from_be_bytes([high, low])))
        }
        // No address, or one of a kind that no TCP connection has.
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(ProxyProgress::Whole(ProxyHeader { length, client }))
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
