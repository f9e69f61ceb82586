//! Scenarios against real software: real encoders publish, real servers are pushed to, LiveEdgeCast stands between them.
//!
//! - [`wait`]: conditions instead of sleeps; the one clock.
//! - [`loopback`]: an address for every server.
//! - [`process`]: guards around programs, and what `/proc` says about them.
//! - [`orphans`]: kills the programs of a test runner that was killed.
//! - [`publish`]: ffmpeg, GStreamer, OBS Studio, and nginx-rtmp's `push`.
//! - [`replay`]: a publisher of given messages, for streams that no real encoder produces.
//! - [`encoder`]: a scripted publisher, for commands and windows that no real encoder here uses.
//! - [`tap`]: records both sides of a publisher's connection.
//! - [`relay`]: the activator, started as an operator starts it, and workers that a scenario starts itself.
//! - [`eavesdropper`]: a stranger between them who reads everything.
//! - [`wire`]: connections between a worker and its activator, which a scenario can cut.
//! - [`sink`], [`nginx`]: upstreams. [`haproxy`]: a proxy in front of activators.
//! - [`cluster`]: a real Kubernetes with KEDA, and LiveEdgeCast on it.
//! - [`prometheus`]: a real Prometheus.
//! - [`driver`]: the drivers in Python of [`browser`], a real Chromium, and of [`terminal`], a terminal with its screen.
//! - [`record`], [`compare`]: the messages of a connection, and comparisons of them.
//! - [`mod@bench`]: the benchmark, which measures relays side by side.
//! - [`cost`]: instructions, allocations and system calls of a message.
//! - [`takeover`]: the experiment behind the descriptor handoff (architecture.md, "Two ways to hand over").
//! - [`certificate`]: certificates for RTMPS.
//! - [`http`]: the client of `/metrics` and `/api/v1`.
#![forbid(unsafe_code)]

pub mod bench;
pub mod browser;
pub mod certificate;
pub mod cluster;
pub mod compare;
pub mod cost;
pub mod driver;
pub mod eavesdropper;
pub mod encoder;
pub mod haproxy;
pub mod http;
pub mod loopback;
pub mod nginx;
pub mod orphans;
pub mod process;
pub mod prometheus;
pub mod publish;
pub mod receiver;
pub mod record;
pub mod relay;
pub mod replay;
pub mod sink;
pub mod subscriber;
pub mod takeover;
pub mod tap;
pub mod terminal;
pub mod wait;
pub mod wire;
