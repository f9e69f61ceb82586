//! Every bound on what an RTMP peer may make this process hold or do: a name, a value, a reason.

use super::is_heeded;

/// Longest message that is not assembled: the most that RTMP can express (three bytes of length). Keyframes of 5 MB are real. A stream's
/// ring decides which messages it can hold; a longer one is skipped as its chunks arrive.
pub const MAX_PASSED_MESSAGE: u32 = 0xFF_FFFF;

/// Longest message that is assembled: protocol control and commands. These are held in memory, also for strangers; a `connect` of 8 KiB is
/// already unheard of. A longer one of another type (a shared object) is skipped.
pub const MAX_CONTROL_MESSAGE: u32 = 64 << 10;

/// Bytes of incomplete assembled messages on one connection, all chunk streams together. Sixty-four chunk streams could otherwise hold 4
/// MiB for a stranger that has not even sent `connect`; clients have one incomplete command at a time.
pub const MAX_ASSEMBLY: usize = 2 * MAX_CONTROL_MESSAGE as usize;

/// Chunk streams on one connection. Clients use 3 to 6; each costs 64 bytes and is searched linearly.
pub const MAX_CHUNK_STREAMS: usize = 64;

/// Lowest chunk stream id: 0 and 1 announce the longer forms of the basic header (RTMP 1.0, 5.3.1.1).
pub const MIN_CSID: u32 = 2;

/// Highest chunk stream id: 64 plus two bytes (RTMP 1.0, 5.3.1.1).
pub const MAX_CSID: u32 = 65_599;

/// Chunk size before any Set Chunk Size (RTMP 1.0, 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

/// Largest chunk size that makes a difference: no message is longer (RTMP 1.0, 5.4.1 says that all larger ones are equivalent).
pub const MAX_CHUNK_SIZE: u32 = 0xFF_FFFF;

/// Value of a timestamp field that announces four more bytes with the real one (RTMP 1.0, 5.3.1.3).
pub const EXTENDED_TIMESTAMP: u32 = 0xFF_FFFF;

/// Nested AMF0 objects and arrays. `connect` needs two; unlimited nesting overflows the stack, which nothing catches.
pub const MAX_AMF0_DEPTH: usize = 16;

/// AMF0 values in one message. One byte of input can be a value, a value takes 32 times that in memory.
pub const MAX_AMF0_VALUES: usize = 4096;

/// Messages in one aggregate. Media servers put a fraction of a second into one; an empty message takes 15 bytes.
pub const MAX_AGGREGATE_MESSAGES: usize = 4096;

/// `createStream` on one connection. Clients use one; some create a second one for nothing.
pub const MAX_MESSAGE_STREAMS: u32 = 8;

/// Commands of a publisher before its `publish`. Clients send five to eight; each costs parsing, and some cost an answer.
pub const MAX_COMMANDS_BEFORE_PUBLISH: u32 = 64;

/// Bytes of media before `publish`, which are read and dropped. No client measured sends any; a confused one may send a frame.
pub const MAX_MEDIA_BEFORE_PUBLISH: u64 = 1 << 20;

/// Bytes that a session holds for its peer. The owner takes them after each input, unless the peer reads nothing: the peer must not be able
/// to add to them, so no further pings and commands are answered, and acknowledgements are put off.
pub const MAX_OUTPUT: usize = 64 << 10;

/// Waiting bytes at which a session's output is full: the next acknowledgement takes the place of the one before it. A peer that reads
/// never has so many waiting: they are 256 acknowledgements.
pub const FULL_OUTPUT: usize = 4 << 10;

/// Bytes of answers (to pings, commands) that a peer may cause beyond the bytes it has sent: the answers of a whole session start are 1.2
/// KiB. After that an answer must be paid for, byte by byte, so that no peer can make us send more than it sends.
pub const ANSWER_CREDIT: u64 = 4 << 10;

/// Smallest window that is believed: half of it lies between two acknowledgements of 16 bytes, so that no peer gets a flood of them.
pub const MIN_WINDOW: u32 = 4 << 10;

/// Window of a peer that names none, or 0: the value that most servers name (RTMP 1.0, 5.4.4, has no default).
pub const DEFAULT_WINDOW: u32 = 2_500_000;

/// Longest text of `connect`, beside the app, that is kept for hooks and logs. A held publisher stays within a few KiB.
pub const MAX_CONNECT_TEXT: usize = 1024;

/// Longest app that is kept: longer than any that admission takes, so that it is refused for its length and not for its end.
pub const MAX_APP_TEXT: usize = 2 * crate::key::MAX_QUALIFIED_BYTES;

/// Longest type of a publish (`live`, `record`, `append`), and longest description in a refusal.
pub const MAX_STATUS_TEXT: usize = 256;

/// Longest message of a type.
#[must_use]
pub const fn max_message(type_id: u8) -> u32 {
    if is_heeded(type_id) { MAX_CONTROL_MESSAGE } else { MAX_PASSED_MESSAGE }
}
