//! The handshake, both roles. In: bytes of the peer. Out: our bytes, until the first byte of the first chunk. Next: [`super::server`],
//! [`super::client`].
//!
//! ```text
//! client   C0 C1 ─────────────▶                ─── C2 ─▶ done
//! server               ◀─ S0 S1 ── S2 (on C1)             (on C2) done
//! ```
//!
//! The packets themselves, digest (Flash Player 9, both schemes) and plain, are rml_rtmp's, which also takes their random bytes. This file
//! adds the bounds: the version is checked before a byte is answered, and rml_rtmp never gets more bytes than the handshake has.
//!
//! Note: the second packet is not always an echo of the first (GStreamer, Flash), so it is not compared; it may come late and glued to
//! `connect`; and bytes that arrive at an RTMP port are often TLS, HTTP or a health check, so the error names them.

use std::fmt;

use rml_rtmp::handshake::{Handshake as Packets, HandshakeProcessResult, PeerType};

/// Bytes that each side sends in a handshake: version, first and second packet (RTMP 1.0, 5.2).
pub const HANDSHAKE_BYTES: u64 = 1 + 1536 + 1536;

/// Version that is spoken here: plain RTMP (RTMP 1.0, 5.2.2).
const VERSION: u8 = 3;

/// The handshake of one connection. About 3.5 KiB; drop it when it is done.
pub struct Handshake {
    packets: Packets,
    /// Bytes received, out of [`HANDSHAKE_BYTES`].
    received: usize,
    /// Error that further calls return again.
    failed: Option<HandshakeError>,
    client: bool,
}

/// The result of handling some input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeProgress {
    /// Bytes of the input that belonged to the handshake.
    pub used: usize,
    /// Bytes for the peer.
    pub output: Vec<u8>,
    /// True if the handshake is over; unused bytes are chunks.
    pub done: bool,
}

/// The reason why the peer does not speak RTMP, or not ours. Close without an answer; retrying is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// First byte of the peer: only 3, plain RTMP, is spoken here.
    #[error("the first byte is {0:#04x} instead of 0x03{hint}", hint = guess(*.0))]
    Version(u8),
    /// First packet that is malformed.
    #[error("the handshake cannot be understood")]
    Packet,
}

/// The other protocol that begins with this byte, for readers of the log.
fn guess(version: u8) -> &'static str {
    match version {
        0x06 | 0x08 | 0x09 => " (RTMPE, which is not spoken here)",
        0x15 => " (a TLS alert: the port speaks TLS, its URL begins with rtmps://)",
        0x16 => " (TLS on a port for plain RTMP)",
        0x0D | b'P' => " (a PROXY protocol header, or HTTP)",
        b'G' | b'H' | b'O' | b'C' | b'D' => " (HTTP)",
        _ => "",
    }
}

impl Handshake {
    /// A handshake with a peer that connected to us.
    #[must_use]
    pub fn server() -> Self {
        Self { packets: Packets::new(PeerType::Server), received: 0, failed: None, client: false }
    }

    /// A handshake with a peer that we connected to.
    #[must_use]
    pub fn client() -> Self {
        Self { packets: Packets::new(PeerType::Client), received: 0, failed: None, client: true }
    }

    /// Bytes to send before anything is received: version and first packet of a client, nothing of a server. Take them once, before any
    /// input.
    pub fn start(&mut self) -> Vec<u8> {
        if !self.client || self.received > 0 {
            return Vec::new();
        }
        self.packets.generate_outbound_p0_and_p1().unwrap_or_default()
    }

    /// True if the handshake is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.received == HANDSHAKE_BYTES as usize
    }

    /// Handles input, up to the end of the handshake.
    ///
    /// # Errors
    /// The peer does not speak RTMP.
    pub fn handle(&mut self, input: &[u8]) -> Result<HandshakeProgress, HandshakeError> {
        self.take(input).inspect_err(|error| self.failed = Some(*error))
    }

    fn take(&mut self, input: &[u8]) -> Result<HandshakeProgress, HandshakeError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let input = &input[..input.len().min(HANDSHAKE_BYTES as usize - self.received)];
        let Some(first) = input.first() else {
            return Ok(HandshakeProgress { done: self.is_done(), ..HandshakeProgress::default() });
        };
        if self.received == 0 && *first != VERSION {
            return Err(HandshakeError::Version(*first));
        }
        let processed = self.packets.process_bytes(input).map_err(|_| HandshakeError::Packet)?;
        let (HandshakeProcessResult::InProgress { response_bytes: output }
        | HandshakeProcessResult::Completed { response_bytes: output, .. }) = processed;
        self.received += input.len();
        Ok(HandshakeProgress { used: input.len(), output, done: self.is_done() })
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Handshake")
            .field("client", &self.client)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
