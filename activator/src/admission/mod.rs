//! The decision about a publisher. In: the app, the stream key and the address of a `publish`. Out: a [`Verdict`]: everything that later rooms need to
//! know about the stream, or one of the kinds of "no" (architecture.md, "Saying no"). Next: `publisher`, which asks, then `lobby`, which
//! wakes workers; so everything that a stranger can be refused for is decided here, before.
//!
//! `book` and `rules` are pure, `task` is their shell. `files` owns the files, which `reload` also looks at. `hook` asks a server about publishers
//! without an entry, `token` checks their tokens.

mod book;
mod files;
mod hook;
mod metrics;
mod rate;
mod rules;
mod seats;
mod task;
mod token;
mod verdict;

pub use book::{Book, FileStanding};
pub use files::ConfigFiles;
pub use hook::{ClientFacts, EndNotice, Granted, HookAnswer, read_answer};
pub use metrics::AdmissionMetrics;
pub use rules::AdmissionRequest;
pub use seats::Seat;
pub use task::Admission;
pub use token::{MOST_TOKEN, Presented, TokenError, TokenGrant, check as check_token};
pub use verdict::{Admitted, RefusalReason, StreamPolicy, Verdict};
