//! Streams of workers that cannot have the publisher's socket. In: a held publisher and the connection of a worker. Out: the publisher's bytes
//! in frames, the worker's answers to the publisher, and a copy of the bytes since the last checkpoint, for the worker's successor. Next: the
//! worker's `receive`.

mod limits;
mod machine;
mod replay_buffer;
mod task;

pub(crate) use machine::Carried;
pub(crate) use task::carry;
