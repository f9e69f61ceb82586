//! The short way of media through the scanner. In: bytes of a connection. Out: a [`Run`] for each message, with its payload in pieces, in place
//! of two events and one more for each chunk. Everything unusual (a new chunk stream, a message that replaces another one, an empty one, the
//! state of a connection that was handed over within a chunk) is left to [`ChunkScanner::scan`], which finds the same bytes.

use super::super::MessageHeader;
use super::stream::repeats;
use super::{ChunkScanner, basic_header};

/// Payload bytes of a message, in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte.
    pub position: u64,
    /// Bytes of payload.
    pub len: u32,
}

/// All that the bytes given hold of one media message, up to a chunk of another message: the events from `Begin` to `Payload` in one. The
/// payload is in the pieces beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Header of the message, also when the message began before.
    pub header: MessageHeader,
    /// Position of the first byte of its first chunk header, if the message begins here.
    pub begins: Option<u64>,
    /// Payload bytes of the message up to the end of these pieces.
    pub received: u32,
    /// True if the message is complete.
    pub last: bool,
}

impl ChunkScanner {
    /// Finds all that `input` (as for [`Self::scan`]) holds of one message, up to a chunk of another one, and adds its payload to `pieces`.
    /// `wanted` tells of a type and a message stream whether such a message may be taken so; every open message must be of that kind.
    /// `None`: [`Self::scan`] has to look, at the bytes behind those that have been used.
    #[inline]
    pub(in crate::rtmp) fn run(
        &mut self,
        input: &[u8],
        pieces: &mut Vec<Piece>,
        wanted: impl Fn(u8, u32) -> bool,
    ) -> Option<Run> {
        if self.eventful {
            return None;
        }
        let start = self.position;
        let mut begins = None;
        if !self.in_chunk {
            let (format, csid, basic) = basic_header(input)?;
            let index = self.find(csid)?;
            let known = &self.streams[index].now;
            if known.is_open() {
                if format == 3 {
                    self.continue_message(index, basic, &input[basic..]);
                }
                if !self.in_chunk {
                    return None;
                }
            } else {
                let mut stream = *known;
                let used = stream.begin(format, &input[basic..])?;
                // An empty message has no payload, and yet an event that says so.
                if stream.length() == 0 || !wanted(stream.type_id(), stream.stream_id) {
                    return None;
                }
                begins = Some(start);
                self.begin(Some(index), stream, basic + used);
            }
        }
        let last = self.run_payload(&input[(self.position - start) as usize..], pieces);
        if pieces.is_empty() && begins.is_none() {
            return None;
        }
        let stream = &self.streams[usize::from(self.last)].now;
        Some(Run { header: stream.header(), begins, received: stream.received, last })
    }

    /// Takes the payload of the current chunk, and of the chunks of the same message that follow at once. Returns whether it is complete.
    #[inline]
    fn run_payload(&mut self, input: &[u8], pieces: &mut Vec<Piece>) -> bool {
        let (mut position, mut rest, mut remaining) = (self.position, input, self.remaining as usize);
        let chunk_size = self.chunk_size;
        let stream = self.touch(usize::from(self.last));
        let (mut missing, extended) = (stream.missing(), stream.extended());
        // A longer id has a longer basic header: each of its chunks is a run.
        let continuation = 0xC0 | if stream.csid() < 64 { stream.csid() as u8 } else { 0 };
        let in_chunk = loop {
            let taken = remaining.min(rest.len());
            let (payload, behind) = rest.split_at(taken);
            if !payload.is_empty() {
                pieces.push(Piece { position, len: taken as u32 });
                missing -= taken as u32;
                position += taken as u64;
                remaining -= taken;
                rest = behind;
            }
            if remaining > 0 {
                break true;
            }
            match rest.split_first() {
                Some((&first, behind)) if missing > 0 && first == continuation && first != 0xC0 => {
                    let repeated = match extended.map(|value| repeats(value, behind)) {
                        Some(None) => break false,
                        Some(Some(true)) => 4,
                        Some(Some(false)) | None => 0,
                    };
                    rest = &behind[repeated..];
                    position += 1 + repeated as u64;
                    remaining = chunk_size.min(missing) as usize;
                }
                _ => break false,
            }
        };
        stream.received = stream.length() - missing;
        if missing == 0 {
            stream.close();
        }
        (self.position, self.remaining, self.in_chunk) = (position, remaining as u32, in_chunk);
        missing == 0
    }
}
