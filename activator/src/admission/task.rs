//! The shell of admission. In: the questions of publishers' tasks. Out: a [`Verdict`] for each. Owns the lock around the rules. The files of
//! entries, keys and push URLs are looked at before each verdict.
//!
//! [`Admission::judge`] is asynchronous, because others may be asked before the rules are: publishers wait for the verdict under the deadline
//! of their own machine, and nothing else waits for them.
#![expect(clippy::disallowed_methods, reason = "shell: the clock of verdicts")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::key::{AppName, Identity, StreamKey};

use super::book::Book;
use super::files::ConfigFiles;
use super::hook::{Asked, HookDesk};
use super::metrics::AdmissionMetrics;
use super::rules::{AdmissionRequest, Judgement, Rules, RulesAnswer};
use super::token::TokenDesk;
use super::verdict::{RefusalReason, Verdict};
use crate::config::Settings;
use crate::events::Events;

/// The decision about who may publish what. One per process, asked by every publisher's task.
pub struct Admission {
    files: ConfigFiles,
    // A lock, because publishers' tasks ask from wherever they run; held for one decision, never across an await.
    rules: Mutex<Rules>,
    desk: HookDesk,
    tokens: TokenDesk,
}

impl Admission {
    /// Admission by these settings, and by the files they name whenever those change.
    pub fn new(settings: &Settings, events: Events, metrics: AdmissionMetrics) -> Self {
        Self {
            files: ConfigFiles::new(settings, events, metrics.clone()),
            rules: Mutex::new(Rules::new(settings)),
            desk: HookDesk::new(metrics.clone()),
            tokens: TokenDesk::new(metrics),
        }
    }

    /// Tells whether anyone may publish, now.
    pub fn is_open(&self) -> bool {
        self.files.book().is_open()
    }

    /// The identity of the stream that this app and this key lead to.
    #[must_use]
    pub fn identity(&self, app: &AppName, key: &StreamKey) -> Identity {
        lock(&self.rules).identity(app, key)
    }

    /// The files by which it decides.
    pub fn files(&self) -> &ConfigFiles {
        &self.files
    }

    /// The verdict on one `publish`. Cancel safe: a turn or a seat that was taken for a publisher that has gone counts as that publisher's.
    pub async fn judge(&self, request: AdmissionRequest) -> Verdict {
        let book = self.files.look().await;
        let judgement = lock(&self.rules).judge(now(), &request, &book, None);
        let hook = match judgement {
            Judgement::Decided(verdict) => return verdict,
            Judgement::Ask(hook) => hook,
            Judgement::Check(jwt, presented) => {
                let checked = self.tokens.check(&jwt, &presented).await.map(Box::new);
                return self.decided(&request, &book, RulesAnswer::Token(checked));
            }
        };
        let Some(asked) = Asked::of(&request) else {
            return Verdict::refuse(RefusalReason::Name, Duration::ZERO);
        };
        let answer = RulesAnswer::Hook(self.desk.ask(&hook, &asked).await);
        match self.decided(&request, &book, answer) {
            Verdict::Admit { mut admitted, after } => {
                admitted.notice = book.hooks().done.as_ref().map(|done| self.desk.notice(done, asked));
                Verdict::Admit { admitted, after }
            }
            verdict => verdict,
        }
    }

    /// The verdict after the answer that the rules have asked for.
    fn decided(&self, request: &AdmissionRequest, book: &Book, answer: RulesAnswer) -> Verdict {
        match lock(&self.rules).judge(now(), request, book, Some(&answer)) {
            Judgement::Decided(verdict) => verdict,
            // They ask once.
            Judgement::Ask(_) | Judgement::Check(..) => Verdict::refuse(RefusalReason::HookAnswer, Duration::ZERO),
        }
    }

    /// Tells servers of the ends of streams, until dropped.
    pub async fn tell_of_ends(&self) {
        self.desk.tell().await;
    }

    /// Returns when every end has been told, or given up. Cancel safe.
    pub async fn ends_are_told(&self) {
        self.desk.all_told().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
