//! What a message costs: instructions, allocations and system calls of each process, counted on a fixed input. In: a handoff. Out: a
//! [`CostFigure`] for each process and kind of cost, and the bounds that CI holds them to.
//!
//! - [`lockstep`]: the input: publishers and their upstream, one message at a time.
//! - [`relay`]: an activator and its worker, under valgrind or strace.
//! - [`callgrind`], [`strace`]: readers of what those tools write.
//! - [`run`]: a measurement.
//! - [`bounds`]: the file of bounds.
//!
//! Nothing is timed, so a busy machine changes nothing. The figures are those of a message that finds every thread asleep: one that wakes
//! a thread for itself alone. Under load messages share wake-ups and cost less.
pub mod bounds;
pub mod callgrind;
pub mod lockstep;
pub mod relay;
pub mod run;
pub mod strace;

/// A kind of process on a way of handing over: a block of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CostPath {
    /// `activator` or `worker`.
    pub process: &'static str,
    /// `descriptor` or `link`.
    pub handoff: &'static str,
}

/// The cost of one kind in one process.
#[derive(Clone, Debug, PartialEq)]
pub struct CostFigure {
    /// The process.
    pub path: CostPath,
    /// `instructions`, `allocations`, `calls`, or the name of a system call.
    pub name: String,
    /// Cost per message.
    pub value: f64,
}
