//! The folder of incidents: the last seconds of a stream, and the events before and after, as files. In: events. Out: files in a bounded folder, if a setting asks
//! for them. Next: nothing.
//!
//! An incident is the loss of a destination that was live, or of a worker with the stream. The bytes are those that the worker or this process keeps
//! anyway, and the files are written by a thread that serves no stream. [`aftermath`] decides which events follow, and when they are enough.

mod aftermath;
mod folder;
mod rules;
mod task;

pub use task::run;
