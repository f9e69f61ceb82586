//! The rules of excerpts on the way to activators: one at a time, in pieces, no more of them on their way than the activator has asked for. In: questions of
//! activators, files of streams. Out: [`ExcerptPiece`]s. Pure; the shell is `task`.
//!
//! No timer runs: an activator that asks for nothing more keeps its turn until another question comes, and [`HELD_FOR`] has passed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::control::excerpt::WINDOW;
use liveedgecast_common::control::{ExcerptPiece, ExcerptRefusal};
use liveedgecast_common::discovery::AttemptId;

use crate::stream::{ExcerptAnswer, ExcerptPieces};

/// Time after its last sign of life at which an excerpt gives way to another one.
const HELD_FOR: Duration = Duration::from_secs(5);

/// A question, by its call and its number there.
pub(super) type ExcerptQuestion = (AttemptId, u64);

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Excerpts {
    turn: Option<ExcerptTurn>,
    /// Pieces to be said.
    outputs: VecDeque<(AttemptId, ExcerptPiece)>,
}

#[derive(Debug)]
struct ExcerptTurn {
    question: ExcerptQuestion,
    /// The last sign of life of the one who asks.
    heard: Instant,
    /// Pieces that may be sent now.
    room: usize,
    /// `None` until the stream has made the file.
    pieces: Option<VecDeque<bytes::Bytes>>,
}

impl Excerpts {
    /// Takes a question; `true`: the stream is to be asked. `unsent`: messages that wait on the call of the one who asks. Among them are the pieces for
    /// questions that nobody waits for any more, and reports would wait behind them and behind further ones.
    pub(super) fn ask(&mut self, now: Instant, question: ExcerptQuestion, unsent: usize) -> bool {
        if unsent > WINDOW
            || self.turn.as_ref().is_some_and(|turn| now.saturating_duration_since(turn.heard) < HELD_FOR)
        {
            self.refuse(question, ExcerptRefusal::Busy);
            return false;
        }
        self.turn = Some(ExcerptTurn { question, heard: now, room: WINDOW, pieces: None });
        true
    }

    /// Takes the answer of the stream; `None`: the stream is not there.
    pub(super) fn made(&mut self, question: ExcerptQuestion, answer: Option<ExcerptAnswer>) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.question == question) else { return };
        let made: Result<ExcerptPieces, _> = answer.unwrap_or(Err(ExcerptRefusal::StreamUnknown));
        match made {
            Ok(pieces) => turn.pieces = Some(pieces.into()),
            Err(refusal) => {
                self.turn = None;
                self.refuse(question, refusal);
            }
        }
        self.send();
    }

    /// A piece was taken.
    pub(super) fn taken(&mut self, now: Instant, question: ExcerptQuestion) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.question == question) {
            (turn.heard, turn.room) = (now, (turn.room + 1).min(WINDOW));
        }
        self.send();
    }

    /// The rest is not wanted.
    pub(super) fn dropped(&mut self, question: ExcerptQuestion) {
        self.turn.take_if(|turn| turn.question == question);
    }

    /// The call has ended.
    pub(super) fn call_ended(&mut self, attempt: AttemptId) {
        self.turn.take_if(|turn| turn.question.0 == attempt);
    }

    /// The next piece to say.
    pub(super) fn poll_output(&mut self) -> Option<(AttemptId, ExcerptPiece)> {
        self.outputs.pop_front()
    }

    fn refuse(&mut self, (attempt, number): ExcerptQuestion, refusal: ExcerptRefusal) {
        self.outputs.push_back((attempt, ExcerptPiece { number, bytes: Err(refusal), last: true }));
    }

    fn send(&mut self) {
        let Some(ExcerptTurn { question: (attempt, number), room, pieces: Some(pieces), .. }) = &mut self.turn else {
            return;
        };
        while *room > 0
            && let Some(bytes) = pieces.pop_front()
        {
            *room -= 1;
            let piece = ExcerptPiece { number: *number, bytes: Ok(bytes), last: pieces.is_empty() };
            self.outputs.push_back((*attempt, piece));
        }
        self.turn.take_if(|turn| turn.pieces.as_ref().is_some_and(VecDeque::is_empty));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use liveedgecast_common::testkit::origin;

    use super::*;

    const ONE: ExcerptQuestion = (AttemptId(1), 7);
    const OTHER: ExcerptQuestion = (AttemptId(2), 7);

    /// The first byte of each piece that is said, or the refusal; and whether the last one is the end.
    fn said(excerpts: &mut Excerpts) -> (Vec<Result<u8, ExcerptRefusal>>, bool) {
        let all: Vec<_> = std::iter::from_fn(|| excerpts.poll_output()).collect();
        let last = all.last().is_some_and(|(_, piece)| piece.last);
        (all.into_iter().map(|(_, piece)| piece.bytes.map(|bytes| bytes[0])).collect(), last)
    }

    fn pieces(count: u8) -> Option<ExcerptAnswer> {
        Some(Ok((0..count).map(|number| Bytes::from(vec![number])).collect()))
    }

    #[test]
    fn question_on_a_call_that_is_behind_is_refused() {
        let (now, mut excerpts) = (origin(), Excerpts::default());
        // Four pieces of a file that nobody wants any more are still to be sent, and then one report more.
        assert!(excerpts.ask(now, ONE, 0));
        excerpts.made(ONE, pieces(9));
        said(&mut excerpts);
        excerpts.dropped(ONE);
        assert!(!excerpts.ask(now, OTHER, WINDOW + 1));
        assert_eq!(said(&mut excerpts), (vec![Err(ExcerptRefusal::Busy)], true));
        assert!(excerpts.ask(now, OTHER, WINDOW));
    }

    #[test]
    fn no_more_pieces_are_on_their_way_than_the_window_and_others_wait_for_their_turn() {
        let (now, mut excerpts) = (origin(), Excerpts::default());
        assert!(excerpts.ask(now, ONE, 0));
        assert!(!excerpts.ask(now, OTHER, 0));
        assert_eq!(said(&mut excerpts), (vec![Err(ExcerptRefusal::Busy)], true));
        excerpts.made(OTHER, pieces(1));
        assert_eq!(said(&mut excerpts), (vec![], false), "nobody asked for it");
        excerpts.made(ONE, pieces(6));
        assert_eq!(said(&mut excerpts), (vec![Ok(0), Ok(1), Ok(2), Ok(3)], false));
        excerpts.taken(now, OTHER);
        assert_eq!(said(&mut excerpts), (vec![], false));
        excerpts.taken(now, ONE);
        assert_eq!(said(&mut excerpts), (vec![Ok(4)], false));
        excerpts.taken(now, ONE);
        assert_eq!(said(&mut excerpts), (vec![Ok(5)], true));
        assert!(excerpts.ask(now, OTHER, 0), "the turn is over");
        excerpts.made(OTHER, Some(Err(ExcerptRefusal::NoVideo)));
        assert_eq!(said(&mut excerpts), (vec![Err(ExcerptRefusal::NoVideo)], true));
        assert!(excerpts.ask(now, ONE, 0));
        excerpts.made(ONE, None);
        assert_eq!(said(&mut excerpts), (vec![Err(ExcerptRefusal::StreamUnknown)], true));
    }

    #[test]
    fn turn_ends_with_its_call_with_a_word_and_for_another_question_after_a_silence() {
        let (now, mut excerpts) = (origin(), Excerpts::default());
        assert!(excerpts.ask(now, ONE, 0));
        excerpts.call_ended(OTHER.0);
        assert!(!excerpts.ask(now, OTHER, 0));
        excerpts.call_ended(ONE.0);
        assert!(excerpts.ask(now, OTHER, 0));
        excerpts.dropped(ONE);
        assert!(!excerpts.ask(now, ONE, 0));
        excerpts.dropped(OTHER);
        assert!(excerpts.ask(now, ONE, 0));
        said(&mut excerpts);
        excerpts.made(ONE, pieces(9));
        excerpts.taken(now + HELD_FOR / 2, ONE);
        assert!(!excerpts.ask(now + HELD_FOR, OTHER, 0), "it was heard since");
        assert!(excerpts.ask(now + HELD_FOR * 2, OTHER, 0));
        said(&mut excerpts);
        excerpts.taken(now, ONE);
        excerpts.made(ONE, pieces(1));
        assert_eq!(said(&mut excerpts), (vec![], false), "the turn is another one's");
    }
}
