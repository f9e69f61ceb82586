//! Changes of objects as the API server reports them. In: a path. Out: events, each with the time at which it was received.
//!
//! Note: a creationTimestamp has whole seconds only, which proves nothing about a cold start; the time of an event here is a few
//! milliseconds after the write of the object.
#![expect(clippy::disallowed_methods, reason = "shell: a thread per watch")]

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::cluster::api::ClusterApi;
use crate::wait::{now, until_some};

/// A change of an object.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// Time of receipt.
    pub at: Instant,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub what: String,
    /// The object after the change.
    pub object: Value,
}

impl WatchEvent {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// A running watch.
#[derive(Debug)]
pub struct ObjectWatch {
    events: Arc<Mutex<Vec<WatchEvent>>>,
    socket: TcpStream,
}

impl ObjectWatch {
    /// Watches the objects at `path` from now on: those that exist already are reported as `ADDED` first.
    ///
    /// # Panics
    /// The API does not answer.
    #[must_use]
    pub fn new(api: &ClusterApi, path: &str) -> Self {
        let mut socket = TcpStream::connect(api.address).expect("kubectl proxy");
        let joint = if path.contains('?') { '&' } else { '?' };
        // Version 0 asks for all objects, from the server's memory.
        let target = format!("{path}{joint}watch=1&resourceVersion=0");
        write!(socket, "GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", api.address).expect("a request");
        let events = Arc::<Mutex<Vec<WatchEvent>>>::default();
        let (shared, reader) = (Arc::clone(&events), socket.try_clone().expect("a socket"));
        thread::spawn(move || {
            let mut answer = BufReader::new(reader);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if answer.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
            for line in BufReader::new(Chunks { answer, left: 0 }).lines().map_while(Result::ok) {
                let Ok(mut event) = serde_json::from_str::<Value>(&line) else { continue };
                let what = event["type"].as_str().unwrap_or_default().to_owned();
                let event = WatchEvent { at: now(), what, object: event["object"].take() };
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Self { events, socket }
    }

    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<WatchEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first event for which a condition holds.
    #[track_caller]
    pub fn first(&self, what: &str, is: impl Fn(&WatchEvent) -> bool) -> WatchEvent {
        until_some(what, || self.events().into_iter().find(&is))
    }
}

impl Drop for ObjectWatch {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The body of a chunked answer. An event may be in several chunks.
struct Chunks {
    answer: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut size = String::new();
            if self.answer.read_line(&mut size)? == 0 {
                return Ok(0);
            }
            // The end of the line behind the previous chunk reads as an empty line.
            if !size.trim().is_empty() {
                self.left = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                if self.left == 0 {
                    return Ok(0);
                }
            }
        }
        let most = self.left.min(buffer.len());
        let length = self.answer.read(&mut buffer[..most])?;
        self.left -= length;
        Ok(length)
    }
}
