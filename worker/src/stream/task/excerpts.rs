//! Excerpts of the stream while it runs. In: questions of activators. Out: files in pieces. Part of the shell; a file is made by [`crate::stream::excerpt`], a
//! step in each turn of the task.

use std::ops::ControlFlow;

use liveedgecast_common::control::ExcerptPart;
use tokio::sync::oneshot;

use super::StreamTask;
use crate::stream::excerpt::ExcerptFile;
use crate::stream::{ExcerptAnswer, ExcerptRequest};

/// An excerpt that is being made.
#[derive(Debug)]
pub(super) struct ExcerptWork {
    file: ExcerptFile,
    answer: oneshot::Sender<ExcerptAnswer>,
}

impl StreamTask {
    /// Begins an excerpt, and forgets the one that was being made.
    pub(super) fn begin_excerpt(&mut self, ExcerptRequest { part, answer }: ExcerptRequest) {
        let sent = match &part {
            ExcerptPart::SentKeyframe(name) => {
                let of_name = self.shown_feeds().find(|feed| feed.lane.name == *name);
                of_name.map(|feed| feed.sent_keyframe(&self.index))
            }
            ExcerptPart::All | ExcerptPart::LastKeyframe => None,
        };
        match ExcerptFile::begin(&part, sent, &self.index, &self.rings) {
            Ok(file) => self.excerpt = Some(Box::new(ExcerptWork { file, answer })),
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
        // The oldest messages are the next to make room, so the first step is taken at once.
        self.go_on_with_excerpt();
        self.stirred = true;
    }

    /// Goes on with the excerpt; returns whether there is more to do.
    pub(super) fn go_on_with_excerpt(&mut self) -> bool {
        let Some(mut work) = self.excerpt.take().filter(|work| !work.answer.is_closed()) else { return false };
        match work.file.step(&self.index, &self.rings) {
            ControlFlow::Continue(()) => {
                self.excerpt = Some(work);
                true
            }
            ControlFlow::Break(ended) => {
                let ExcerptWork { file, answer } = *work;
                let _ = answer.send(ended.map(|()| file.into_pieces()));
                false
            }
        }
    }
}
