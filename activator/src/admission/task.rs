//! The shell of admission. In: the questions of publishers' tasks. Out: a [`Verdict`] for each. Owns the files of entries, keys and push URLs, which
//! are looked at before each verdict, and the lock around the rules.
//!
//! [`Admission::judge`] is asynchronous, because others may be asked before the rules are: publishers wait for the verdict under the deadline
//! of their own machine, and nothing else waits for them.
#![expect(clippy::disallowed_methods, reason = "shell: the clock of verdicts")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveedgecast_common::clock::now;

use super::book::Book;
use super::hook::{Asked, HookDesk};
use super::metrics::AdmissionMetrics;
use super::rules::{AdmissionRequest, Judgement, Rules, RulesAnswer};
use super::token::TokenDesk;
use super::verdict::{RefusalReason, Verdict};
use crate::config::{Reloaded, Settings};
use crate::events::{Events, Fact};

/// The decision about who may publish what. One per process, asked by every publisher's task.
pub struct Admission {
    // A lock of its own, because files are read under it: a slow disk delays the publishers that come next, not the rules.
    files: Mutex<Reloaded>,
    // A lock, because publishers' tasks ask from wherever they run; held for one decision, never across an await.
    rules: Mutex<Rules>,
    /// Files that were read again are events.
    events: Events,
    desk: HookDesk,
    tokens: TokenDesk,
}

impl Admission {
    /// Admission by these settings, and by the files they name whenever those change.
    pub fn new(settings: &Settings, events: Events, metrics: AdmissionMetrics) -> Self {
        Self {
            files: Mutex::new(Reloaded::new(settings)),
            rules: Mutex::new(Rules::new(settings)),
            events,
            desk: HookDesk::new(metrics.clone()),
            tokens: TokenDesk::new(metrics),
        }
    }

    /// Tells whether anyone may publish, now.
    pub fn is_open(&self) -> bool {
        Book::of(&lock(&self.files)).is_open()
    }

    /// The verdict on one `publish`. Cancel safe: a turn or a seat that was taken for a publisher that has gone counts as that publisher's.
    pub async fn judge(&self, request: AdmissionRequest) -> Verdict {
        let book = self.book();
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

    /// The entries and routes that count for the next publisher.
    fn book(&self) -> Book {
        let mut files = lock(&self.files);
        let news = files.refresh();
        let book = Book::of(&files);
        drop(files);
        for news in news {
            let setting = news.setting;
            self.events.tell(match news.rejected {
                None => Fact::FileReloaded { setting },
                Some(reason) => Fact::FileRejected { setting, reason },
            });
        }
        book
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
