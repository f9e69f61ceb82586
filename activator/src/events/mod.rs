//! Events: what operators and their programs are told of publishers, destinations, workers and configuration. In: facts, from the rooms that
//! learn them. Out: the newest of them, numbered, to those who subscribe, and by
//! HTTP to a receiver. Next: `dispatch`; the subscribers are in `http`.
//!
//! The names of events are those of the log's field `event`. Each activator tells the events of the publishers that are, or were, connected to
//! it, so that nothing is told twice by several activators: see [`Chronicle`](machine::Chronicle).

mod delivery;
mod delivery_rules;
mod destination;
mod fact;
mod journal;
mod machine;
mod metrics;
mod notice;
mod subscription;
mod task;

pub use delivery::deliver;
pub use delivery_rules::DropCause;
pub use fact::{DestinationLabel, Fact, StreamLabel, UpstreamTurn};
pub(crate) use machine::Input;
pub use metrics::EventMetrics;
pub use notice::EventNotice;
pub use subscription::{HELLO, MAX_SUBSCRIBERS, TOLD, subscribe};
pub use task::{EventReader, Events, Heard, StreamEvents};
