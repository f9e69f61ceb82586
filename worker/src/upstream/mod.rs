//! Upstreams: one [`Upstream`] is the way to one destination, from the DNS question to the last byte.
//!
//! In: a resolved [`PushUrl`] and, once live, chunks of media. Out: a connection that is live or on its way to be again, and
//! [`UpstreamEvent`]s for the stream's task, which owns and polls it: no task and no channel of its own. This is the last room of ours.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use liveedgecast_common::control;
use liveedgecast_common::url::PushUrl;

pub use liveedgecast_common::rtmp::client::Class;

/// What all upstreams of a process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    tls: Arc<rustls::ClientConfig>,
}

impl Shared {
    /// Loads the machine's root certificates, or those of `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// TLS cannot be set up at all. A missing root store is no error: RTMP without TLS works all the same.
    pub fn load() -> Result<Self, rustls::Error> {
        todo!()
    }

    /// With these root certificates only.
    ///
    /// # Errors
    /// TLS cannot be set up at all.
    pub fn with_roots(roots: rustls::RootCertStore) -> Result<Self, rustls::Error> {
        let _ = roots;
        todo!()
    }
}

/// What the owner of an [`Upstream`] must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// A new session is live: media may be written, beginning with headers and a keyframe, timestamps near 0.
    Live,
    /// The live session is gone; the next attempt follows by itself.
    Lost {
        /// Bytes taken by [`Upstream::poll_write_vectored`] in that session that the peer has not acknowledged.
        unacknowledged: u64,
        /// For the log; holds no secret.
        why: String,
    },
    /// It clearly said no before it was live; the next attempt follows by itself all the same.
    Refused {
        /// What kind of no.
        class: Class,
    },
    /// After [`Upstream::close`]: the upstream is done and can be dropped.
    Closed,
}

/// The way to one destination. Poll it whenever the task is woken, when [`Self::next_timeout`] is due, and after [`Self::close`].
pub struct Upstream {
    shared: Shared,
}

impl Upstream {
    /// Begins to dial at the first [`Self::poll`]. `seed`: the chance in its back-off and in its answers to challenges.
    #[must_use]
    pub fn new(url: PushUrl, shared: &Shared, seed: u64, now: Instant) -> Self {
        let _ = (url, seed, now);
        Self { shared: shared.clone() }
    }

    /// Does what can be done now and returns the next event. After `Ready`, poll again until `Pending`; then take
    /// [`Self::take_control`] if it is live.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<UpstreamEvent> {
        let _ = (cx, now, &self.shared.tls);
        todo!()
    }

    /// When to poll at the latest, even if nothing wakes the task.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Whether media may be written.
    #[must_use]
    pub fn is_live(&self) -> bool {
        todo!()
    }

    /// Message stream id for media of this session.
    #[must_use]
    pub fn message_stream(&self) -> u32 {
        todo!()
    }

    /// Bytes of payload in each chunk of this session.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        todo!()
    }

    /// Whole chunks (acknowledgements, pongs) to be written between two messages, in full, through [`Self::poll_write_vectored`]. Empty
    /// nearly always. Look for them after each poll and write them even when there is no media.
    pub fn take_control(&mut self) -> Vec<u8> {
        todo!()
    }

    /// Writes part of the slices, and says how many bytes. On `Pending` the task is woken when it can be tried again. An error means that
    /// the next [`Self::poll`] tells `Lost`. Never counts less in [`Self::unacknowledged`] than it said here.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let _ = (cx, slices);
        todo!()
    }

    /// Bytes taken by [`Self::poll_write_vectored`] that the peer's kernel has not acknowledged; with TLS more rather than less.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        todo!()
    }

    /// Ends the session for good: `FCUnpublish`, `deleteStream`, FIN, then at most 2 s for the peer's. Poll until `Closed`.
    /// `between_messages`: the last message was written to its end; where not, nothing may be put into it and the FIN alone says it.
    pub fn close(&mut self, between_messages: bool) {
        let _ = between_messages;
        todo!()
    }

    /// What is shown of it; message counters are the stream's to fill.
    #[must_use]
    pub fn status(&self) -> control::Upstream {
        todo!()
    }
}
