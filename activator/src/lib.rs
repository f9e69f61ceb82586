//! The activator: one small process that answers publishers, holds them, wakes workers and hands the streams over.
//!
//! The rooms, in the order of the bytes:
//!
//! 1. [`accept`] takes connections and never waits for a peer,
//! 2. `publisher` speaks RTMP up to `publish` and holds the publisher before `NetStream.Publish.Start`,
//! 3. `admission` decides who may publish, and where to, before anything is woken,
//! 4. `lobby` is where the held ones wait; what waits there is the demand,
//! 5. `fleet` knows the workers and, on one machine, starts and stops them,
//! 6. `handoff` gives a held publisher to a worker, by descriptor or by `link`.
//!
//! Around them: `config` (as typed → as meant), `drain`, `http`, `metrics`.
//!
//! | task | started by | ended by | owns |
//! | --- | --- | --- | --- |
//! | accept | `main` | drain, phase `StopAccepting` | the RTMP listener |
//! | publisher, one per connection | accept | its peer, its deadline, or drain | the socket, the session, its place in the lobby |

#![forbid(unsafe_code)]

pub mod accept;
pub mod admission;
pub mod config;
pub mod drain;
pub mod handoff;
mod link;
pub mod lobby;
pub mod metrics;
pub mod publisher;
