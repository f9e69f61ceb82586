//! Excerpts of streams, from the workers that have them. In: questions of `http` and of the incidents, pieces of workers. Out: files. A worker that cannot answer (it
//! is of an earlier release, gone, or too slow) is no obstacle: what this process keeps of the stream is read in its place.
//!
//! Any activator can ask: every worker has a call to each.
#![expect(clippy::disallowed_methods, reason = "shell: deadlines, a thread for a copy")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::control::excerpt::WINDOW;
use liveedgecast_common::control::{ActivatorMessage, ExcerptOrder, ExcerptPart, ExcerptPiece, ExcerptRefusal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::Views;
use super::hub::Hub;
use crate::dispatch::CallId;
use crate::excerpt::{self, ExcerptError, Extent};

/// Time in which the next piece comes. A worker makes a file in some milliseconds, and its heartbeats come twice a second.
const PIECE_TIME: Duration = Duration::from_secs(2);
/// Time in which the whole file comes: 16 MiB at 10 Mbit/s.
const FILE_TIME: Duration = Duration::from_secs(15);
/// Bytes of a file at most: a worker ends one at 16 MiB, with the message that is its last then.
const MOST_BYTES: usize = 24 << 20;
/// Questions to a worker that makes another file …
const BUSY_ATTEMPTS: usize = 10;
/// … and the time between two of them.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Time in which the task of a publisher answers: it has nothing to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// The beginning of every file.
const FILE_BEGINS: &[u8] = b"FLV\x01";

/// The reason for which there is no excerpt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unexcerpted {
    /// The worker's word.
    #[error("{0}")]
    Refused(ExcerptRefusal),
    /// The bytes that this process keeps do not give one.
    #[error("{0}")]
    Kept(#[from] ExcerptError),
    /// Neither a worker nor this process has anything of the stream.
    #[error("nothing is kept of the stream here")]
    Nothing,
    /// The worker does not answer, and nothing else knows.
    #[error("the worker that has the stream does not answer: ask again")]
    Silent,
    /// The worker cannot be asked.
    #[error("no worker that can tell is within reach: it may be of an earlier release")]
    Unable,
}

impl Views {
    /// The last seconds of a stream, or its last keyframe, as an FLV file: of the worker that has the stream, or else of what this process keeps.
    pub(crate) async fn excerpt(&self, stream_id: &str, extent: Extent) -> Result<Vec<u8>, Unexcerpted> {
        let part = match extent {
            Extent::All => ExcerptPart::All,
            Extent::LastKeyframe => ExcerptPart::LastKeyframe,
        };
        let failed = match self.of_worker(stream_id, part).await {
            Ok(file) => return Ok(file),
            // It sees more of the stream than this process does.
            Err(Unexcerpted::Refused(refusal @ ExcerptRefusal::NoVideo)) => return Err(Unexcerpted::Refused(refusal)),
            Err(failed) => failed,
        };
        let Some(asked) = self.kept(stream_id) else {
            return Err(if matches!(failed, Unexcerpted::Unable) { Unexcerpted::Nothing } else { failed });
        };
        let Ok(Ok(kept)) = timeout(ANSWER_TIME, asked).await else { return Err(Unexcerpted::Nothing) };
        let read = spawn_blocking(move || excerpt::read(&kept, extent)).await;
        Ok(read.map_err(|error| ExcerptError::Memory(std::io::Error::other(error)))??)
    }

    /// The last keyframe that a destination has been sent, as an FLV file. Only the worker knows it.
    pub(crate) async fn sent_keyframe(&self, stream_id: &str, destination: &str) -> Result<Vec<u8>, Unexcerpted> {
        self.of_worker(stream_id, ExcerptPart::SentKeyframe(destination.to_owned())).await
    }

    /// The file of the worker. One that makes another file just now is asked again, as that takes it some milliseconds mostly.
    async fn of_worker(&self, stream_id: &str, part: ExcerptPart) -> Result<Vec<u8>, Unexcerpted> {
        for _ in 0..BUSY_ATTEMPTS {
            let asked = self.ask_worker(stream_id, part.clone()).ok_or(Unexcerpted::Unable)?;
            match asked.read().await {
                Err(Unexcerpted::Refused(ExcerptRefusal::Busy)) => sleep(BUSY_PAUSE).await,
                made => return made,
            }
        }
        Err(Unexcerpted::Refused(ExcerptRefusal::Busy))
    }

    /// Asks the worker that has the stream; `None`: none is registered here that answers.
    fn ask_worker(&self, stream_id: &str, part: ExcerptPart) -> Option<ExcerptReader> {
        let (sender, pieces) = mpsc::channel(WINDOW);
        let (number, call) = self.0.step(|state, now| {
            let call = state.machine.dispatcher.excerpts_of(stream_id)?;
            let number = state.excerpts.ask(call, sender);
            let order = ExcerptOrder { number, stream_id: stream_id.to_owned(), part };
            state.say(now, call, ActivatorMessage::Excerpt(order));
            Some((number, call))
        })?;
        Some(ExcerptReader { hub: Arc::clone(&self.0), call, number, pieces, whole: false })
    }
}

/// The excerpts that workers have been asked for and not given whole.
#[derive(Default)]
pub(super) struct AskedExcerpts {
    last: u64,
    /// By number; bounded by those who wait for one.
    asked: HashMap<u64, (CallId, mpsc::Sender<ExcerptPiece>)>,
}

impl AskedExcerpts {
    /// Notes a question and returns its number.
    fn ask(&mut self, call: CallId, pieces: mpsc::Sender<ExcerptPiece>) -> u64 {
        self.last += 1;
        self.asked.insert(self.last, (call, pieces));
        self.last
    }

    /// Passes on a piece. One that nobody has asked this worker for is dropped, and a worker that sends more than it was asked for is not listened to.
    pub(super) fn arrived(&mut self, call: CallId, piece: ExcerptPiece) {
        let number = piece.number;
        let known = self.asked.get(&number).filter(|(asked, _)| *asked == call);
        if known.is_some_and(|(_, pieces)| pieces.try_send(piece).is_err()) {
            self.asked.remove(&number);
        }
    }

    /// Forgets the questions of a call that has ended: those who wait for them hear of it.
    pub(super) fn call_ended(&mut self, call: CallId) {
        self.asked.retain(|_, (asked, _)| *asked != call);
    }
}

/// An excerpt that a worker has been asked for. Dropping it tells the worker that the rest is not wanted.
struct ExcerptReader {
    hub: Arc<Hub>,
    call: CallId,
    number: u64,
    pieces: mpsc::Receiver<ExcerptPiece>,
    whole: bool,
}

impl ExcerptReader {
    async fn read(mut self) -> Result<Vec<u8>, Unexcerpted> {
        timeout(FILE_TIME, self.read_pieces()).await.unwrap_or(Err(Unexcerpted::Silent))
    }

    async fn read_pieces(&mut self) -> Result<Vec<u8>, Unexcerpted> {
        let mut file = Vec::new();
        loop {
            let Ok(Some(piece)) = timeout(PIECE_TIME, self.pieces.recv()).await else {
                return Err(Unexcerpted::Silent);
            };
            self.whole = piece.last;
            file.extend_from_slice(&piece.bytes.map_err(Unexcerpted::Refused)?);
            if file.len() > MOST_BYTES || !file.starts_with(FILE_BEGINS) {
                return Err(Unexcerpted::Silent);
            }
            if self.whole {
                return Ok(file);
            }
            self.say(false);
        }
    }

    fn say(&self, drop: bool) {
        let number = self.number;
        self.hub.step(|state, now| state.say(now, self.call, ActivatorMessage::ExcerptNext { number, drop }));
    }
}

impl Drop for ExcerptReader {
    fn drop(&mut self) {
        self.hub.lock().excerpts.asked.remove(&self.number);
        if !self.whole {
            self.say(true);
        }
    }
}

#[cfg(test)]
#[path = "excerpts_tests.rs"]
mod tests;
