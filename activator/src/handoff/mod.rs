//! Room 6. In: a held publisher and an offer that a worker was sent. Out: the worker's connection, which gets the publisher by
//! descriptor or by `link`. Next: the worker's `receive`.
//!
//! Workers listen on nothing: they dial our desk with the offer's token.

mod desk;

pub use desk::{Desk, Expected, HandoffConnection, Token};
