//! Every bound on what the other side of a handoff, or the writer of a state page, may make this process hold: a name, a value, a reason.

use crate::rtmp::limits::{MAX_ASSEMBLY, MAX_OUTPUT};

/// Sequence headers of one stream together, payloads alone. Eight video tracks with parameter sets of 1 KiB take an eighth.
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// Metadata of one stream, payload alone: apart from the sequence headers, so that neither crowds the other out. Encoders send less than 1
/// KiB; the metadata of a recorded file lists its keyframes, in 18 bytes each. Longer metadata is not sent to sessions that begin later.
/// With this bound, the state page keeps its size.
pub const MAX_METADATA_BYTES: usize = 48 << 10;

/// Headers of one stream: a metadata message and, for each of 16 audio and 16 video tracks, two of them.
pub const MAX_HEADERS: usize = 65;

/// Bytes that were read and not parsed yet: 16 KiB that a held publisher sends early, and the bytes that the last read brought with them.
pub const MAX_UNREAD_BYTES: usize = 64 << 10;

/// Payload bytes of messages that were open at a snapshot, together. An encoder that interleaves has an audio frame open while a keyframe
/// begins; longer messages are not carried, and count as lost in a takeover.
pub const MAX_OPEN_BYTES: usize = 32 << 10;

/// Open messages with bytes in a snapshot: no more than chunk streams.
pub const MAX_OPEN_MESSAGES: usize = crate::rtmp::limits::MAX_CHUNK_STREAMS;

/// A whole snapshot: the parts above, commands being assembled, answers not sent (a session accepts up to twice its limit on restore), and
/// 32 KiB for the rest of a session. The state page has room for two snapshots: a change here is another version of the preface.
pub const MAX_SNAPSHOT_BYTES: usize = MAX_HEADER_BYTES
    + MAX_METADATA_BYTES
    + MAX_UNREAD_BYTES
    + MAX_OPEN_BYTES
    + MAX_ASSEMBLY
    + 2 * MAX_OUTPUT
    + (32 << 10);

/// Destinations of one stream: as many as there can be URLs.
pub const MAX_DESTINATIONS: usize = crate::url::MAX_URLS;

/// Identities of one stream: its own and one per destination.
pub const MAX_IDENTITIES: usize = MAX_DESTINATIONS + 1;

/// Longest name of an activator, in bytes: a host name.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest name of a destination, in bytes: that of a route has at most 63, that of a push URL is its host with a number.
pub const MAX_DESTINATION_NAME_BYTES: usize = MAX_NAME_BYTES + 16;

/// A whole list of destinations, each with two servers of the longest URL and credentials, and the publisher's name.
pub const MAX_LIST_BYTES: usize =
    MAX_DESTINATIONS * (8 * crate::url::MAX_URL_BYTES + MAX_DESTINATION_NAME_BYTES + 96) + MAX_NAME_BYTES + 64;

/// A whole assignment: every destination with the longest URL and credentials, and a snapshot.
pub const MAX_ASSIGNMENT_BYTES: usize =
    MAX_SNAPSHOT_BYTES + MAX_DESTINATIONS * (4 * crate::url::MAX_URL_BYTES) + (16 << 10);

/// Bytes of the publisher, or for the publisher, in one frame. One read of a socket brings no more; with this bound a frame is on its way
/// whole before much of the next one has arrived.
pub const MAX_DATA_BYTES: usize = 64 << 10;

/// Bytes of a publisher by link that the activator keeps since the worker's last checkpoint: a GOP of 10 s at 3 Mbps, or of 2 s at 16 Mbps.
pub const MAX_KEPT_BYTES: usize = 4 << 20;

/// Bytes after its last checkpoint at which a worker makes the next one, in the middle of a message if need be: bytes that arrive while the
/// checkpoint is on its way have room in the rest of [`MAX_KEPT_BYTES`], so that nothing a publisher sends can fill that for good.
pub const MAX_UNCHECKED_BYTES: u64 = 3 << 20;
const _: () = assert!(MAX_UNCHECKED_BYTES as usize + 8 * MAX_DATA_BYTES <= MAX_KEPT_BYTES);

/// Text for people in a frame: the reason of a kick or of an end.
pub const MAX_TEXT_BYTES: usize = 1 << 10;
