//! Scenarios against real software: programs that publish, programs that are pushed to, and what is between them.
//!
//! - [`wait`]: conditions instead of sleeps; the one clock.
//! - [`loopback`]: an address for every server.
//! - [`process`]: guards around programs, and what `/proc` says about them.
//! - [`orphans`]: what becomes of programs whose runner was killed.
//! - [`publish`]: ffmpeg, GStreamer, OBS Studio, and nginx-rtmp's `push`.
//! - [`replay`]: a publisher of given messages, for what no program can be made to send.
//! - [`tap`]: records what a publisher says and hears.
//! - [`relay`]: the activator, as people start it; workers that the test starts itself.
//! - [`wire`]: what is between a worker and its activator, to be cut.
//! - [`sink`], [`nginx`]: upstreams.
//! - [`cluster`]: a real Kubernetes with KEDA, and LiveEdgeCast on it.
//! - [`record`], [`compare`]: what was said, and whether it is the same.
//! - [`mod@bench`]: the benchmark, which measures relays side by side.
//! - [`takeover`]: the experiment behind the descriptor handoff.
//! - [`certificate`]: for RTMPS.
//! - [`http`]: the client of `/metrics` and `/api/v1`.
#![forbid(unsafe_code)]

pub mod bench;
pub mod certificate;
pub mod cluster;
pub mod compare;
pub mod encoder;
pub mod http;
pub mod loopback;
pub mod nginx;
pub mod orphans;
pub mod process;
pub mod publish;
pub mod record;
pub mod relay;
pub mod replay;
pub mod sink;
pub mod takeover;
pub mod tap;
pub mod wait;
pub mod wire;
