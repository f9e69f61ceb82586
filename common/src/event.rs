//! The values of the `event` field of log lines. One constant per event, defined here and nowhere else, so that an operator's filter or
//! alert outlives the sentence beside it. The part before the dot is the thing that the line is about, the part after it is past tense.

// A stream's life: at info, one line for each of these.

/// A publisher was admitted and waits for a worker.
pub const STREAM_PUBLISHED: &str = "stream.published";
/// The first upstream of a stream has started.
pub const STREAM_LIVE: &str = "stream.live";
/// A stream has ended; the line has its duration and its bytes.
pub const STREAM_ENDED: &str = "stream.ended";
/// An upstream that was live was lost.
pub const UPSTREAM_LOST: &str = "upstream.lost";
/// An upstream that was lost takes the stream again.
pub const UPSTREAM_BACK: &str = "upstream.back";
/// A publisher's connection was lost without a goodbye; the grace time runs.
pub const PUBLISHER_LOST: &str = "publisher.lost";
/// A publisher returned within the grace time.
pub const PUBLISHER_BACK: &str = "publisher.back";

// activator: accept, publisher, admission

// activator: lobby, processes, control

// activator: handoff, link

// activator: peers, scaler, kubernetes

// activator: http, ports, the process

// worker: register, receive

// worker: engine, stream

// worker: upstream

// worker: http, the process

// common

/// `accept` failed for want of descriptors or memory.
pub const ACCEPT_EXHAUSTED: &str = "accept.exhausted";
/// A connection broke in the backlog, before it was accepted.
pub const ACCEPT_FAILED: &str = "accept.failed";
