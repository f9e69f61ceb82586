//! The experiment behind the descriptor handoff: a stream's reader is killed at an arbitrary moment, and the next one continues from the
//! socket, the ring and the state page.
//!
//! - [`holder`]: answers the publisher up to `publish`, keeps duplicates of its socket and of the ring, starts readers and kills them.
//! - [`reader`]: the smallest part of a worker that this needs, in its own process (`takeover-reader`).
//! - [`LogLine`]: log lines of readers, which the test compares with the publisher's messages.
//!
//! Both use the project's own modules for everything under test (`sys`, `handoff`, the sessions), and nothing of activator and worker: a
//! failure here is a failure of the idea or of those modules.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::str::FromStr;

use anyhow::Context;
use liveedgecast_common::key::Secret;
use liveedgecast_common::sys::send_with_fds;
use tokio::net::UnixStream;

pub mod holder;
pub mod reader;

/// A line of a reader's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// A reader has started.
    Begin {
        /// Position from which the reader parses.
        position: u64,
        /// Position up to which its predecessors have read.
        head: u64,
        /// True if the snapshot came from the state page rather than from the assignment.
        from_page: bool,
    },
    /// The reader has read a message.
    Message {
        /// Position of the message's first byte; 0 if that lies before the reader's first one.
        begins: u64,
        /// Type id of the message.
        type_id: u8,
        /// Timestamp of the message, as the publisher sent it.
        timestamp: u32,
        /// [`LogLine::digest`] of the payload.
        payload: u64,
    },
    /// The publisher has ended.
    End {
        /// Number of bytes of the publisher's connection.
        position: u64,
    },
}

impl LogLine {
    /// A hash that distinguishes payloads.
    #[must_use]
    pub fn digest(payload: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(payload);
        hasher.finish()
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { position, head, from_page } => write!(f, "begin {position} {head} {from_page}"),
            Self::Message { begins, type_id, timestamp, payload } => {
                write!(f, "message {begins} {type_id} {timestamp} {payload}")
            }
            Self::End { position } => write!(f, "end {position}"),
        }
    }
}

impl FromStr for LogLine {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let line = match words[..] {
            ["begin", position, head, from_page] => {
                Self::Begin { position: position.parse()?, head: head.parse()?, from_page: from_page.parse()? }
            }
            ["message", begins, type_id, timestamp, payload] => Self::Message {
                begins: begins.parse()?,
                type_id: type_id.parse()?,
                timestamp: timestamp.parse()?,
                payload: payload.parse()?,
            },
            ["end", position] => Self::End { position: position.parse()? },
            _ => None.with_context(|| format!("a line of a log: {line}"))?,
        };
        Ok(line)
    }
}

fn secret() -> Secret {
    Secret::new("holder and reader")
}

async fn send_all(control: &UnixStream, bytes: &[u8]) -> anyhow::Result<()> {
    if !bytes.is_empty() {
        send_with_fds(control, bytes, &[]).await?;
    }
    Ok(())
}
