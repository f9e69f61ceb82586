//! The activator: one small process that answers publishers, holds them, wakes workers and hands the streams over.
//!
//! The rooms, lowest first; a room imports those above it in this list, never one below:
//!
//! - [`config`] has all settings: arguments, judged and resolved,
//! - [`drain`] is the list of phases in which the process goes down,
//! - `net` is what several listeners share,
//! - [`events`] has the vocabulary of what operators are told, and the newest of it,
//! - [`destinations`] has the upstreams of one stream, and the rules by which they change while it is live,
//! - [`excerpt`] makes a file of the bytes that are kept of a stream, when somebody asks,
//! - [`dispatch`] has the rules of which stream gets which worker, and when a worker process starts or stops,
//! - [`lobby`] is the shell over them, with a handle for each kind of caller; publishers wait here, and the waiting ones are the demand,
//! - [`incidents`] keeps the last seconds of streams that have lost something, if a setting asks for that,
//! - [`accept`] takes publishers' connections and never waits for a peer,
//! - [`admission`] decides who may publish, and to which upstreams, before anything is woken,
//! - [`reload`] brings changed files to the streams that run,
//! - [`handoff`] gives a held publisher to a worker: the connection that the worker dials, and what is said there,
//! - `link` carries a publisher's bytes to a worker that cannot have its descriptor,
//! - [`publisher`] speaks RTMP up to `publish` and holds the publisher before `NetStream.Publish.Start`,
//! - [`processes`] spawns and signals workers on one machine,
//! - [`peers`] adds up what all activators know,
//! - [`scaler`] tells KEDA how many workers there should be,
//! - [`control`] is the gRPC service that workers and other activators dial,
//! - `kubernetes` adds workers when nobody else does, and says which pods may go,
//! - [`metrics`] gathers each room's metrics, and those of workers, for one page,
//! - [`http`] serves that page, health, readiness, the demand, streams and workers,
//! - `ports` binds the listeners, and leaves them to a successor,
//! - [`task`] starts all of them, and walks the list of going down,
//! - [`commandline`] carries out the commands that people type beside a gateway that runs; it takes no part in serving.
//!
//! The bytes of a publisher pass `accept`, `publisher` (with `admission` and `lobby`), `handoff`, and for a worker elsewhere `link`.
//!
//! | task | started by | ended by | owns |
//! | --- | --- | --- | --- |
//! | the drain, [`task::run`] | `main` | signals | the list of going down |
//! | accept, one per port of publishers | the drain | its phase `StopAccepting` | the RTMP or RTMPS listener |
//! | publisher, one per connection | accept | its peer, its deadline, or drain | the socket, the session, its place in the lobby |
//! | handoff listener, one per kind (Unix, link) | the drain | its last handle | a listener for workers |
//! | greeting, one per worker that dials | handoff listener | its proof, 5 s | the connection until a publisher's task has it |
//! | giving back, one at most | a publisher's task | the last memory that waits | the timer of the memories that wait for streams |
//! | the lobby's timer | the drain | the process | the timer of lobby and process fleet; their state is shared by a lock |
//! | process fleet | the drain | the process | the means to signal worker processes |
//! | worker process, two each (its end, its last words) | process fleet | the process's end | the child, its standard error |
//! | control | the drain | its phase `StopServing` | the control listener |
//! | call, one per worker | control | the worker, control | the reading half of the call |
//! | peers, if configured | the drain | the process | the discovery machine |
//! | following, one per address of a peer | peers | the peer, peers | a call |
//! | follower, one per peer that follows us | control | the peer, control (goodbye) | the state that the peer knows already |
//! | scaler, if configured | the drain | its phase `StopServing` | the scaler listener |
//! | push, one per stream of KEDA | scaler | KEDA, its age, the phase `StopAccepting` | the push machine |
//! | kubernetes, if configured | the drain | the process | the machines of watchdog, costs, scale-in |
//! | call to the Kubernetes API, three at most | kubernetes | its answer, 5 s | nothing |
//! | events for one client, one per subscriber | HTTP | the client, the end of events | its place among the events |
//! | delivery of events by HTTP, if configured | the drain | the end of events, 3 s at most; the receiver | its place among the events |
//! | export of traces, if configured | the drain | the process | spans that wait for the collector |
//! | incidents, if configured | the drain | the end of events | its place among the events |
//! | reload | the drain | the process | the watch over the files, SIGHUP |
//! | HTTP | the drain | its phase `StopServing`, or a successor on the same port | the HTTP listener |
//! | leaving the ports, if they are shared | the drain | a successor that serves them | duplicates of the listeners |

#![forbid(unsafe_code)]

pub mod accept;
pub mod admission;
pub mod commandline;
pub mod config;
pub mod control;
pub mod destinations;
pub mod dispatch;
pub mod drain;
pub mod events;
pub mod excerpt;
pub mod handoff;
pub mod http;
pub mod incidents;
pub mod kubernetes;
mod link;
pub mod lobby;
pub mod metrics;
mod net;
pub mod peers;
mod ports;
pub mod processes;
pub mod publisher;
pub mod reload;
pub mod scaler;
pub mod task;
pub mod totals;
