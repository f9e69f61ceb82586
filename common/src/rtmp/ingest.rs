//! The scanner plus assembly of the messages that a session must read. In: bytes of a connection. Out: control messages and commands,
//! whole, to [`super::server`] or [`super::client`]; media as the scanner's events, its payload left in place, to the stream ring or, while
//! a publisher is held, as the sign to stop reading.
//!
//! Note: a snapshot at a keyframe is a state of the past (before the chunk that began it), and a command that was open then may be complete
//! now. Its bytes of that time are kept until the next message begins, so that the state is exact and costs a copy only for commands that
//! are interleaved with media.

use serde::{Deserialize, Serialize};

use super::chunk::{ChunkError, ChunkScanner, Piece, Run, Scanned, ScannerState};
use super::limits::{MAX_ASSEMBLY, MAX_CONTROL_MESSAGE};
use super::{MessageHeader, is_media};

/// True if a message is neither media nor assembled: of a type that has no reader here, and long.
fn is_passed_over(header: &MessageHeader) -> bool {
    !is_media(header.type_id) && header.length > MAX_CONTROL_MESSAGE
}

/// An event of the ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingested {
    /// A message that is not media, whole: [`super::is_media`] is false for it.
    Message {
        /// Header of the message.
        header: MessageHeader,
        /// Payload of `header.length` bytes.
        payload: Vec<u8>,
    },
    /// Audio, video, data or an aggregate.
    Media(Scanned),
}

/// A message that is being assembled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Partial {
    header: MessageHeader,
    payload: Vec<u8>,
}

/// The whole state of an [`Ingest`], as data: a part of every snapshot. Comes back through [`Ingest::restore`], which trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestState {
    scanner: ScannerState,
    partials: Vec<Partial>,
}

impl IngestState {
    /// Position of the next byte, counted from the start of the connection.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }

    /// Incomplete messages, media included.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.scanner.open_messages()
    }

    /// Headers of the incomplete messages, with the number of bytes received of each.
    pub fn open(&self) -> impl Iterator<Item = (MessageHeader, u32)> + '_ {
        self.scanner.open()
    }
}

/// Reads the bytes that a peer sends after the handshake. The fields that every message needs come first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Ingest {
    /// Messages skipped.
    passed: u64,
    /// True if nothing is assembled, skipped or kept in the lists below.
    quiet: bool,
    scanner: ChunkScanner,
    /// Partial payloads, each of an open message; so there are at most as many as chunk streams. Empty nearly always.
    partials: Vec<Partial>,
    /// Sum of the partial payloads.
    assembling: usize,
    /// Partials that were there at the last `Begin` and have been completed or aborted since.
    gone: Vec<Partial>,
    /// Chunk streams whose open message is skipped. Empty nearly always.
    passing: Vec<u32>,
    /// Messages begun by [`Self::next`], wrapping.
    begun: u64,
}

impl Ingest {
    /// An ingest whose first byte has this position in the connection.
    #[must_use]
    pub fn new(position: u64) -> Self {
        Self {
            passed: 0,
            quiet: true,
            scanner: ChunkScanner::new(position),
            partials: Vec::new(),
            assembling: 0,
            gone: Vec::new(),
            passing: Vec::new(),
            begun: 0,
        }
    }

    /// Continues from a state, which may come from a page that any process wrote to: every bound is checked.
    ///
    /// # Errors
    /// [`ChunkError::State`], with the reason why the state is not valid.
    pub fn restore(state: &IngestState) -> Result<Self, ChunkError> {
        let scanner = ChunkScanner::restore(&state.scanner)?;
        let (passed, others): (Vec<_>, Vec<_>) = state.scanner.open().partition(|(header, _)| is_passed_over(header));
        let assembled: Vec<_> = others.into_iter().filter(|(header, _)| !is_media(header.type_id)).collect();
        for (header, received) in &assembled {
            let fits = |partial: &&Partial| partial.header == *header && partial.payload.len() == *received as usize;
            if state.partials.iter().filter(fits).count() != 1 {
                return Err(ChunkError::State("payload of an open message"));
            }
        }
        if state.partials.len() != assembled.len() {
            return Err(ChunkError::State("payload of no open message"));
        }
        let assembling = state.partials.iter().map(|partial| partial.payload.len()).sum();
        if assembling > MAX_ASSEMBLY {
            return Err(ChunkError::TooMuchAssembly);
        }
        Ok(Self {
            passed: 0,
            quiet: state.partials.is_empty() && passed.is_empty(),
            scanner,
            partials: state.partials.clone(),
            assembling,
            gone: Vec::new(),
            passing: passed.into_iter().map(|(header, _)| header.csid).collect(),
            begun: 0,
        })
    }

    /// See [`super::server::ServerSession::chunk_streams`].
    pub(super) fn chunk_streams(&self) -> &[impl Sized + use<>] {
        self.scanner.chunk_streams()
    }

    /// Position of the next byte to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }

    /// The peer's current chunk size.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.scanner.chunk_size()
    }

    /// The state between any two calls of [`Self::next`].
    #[must_use]
    pub fn state(&self) -> IngestState {
        IngestState { scanner: self.scanner.state(), partials: self.partials.clone() }
    }

    /// The state as of the first byte of the chunk that began the last message, media or not; before any, as of the start.
    #[must_use]
    pub fn state_before_chunk(&self) -> IngestState {
        let scanner = self.scanner.state_before_chunk();
        let mut partials = Vec::new();
        for (header, received) in scanner.open() {
            let known = self.gone.iter().chain(&self.partials).find(|partial| partial.header == header);
            if let Some(partial) = known {
                let payload = partial.payload[..partial.payload.len().min(received as usize)].to_vec();
                partials.push(Partial { header, payload });
            }
        }
        IngestState { scanner, partials }
    }

    /// Messages begun and not complete, media included.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.scanner.open_messages()
    }

    /// Messages begun by [`Self::next`] so far, of any type, wrapping: it changes whenever that changes [`Self::state_before_chunk`].
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Messages skipped since this ingest was made: long, and of no type that is known here.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Finds the next event in `input`, whose first byte is the one at [`Self::position`]. Used bytes are gone: the next call wants the
    /// bytes from the new position on. `None`: more bytes are needed than were given (some may have been used all the same).
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the connection is of no further use.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Ingested>, ChunkError> {
        let found = self.find(input);
        self.quiet = self.partials.is_empty() && self.gone.is_empty() && self.passing.is_empty();
        found
    }

    /// Finds all that `input` (as for [`Self::next`]) holds of one media message, up to a chunk of another one, and adds its payload to
    /// `pieces`. `wanted` tells whether messages of a message stream may be taken so. `None`: [`Self::next`] has to look, at the bytes behind
    /// those that have been used.
    #[inline]
    pub(super) fn run(&mut self, input: &[u8], pieces: &mut Vec<Piece>, wanted: impl Fn(u32) -> bool) -> Option<Run> {
        // Without an open message of ours, all open ones are media.
        if !self.quiet {
            return None;
        }
        self.scanner.run(input, pieces, |type_id, stream_id| is_media(type_id) && wanted(stream_id))
    }

    /// Header of the last message begun on a chunk stream, and the number of bytes received of it.
    pub(super) fn progress(&self, csid: u32) -> Option<(MessageHeader, u32)> {
        self.scanner.progress(csid)
    }

    /// True if nothing is assembled or skipped, and nothing kept for [`Self::state_before_chunk`].
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    fn find(&mut self, input: &[u8]) -> Result<Option<Ingested>, ChunkError> {
        let start = self.scanner.position();
        loop {
            let used = (self.scanner.position() - start) as usize;
            let Some(scanned) = self.scanner.scan(&input[used..])? else { return Ok(None) };
            match scanned {
                Scanned::Begin { header, .. } => {
                    self.gone.clear();
                    self.begun = self.begun.wrapping_add(1);
                    if is_media(header.type_id) {
                        return Ok(Some(Ingested::Media(scanned)));
                    }
                    if is_passed_over(&header) {
                        self.passing.push(header.csid);
                        self.passed += 1;
                        continue;
                    }
                    self.partials.push(Partial { header, payload: Vec::new() });
                }
                Scanned::Payload { csid, last, .. } if self.is_passing(csid) => {
                    if last {
                        self.passing.retain(|passing| *passing != csid);
                    }
                }
                Scanned::Payload { csid, at, len, last } => {
                    let Some(index) = self.partial(csid) else { return Ok(Some(Ingested::Media(scanned))) };
                    let from = (at - start) as usize;
                    self.assembling += len as usize;
                    if self.assembling > MAX_ASSEMBLY {
                        return Err(ChunkError::TooMuchAssembly);
                    }
                    self.partials[index].payload.extend_from_slice(&input[from..from + len as usize]);
                    if last {
                        let Partial { header, payload } = self.remove(index);
                        self.settle_abort();
                        return Ok(Some(Ingested::Message { header, payload }));
                    }
                }
                Scanned::Aborted { csid, .. } if self.is_passing(csid) => {
                    self.passing.retain(|passing| *passing != csid);
                }
                Scanned::Aborted { csid, .. } => match self.partial(csid) {
                    Some(index) => drop(self.remove(index)),
                    None => return Ok(Some(Ingested::Media(scanned))),
                },
            }
        }
    }

    /// An Abort takes its partial with it at once, so that no saved state has a partial without an open message.
    fn settle_abort(&mut self) {
        let index = self.scanner.aborted().and_then(|(csid, _)| self.partial(csid));
        if let Some(index) = index {
            *self.scanner.aborted() = None;
            self.remove(index);
        }
    }

    fn is_passing(&self, csid: u32) -> bool {
        !self.passing.is_empty() && self.passing.contains(&csid)
    }

    fn partial(&self, csid: u32) -> Option<usize> {
        self.partials.iter().position(|partial| partial.header.csid == csid)
    }

    /// Removes a partial; one that was open at the last `Begin` is kept as it was then.
    fn remove(&mut self, index: usize) -> Partial {
        let partial = self.partials.swap_remove(index);
        self.assembling -= partial.payload.len();
        let before = self.scanner.open_before().find(|(header, _)| *header == partial.header);
        if let Some((header, received)) = before {
            self.gone.push(Partial { header, payload: partial.payload[..received as usize].to_vec() });
        }
        partial
    }
}

#[cfg(test)]
#[path = "ingest_tests.rs"]
mod tests;
