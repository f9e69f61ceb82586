//! The bounds on a publisher that no worker has yet: a name, a value, a reason.

use std::time::Duration;

/// Time from the connection to the last byte of the handshake. Its 3 KiB are sent at once by every client; GStreamer gives up after 5 s.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time from the connection to `publish`. Encoders need a few round trips; half a minute is also what librtmp waits for one answer.
pub(crate) const PUBLISH_TIME: Duration = Duration::from_secs(30);

/// Time from `publish` to the verdict. nginx-rtmp gives its `on_publish` callback 10 s, and clients wait 30 s for an answer; no pings are sent
/// meanwhile.
pub(crate) const VERDICT_TIME: Duration = Duration::from_secs(10);

/// Time between two PingRequests to a held publisher. OBS and librtmp die after 30 s without a byte; unknown encoders may be stricter.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);

/// Time from an offer to the worker's connection. The lobby withdraws an offer sooner; this is for a lobby that forgets to.
pub(crate) const OFFER_TIME: Duration = Duration::from_secs(5);

/// Most bytes of a held publisher that the session has not used. Media does not fill them: the reading stops at its first message.
pub(crate) const MAX_UNREAD: usize = 16 << 10;

/// Bytes for a publisher that its socket has not taken, at most. Our answers up to `Publish.Start` are below 4 KiB together: a client that
/// does not read them sends on only to make us answer more.
pub(crate) const MAX_UNSENT: usize = 16 << 10;

/// Bytes of one read.
pub(crate) const READ_BYTES: usize = 4 << 10;

/// Time from our last byte to the end of the connection: the time for a publisher to read a refusal (architecture.md, "Saying no").
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(2);

/// Time from a publisher's goodbye to the end of its connection, unless it publishes again: its last commands are on their way, and GStreamer's
/// rtmp2sink exits with status 1 when it finds our end before it has sent them.
pub(crate) const PARTED_TIME: Duration = Duration::from_secs(2);

/// Bytes that are read and discarded within [`LINGER_TIME`], at most: enough for a live publisher of 50 Mbps, and no free sink for a flood.
pub(crate) const LINGER_BYTES: usize = 16 << 20;

/// Offers in a row whose kind of handoff does not suit the stream, after which its publisher is asked to come again: a stream that began by
/// link cannot go to a worker by descriptor.
pub(crate) const MAX_MISFITS: u32 = 3;
