//! The whole path between real processes: real publishers, an activator with its worker processes, real upstreams.
//!
//! A single test program, so that the scenarios, which mostly wait, wait at the same time. Scenarios that concern the handoff run once by
//! descriptor and once by link.

use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;

/// Defines scenarios that run with both ways of handing over.
macro_rules! by_descriptor_and_by_link {
    ($($scenario:ident)+) => {
        mod by_descriptor {
            $(#[test] fn $scenario() { super::$scenario("descriptor"); })+
        }
        mod by_link {
            $(#[test] fn $scenario() { super::$scenario("link"); })+
        }
    };
}

mod activators;
mod api;
mod certificates;
mod checks;
mod claims;
mod commands;
mod crash;
mod crowd;
mod destinations;
mod encoders;
mod encryption;
mod ends;
mod events;
mod excerpts;
mod hold;
mod hooks;
mod observability;
mod operators;
mod page;
mod proxies;
mod publishers;
mod refusals;
mod reload;
mod routes;
mod rtmps;
mod screens;
mod settings;
mod slow_lines;
mod stat;
mod successors;
mod times;
mod tokens;
mod traces;
mod upstreams;
mod views;
mod wake;
mod workers;

/// A grace time within which every publisher that returns has returned. On a busy machine ffmpeg takes longer to start than the default.
const RETURNS: &str = "600s";

/// An upstream, an activator without a worker, and a tap in front of it.
struct Relay {
    sink: Sink,
    activator: ActivatorProcess,
    tap: Tap,
}

impl Relay {
    fn by(handoff: &str) -> Self {
        Self::with_grace(handoff, "10s")
    }

    fn with_grace(handoff: &str, grace: &str) -> Self {
        let sink = Sink::start();
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("GRACE", grace);
        let activator = settings.with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
        let tap = Tap::before(activator.rtmp());
        Self { sink, activator, tap }
    }

    /// Starts ffmpeg, which publishes to the tap.
    fn published(&self, media: Media, name: &str) -> liveedgecast_e2e::process::RunningProgram {
        ffmpeg(media, &self.tap.url(&format!("live/{}", key(name))))
    }
}
