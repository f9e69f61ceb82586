//! The experiment behind the descriptor handoff: a stream's reader is killed at any moment, and the next one goes on from the socket, the
//! ring and the state page that it left behind.
//!
//! - [`holder`]: answers the publisher up to `publish`, keeps duplicates of its socket and of the ring, starts readers and kills them.
//! - [`reader`]: the least that a worker does; its own process (`takeover-reader`).
//! - [`Line`]: what readers write down, for the test to compare with what the publisher said.
//!
//! Both use the project's own rooms for everything that this is about (`sys`, `handoff`, the sessions), and nothing of activator and
//! worker: what fails here is the idea or those rooms.

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
pub enum Line {
    /// A reader has begun.
    Begin {
        /// Position from which on it understands.
        position: u64,
        /// Position to which its predecessors have read.
        head: u64,
        /// From the state page, or else from the assignment.
        from_page: bool,
    },
    /// It has read a message.
    Message {
        /// Position of its first byte; 0 if that came before the reader's first one.
        begins: u64,
        /// Its type.
        type_id: u8,
        /// Its timestamp, as the publisher said it.
        timestamp: u32,
        /// [`Line::digest`] of its payload.
        payload: u64,
    },
    /// The publisher has ended.
    End {
        /// Bytes of its connection.
        position: u64,
    },
}

impl Line {
    /// Tells payloads apart.
    #[must_use]
    pub fn digest(payload: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(payload);
        hasher.finish()
    }
}

impl fmt::Display for Line {
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

impl FromStr for Line {
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
