//! The protocol between the activator and a worker about one stream, without IO.
//!
//! In the order of the bytes on a handoff connection (an abstract Unix socket, or TCP for the link):
//! - [`preface`]: the worker shows the offer's token, both sides prove that they know the control secret, and both have the session's keys
//!   then.
//! - [`frame`]: the frames that follow. The first one is an [`Assignment`], sealed; then comes media by link, or next to nothing when the
//!   descriptors went along.
//! - [`assignment`]: the stream, its destinations, its policies, and the [`Snapshot`] it begins with.
//! - [`destinations`]: the names of its destinations, and their changes while the stream is live.
//! - [`snapshot`]: an RTMP session, and once there was media its stream, as data of a known version.
//! - [`page`]: the snapshot in memory that outlives its worker, for the successor to find.
//! - [`limits`]: every bound on what the other side may make this process hold.
//!
//! Note: nearly everything here holds the stream key. It is in the assignment, but also in the session's `publish`, in the address of
//! `connect` and in unread bytes; so the frames with any of them are sealed and no `Debug` of this room shows bytes.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod destinations;
pub mod frame;
pub mod limits;
pub mod page;
pub mod preface;
pub mod snapshot;
mod wire;

/// The reason in [`Frame::Done`] of a publisher that has broken RTMP.
pub const PROTOCOL_ERROR: &str = "protocol error";

pub use assignment::{Assignment, Destination, Policy, Transport};
pub use destinations::{BackupDestination, DestinationList, ListedDestination};
pub use frame::{Close, Decline, Frame, FrameError, PublisherEnd};
pub use preface::{ActivatorSide, PrefaceError, SessionKeys, WorkerSide};
pub use snapshot::{LastTimestamps, OpenMessage, Snapshot, StoredHeader, StreamState};
pub use wire::WireError;
