//! Reads what is kept of a stream. In: [`KeptBytes`]. Out: the bytes of an FLV file. It blocks for the time of a copy, some milliseconds, so it is
//! not for a thread that serves streams. Next: [`super::flv`], which understands the bytes.

use std::io;
use std::os::fd::OwnedFd;

use liveedgecast_common::sys::RingPeek;

use super::KeptBytes;
use super::flv::{Extent, FlvExcerpt};

/// Attempts to read a ring before its worker has moved on. A worker publishes a snapshot five times a second at most, and a copy takes milliseconds.
const ATTEMPTS: usize = 4;
/// Bytes that are copied and understood at once.
const PIECE: usize = 256 << 10;

/// The reason for which there is no excerpt.
#[derive(Debug, thiserror::Error)]
pub enum ExcerptError {
    /// The stream has no media yet, or none from a keyframe on is kept at the moment.
    #[error("no keyframe of the stream is kept at the moment: ask again in a second or two")]
    NoKeyframe,
    /// The stream has no video, so that it has no keyframes.
    #[error("the stream has sent no video")]
    NoVideo,
    /// The worker was faster than every attempt.
    #[error("the stream moved on while it was read: ask again")]
    MovedOn,
    /// The kernel's error.
    #[error("the stream's memory cannot be read: {0}")]
    Memory(#[from] io::Error),
}

/// The position of a publisher's connection that the last state in this memory is of; `None` if no worker has left one.
pub(crate) fn position(memory: &OwnedFd) -> Option<u64> {
    let peek = RingPeek::new(memory).ok()??;
    Some(peek.snapshot().session.position())
}

/// The excerpt as an FLV file.
///
/// # Errors
/// There is none now; it may be there a second later.
pub fn read(kept: &KeptBytes, extent: Extent) -> Result<Vec<u8>, ExcerptError> {
    let (memory, head) = match kept {
        KeptBytes::Memory { memory, head } => (memory, *head),
        KeptBytes::Copied { snapshot, bytes } => {
            let mut excerpt = FlvExcerpt::new(snapshot, extent).ok_or(ExcerptError::NoKeyframe)?;
            excerpt.push(bytes);
            return finish(excerpt);
        }
    };
    let mut moved = false;
    for _ in 0..ATTEMPTS {
        // Nothing is published before the first keyframe; and a slot that is just being written counts as not there.
        let Some(peek) = RingPeek::new(memory)? else { continue };
        moved = true;
        if !peek.reaches(head) {
            continue;
        }
        let mut excerpt = FlvExcerpt::new(peek.snapshot(), extent).ok_or(ExcerptError::NoKeyframe)?;
        let mut position = peek.snapshot().session.position();
        let mut piece = Vec::new();
        while position < head {
            piece.resize(PIECE.min(usize::try_from(head - position).unwrap_or(PIECE)), 0);
            peek.copy(position, &mut piece)?;
            position += piece.len() as u64;
            if !excerpt.push(&piece) {
                break;
            }
        }
        if peek.is_unchanged()? {
            return finish(excerpt);
        }
    }
    Err(if moved { ExcerptError::MovedOn } else { ExcerptError::NoKeyframe })
}

fn finish(excerpt: FlvExcerpt) -> Result<Vec<u8>, ExcerptError> {
    let missing = if excerpt.is_sound_alone() { ExcerptError::NoVideo } else { ExcerptError::NoKeyframe };
    excerpt.finish().ok_or(missing)
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::handoff::{Snapshot, page};
    use liveedgecast_common::sys::{RingMemory, UnmappedRing};

    use super::super::flv::tests::{media, snapshot, sound};
    use super::*;

    #[test]
    fn ring_gives_the_same_file_as_a_copy_unless_its_worker_has_moved_on() {
        let memory = RingMemory::create(1 << 16).unwrap();
        let mut ring = UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap();
        let (snapshot, bytes) = (snapshot(), media());
        let position = snapshot.session.position();
        let head = position + bytes.len() as u64;
        ring.space(position, bytes.len()).copy_from_slice(&bytes);
        let kept = |head| KeptBytes::Memory { memory: memory.try_clone().unwrap(), head };
        assert!(matches!(read(&kept(head), Extent::All), Err(ExcerptError::NoKeyframe)), "nothing is published");
        assert!(page::publish(ring.page_mut(), &snapshot));
        let copied = KeptBytes::Copied { snapshot: Box::new(snapshot), bytes: bytes.clone() };
        let whole = read(&copied, Extent::All).unwrap();
        assert_eq!(read(&kept(head), Extent::All).unwrap(), whole);
        // The last message is not there yet.
        assert!(read(&kept(head - 1), Extent::All).unwrap().len() < whole.len());
        assert!(matches!(read(&kept(position + (1 << 16) + 1), Extent::All), Err(ExcerptError::MovedOn)));
        assert!(matches!(read(&kept(position - 1), Extent::All), Err(ExcerptError::MovedOn)), "of another stream");
        assert!(!format!("{:?} {copied:?}", kept(head)).contains("alpha"), "a key is shown");
    }

    #[test]
    fn stream_of_sound_alone_has_no_keyframe_for_another_reason_than_one_that_has_none_yet() {
        let mut heard = snapshot();
        let state = heard.stream.as_mut().expect("media");
        state.headers.pop();
        let last = |snapshot: &Snapshot, bytes: Vec<u8>| {
            read(&KeptBytes::Copied { snapshot: Box::new(snapshot.clone()), bytes }, Extent::LastKeyframe).unwrap_err()
        };
        assert!(matches!(last(&heard, sound(70)), ExcerptError::NoVideo));
        assert!(matches!(last(&heard, Vec::new()), ExcerptError::NoKeyframe), "nothing is known yet");
        assert!(matches!(last(&snapshot(), sound(70)), ExcerptError::NoKeyframe), "its video has a header");
        // A codec without headers.
        heard.stream.as_mut().expect("media").last_timestamp.video = Some(5);
        assert!(matches!(last(&heard, sound(70)), ExcerptError::NoKeyframe));
    }
}
