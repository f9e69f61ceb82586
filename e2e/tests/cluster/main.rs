//! LiveEdgeCast on a real Kubernetes with KEDA: real publishers outside, activators and workers in pods, an upstream on this machine.
//!
//! Scenarios run one after the other, by `./tools/test.sh --cluster`. Each begins with an installation from [`Relays`]; scenarios that want
//! the same one follow each other, since tests run in the order of their names.

use liveedgecast_e2e::cluster::Relays;
use liveedgecast_e2e::process::RunningProgram;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::until_some;

/// Defines tests from scenarios, which need a cluster.
macro_rules! on_a_cluster {
    ($($scenario:ident)+) => {
        mod on_a_cluster {
            $(
                #[test]
                #[ignore = "needs a cluster: ./tools/test.sh --cluster"]
                fn $scenario() {
                    liveedgecast_e2e::cluster::scenario(super::$scenario);
                }
            )+
        }
    };
}

mod activators;
mod addresses;
mod control;
mod demand;
mod edge;
mod internal_tls;
mod keda;
mod manifests;
mod more_workers;
mod scaling;
mod scripts;
mod tokens;
mod triggers;
mod wake;
mod workers;

/// Starts ffmpeg, which publishes through a tap.
fn published(tap: &Tap, name: &str) -> RunningProgram {
    ffmpeg(Media::Both, &tap.url(&format!("live/{}", key(name))))
}

/// The sessions of a stream at an upstream.
fn sessions_of(sink: &Sink, name: &str) -> Vec<SinkSession> {
    sink.sessions().into_iter().filter(|session| session.key == key(name)).collect()
}

/// Waits until the latest session of a stream has `frames` messages that are no headers.
#[track_caller]
fn receives(sink: &Sink, name: &str, frames: usize) -> SinkSession {
    until_some(format!("{frames} messages of {name} at the upstream"), || {
        sessions_of(sink, name).pop().filter(|session| session.recording.frames() >= frames)
    })
}

/// Waits until `frames` further messages have arrived.
#[track_caller]
fn receives_more(sink: &Sink, name: &str, frames: usize) -> SinkSession {
    let now = sessions_of(sink, name).pop().map_or(0, |session| session.recording.frames());
    receives(sink, name, now + frames)
}

/// Waits until the latest session of a stream has ended.
#[track_caller]
fn ended(sink: &Sink, name: &str) -> SinkSession {
    until_some(format!("the end of {name} at the upstream"), || {
        sessions_of(sink, name).pop().filter(|session| session.ended.is_some())
    })
}
