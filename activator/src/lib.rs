//! The activator: one small process that answers publishers, holds them, wakes workers and hands the streams over.
//!
//! The rooms, in the order of the bytes:
//!
//! 1. [`accept`] takes connections and never waits for a peer,
//! 2. [`publisher`] speaks RTMP up to `publish` and holds the publisher before `NetStream.Publish.Start`,
//! 3. [`admission`] decides who may publish, and where to, before anything is woken,
//! 4. [`lobby`] is where the held ones wait; [`dispatch`] has the rules of who gets which worker,
//! 5. [`control`] is where workers dial in, and [`processes`] starts and stops them on one machine,
//! 6. [`handoff`] gives a held publisher to a worker, by descriptor or by `link`.
//!
//! Beside them: [`peers`] adds up what all activators know, and [`scaler`] tells KEDA; `kubernetes` adds
//! workers when nobody else does, and says which pods may go. Around them: [`config`] (arguments → settings),
//! `ports`, [`drain`], [`http`], [`metrics`]; [`task`] puts them together.
//!
//! | task | started by | ended by | owns |
//! | --- | --- | --- | --- |
//! | the drain, [`task::run`] | `main` | signals | the list of going down |
//! | accept | the drain | its phase `StopAccepting` | the RTMP listener |
//! | publisher, one per connection | accept | its peer, its deadline, or drain | the socket, the session, its place in the lobby |
//! | desk, one per door (Unix, link) | the drain | its last handle | a listener for workers |
//! | greeting, one per worker that comes | desk | its proof, 5 s | the connection until it is somebody's |
//! | the lobby's time | the drain | the process | the timer of lobby and process fleet; their state is shared by a lock |
//! | process fleet | the drain | the process | the means to signal worker processes |
//! | worker process, two each (its end, its words) | process fleet | the process's end | the child, its standard error |
//! | control | the drain | its phase `StopServing` | the control listener |
//! | call, one per worker | control | the worker, control | what the worker says |
//! | peers, if there may be any | the drain | the process | the rules of following them |
//! | following, one per address of a peer | peers | the peer, peers | a call |
//! | follower, one per peer that follows us | control | the peer, control (goodbye) | what it was told already |
//! | scaler, if it is asked for | the drain | its phase `StopServing` | the scaler listener |
//! | push, one per stream of KEDA | scaler | KEDA, its age, the phase `StopAccepting` | the rules of the push |
//! | kubernetes, if it is asked for | the drain | the process | the rules of watchdog, costs, scale-in |
//! | call to the Kubernetes API, three at most | kubernetes | its answer, 5 s | nothing |
//! | HTTP | the drain | its phase `StopServing`, or a successor on the same port | the HTTP listener |
//! | leaving the ports, if they are shared | the drain | a successor that has them | duplicates of the listeners |

#![forbid(unsafe_code)]

pub mod accept;
pub mod admission;
pub mod config;
pub mod control;
pub mod dispatch;
pub mod drain;
pub mod handoff;
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod link;
pub mod lobby;
pub mod metrics;
pub mod peers;
mod ports;
pub mod processes;
pub mod publisher;
pub mod scaler;
pub mod task;
mod visit;
