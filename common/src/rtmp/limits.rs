//! Every bound on what an RTMP peer may make us hold or do: a name, a value, a reason.

use super::is_media;

/// Longest audio, video, data or aggregate message. The stream ring must hold two of them; a 4K keyframe at 100 Mbps is below 2 MiB.
pub const MAX_MEDIA_MESSAGE: u32 = 3 << 20;

/// Longest other message. These are assembled in memory, also for strangers; a `connect` of 8 KiB is already unheard of.
pub const MAX_CONTROL_MESSAGE: u32 = 64 << 10;

/// Bytes of incomplete assembled messages on one connection, all chunk streams together. Sixty-four chunk streams could otherwise
/// hold 4 MiB for somebody who has not even said `connect`; clients have one incomplete command at a time.
pub const MAX_ASSEMBLY: usize = 2 * MAX_CONTROL_MESSAGE as usize;

/// Chunk streams on one connection. Clients use 3 to 6; each costs about 50 bytes and is searched linearly.
pub const MAX_CHUNK_STREAMS: usize = 64;

/// Lowest chunk stream id: 0 and 1 announce the longer forms of the basic header (RTMP 1.0, 5.3.1.1).
pub const MIN_CSID: u32 = 2;

/// Highest chunk stream id: 64 plus two bytes (RTMP 1.0, 5.3.1.1).
pub const MAX_CSID: u32 = 65_599;

/// Chunk size before any Set Chunk Size (RTMP 1.0, 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

/// Largest chunk size that means anything: no message is longer (RTMP 1.0, 5.4.1 says that all above are equivalent).
pub const MAX_CHUNK_SIZE: u32 = 0xFF_FFFF;

/// A timestamp field of this value says that four more bytes hold the real one (RTMP 1.0, 5.3.1.3).
pub const EXTENDED_TIMESTAMP: u32 = 0xFF_FFFF;

/// Nested AMF0 objects and arrays. `connect` needs two; unlimited nesting overflows the stack, which nothing catches.
pub const MAX_AMF0_DEPTH: usize = 16;

/// AMF0 values in one message. One byte of input can be a value, a value takes 32 times that in memory.
pub const MAX_AMF0_VALUES: usize = 4096;

/// Messages in one aggregate. Media servers put a fraction of a second into one; an empty message takes 15 bytes.
pub const MAX_AGGREGATE_MESSAGES: usize = 4096;

/// Longest message of a type.
#[must_use]
pub const fn max_message(type_id: u8) -> u32 {
    if is_media(type_id) { MAX_MEDIA_MESSAGE } else { MAX_CONTROL_MESSAGE }
}
