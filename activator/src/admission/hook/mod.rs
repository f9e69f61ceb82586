//! The servers that are asked about publishers, and told of their ends. In: a publisher's `publish`, and the hooks in force. Out: a [`HookAnswer`] for the
//! rules, and a notice when the stream has ended. Next: `rules`.
//!
//! `question` and `answer` are pure, `task` is their shell: it bounds the calls, because publishers are strangers until the server has answered.

mod answer;
mod question;
mod task;

pub use answer::{Granted, HookAnswer, read_answer};
pub(super) use question::Asked;
pub use question::ClientFacts;
pub use task::EndNotice;
pub(super) use task::HookDesk;
