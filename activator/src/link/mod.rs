//! Room 8. In: a held publisher and the connection of a worker that does not share our network namespace. Out: the publisher's bytes in
//! frames, the worker's answers to it, and a copy of what came since the last checkpoint, for the worker's successor. Next: the
//! worker's `receive`.

mod kept;
mod limits;
mod machine;
mod task;

pub(crate) use machine::Carried;
pub(crate) use task::carry;
