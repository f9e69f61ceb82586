//! The handshake, both roles: bytes of the peer in, our bytes out, until the first byte of the first chunk. Next rooms: [`super::server`],
//! [`super::client`]. Digest (Flash Player 9) and plain handshakes are rml_rtmp's; here are the bounds around it: the version is judged
//! before anything is answered, and it is never given a byte more than the handshake has.

/// Bytes that each side sends in a handshake: version, first and second packet (RTMP 1.0, 5.2).
pub const HANDSHAKE_BYTES: u64 = 1 + 1536 + 1536;

/// One connection's handshake.
pub struct Handshake {}

/// What became of some input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belonged to the handshake.
    pub used: usize,
    /// For the peer.
    pub output: Vec<u8>,
    /// The handshake is over; what was not used is chunks.
    pub done: bool,
}

/// The peer does not speak RTMP, or not ours. Close without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// First byte of the peer: only 3, plain RTMP, is spoken here.
    #[error("version {0} instead of 3")]
    Version(u8),
    /// The first packet is not one.
    #[error("handshake packet cannot be understood")]
    Packet,
}

impl Handshake {
    /// For a peer that connected to us.
    #[must_use]
    pub fn server() -> Self {
        todo!()
    }

    /// For a peer that we connected to.
    #[must_use]
    pub fn client() -> Self {
        todo!()
    }

    /// What to send before anything is received: version and first packet of a client, nothing of a server.
    pub fn start(&mut self) -> Vec<u8> {
        todo!()
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// The peer is of no use to us.
    pub fn handle(&mut self, _input: &[u8]) -> Result<Progress, HandshakeError> {
        todo!()
    }
}
