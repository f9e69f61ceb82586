//! Every bound on what a worker or an activator says on a control call. The bytes of a whole message are bounded where it is received.

/// The greatest epoch that a worker or another activator may tell. Nobody counts that far: each offer is one, and at a thousand offers a
/// second it takes a hundred million years.
pub const MAX_EPOCH: u64 = 1 << 62;
/// Bytes of a worker's key of its own.
pub const INSTANCE_KEY_BYTES: usize = 32;
/// Characters of a stream's id; ours have 16.
pub const MAX_STREAM_ID: usize = 64;
/// Upstreams of a session that are kept, as many as a stream may have.
pub const MAX_UPSTREAMS: usize = 32;
/// Identities of one stream: its own, and one for each upstream that it may have.
pub const MAX_IDENTITIES: usize = 1 + MAX_UPSTREAMS;
/// Bytes of one text of a session. An app's name has 255 at most.
pub const MAX_TEXT: usize = 256;
/// Bytes of the word for a codec.
pub const MAX_CODEC: usize = 16;
/// Bytes of the hosts, names and errors of a session's upstreams: 32 hosts of 60 bytes, a name of 63 for each, and an error for the first dozen.
pub const MAX_TEXTS: usize = 6 << 10;
/// Rows of metrics in one message that are read. A worker has some 60, and 27 for each of the 256 destinations that it names.
pub const MAX_TOTALS: usize = 8 << 10;
/// Bytes of a piece of an excerpt: short, so that reports of the worker do not wait behind one for long.
pub const MAX_PIECE: usize = 64 << 10;
/// Bytes of a label's value: the name of a destination, or its host with its port.
pub const MAX_LABEL: usize = 264;
