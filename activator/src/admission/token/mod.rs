//! The tokens (JWT) that let publishers in. In: the app and the key of a `publish`, and the rules of tokens in force. Out: a [`TokenGrant`], or the reason
//! why there is none. Next: `rules`.
//!
//! `presented` finds the token and takes it out of the names, `check` judges it with the help of `provider`, which knows the signatures, and `keyring`
//! decides when the keys of a server are fetched. All are pure. `task` is their shell: it fetches.

mod check;
mod keyring;
mod presented;
mod provider;
mod task;

pub use check::{TokenError, TokenGrant, check};
pub use presented::{MOST_TOKEN, Presented};
pub(super) use task::TokenDesk;
