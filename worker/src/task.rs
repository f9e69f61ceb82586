//! The process: starts the rooms and walks the list of going down. In: settings and signals. Out: the end of the process.
//! No rule is here: [`crate::drain`] has the list, each room its own.
#![expect(clippy::disallowed_methods, reason = "shell: tasks and a clock")]

use std::io;
use std::sync::Arc;

use liveedgecast_common::clock::now;
use liveedgecast_common::control::InstanceKey;
use liveedgecast_common::drain::{Drain, Input};
use liveedgecast_common::runtime::{Signals, Stop};
use liveedgecast_common::{event, health, http, listen, random, sys, trace};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::drain::{self, WorkerPhase};
use crate::engine::{self, Engine, StartStream};
use crate::http::WorkerStatus;
use crate::metrics::WorkerMetrics;
use crate::receive::SpareRings;
use crate::register::{self, Registration, RegistrationEnd, RegistrationRequest};

/// Signals that wait: there are six phases, and each signal ends one.
const STOPS: usize = 8;
/// Inputs of the list that wait: one per phase and a few signals.
const INPUTS: usize = 16;

/// Hands on the signals that ask the process to go. Must be called in a runtime.
///
/// # Errors
/// The kernel refuses.
pub fn signals() -> io::Result<mpsc::Receiver<Stop>> {
    let mut signals = Signals::listen()?;
    let (sender, stops) = mpsc::channel(STOPS);
    tokio::spawn(async move { while sender.send(signals.next().await).await.is_ok() {} });
    Ok(stops)
}

/// Serves until asked to stop, by `stops`. `start` begins a stream's task.
///
/// # Errors
/// The HTTP port cannot be had.
pub async fn run(
    settings: Settings,
    start: StartStream,
    spares: SpareRings,
    metrics: WorkerMetrics,
    stops: mpsc::Receiver<Stop>,
) -> io::Result<()> {
    let listener = listen::listen(settings.http)?;
    serve(listener, settings, start, spares, metrics, stops).await
}

async fn serve(
    listener: TcpListener,
    settings: Settings,
    start: StartStream,
    spares: SpareRings,
    metrics: WorkerMetrics,
    mut stops: mpsc::Receiver<Stop>,
) -> io::Result<()> {
    let http = listener.local_addr()?;
    tracing::info!(event = event::WORKER_STARTED, name = settings.name, %http, activator = %settings.activator, capacity = settings.capacity, "worker started");

    if let Some(collector) = &settings.traces {
        trace::start(collector, "liveedgecast-worker", &settings.name);
    }
    let metrics = Arc::new(metrics);
    let (phases, phase) = watch::channel(WorkerPhase::Serving);
    let (joins, joined) = watch::channel(0);
    let stop = CancellationToken::new();
    let view = WorkerStatus { metrics: Arc::clone(&metrics), joined, phase };
    let within = health::listen_within().unwrap_or_else(|error| {
        tracing::warn!(event = event::PROBE_SOCKET_FAILED, %error, "socket for probes in this container not opened");
        None
    });
    let within = within.map(|door| tokio::spawn(http::serve(door, view.clone().routes(), stop.clone())));
    let served = tokio::spawn(http::serve(listener, view.routes(), stop.clone()));

    let capacity = usize::try_from(settings.capacity).unwrap_or(usize::MAX);
    let engine = Engine::start(&engine::Settings { capacity, threads: settings.threads }, start, &metrics.engine);
    let registration = Registration {
        settings: register::machine::Settings {
            name: settings.name,
            capacity: settings.capacity,
            network: sys::network_namespace(),
            handoff: settings.handoff,
            exit_when_orphaned: settings.exit_when_orphaned,
            key: InstanceKey(random::bytes()),
            introducer: settings.introducer.is_some(),
            began: settings.began,
        },
        activator: settings.activator,
        introducer: settings.introducer,
        protection: settings.protection.clone(),
        secret: settings.secret,
        engine: engine.clone(),
        spares,
        metrics: metrics.register.clone(),
        totals: metrics.totals.clone(),
    };
    let (requests, requested) = Registration::requests();
    let mut registered = tokio::spawn(registration.run(requested, joins));

    let (inputs, mut happened) = mpsc::channel(INPUTS);
    let mut walk = Walk { drain: drain::list(settings.drain), phases, metrics, engine, requests, inputs };
    walk.entered();
    while walk.drain.phase() != WorkerPhase::StopServing {
        let due = walk.drain.poll_timeout();
        let moved = tokio::select! {
            Some(signal) = stops.recv() => {
                tracing::info!(event = event::SIGNAL_RECEIVED, %signal, phase = walk.drain.phase().as_str(), "signal received");
                walk.drain.handle(now(), Input::Signal)
            }
            Some(input) = happened.recv() => walk.drain.handle(now(), input),
            ended = &mut registered => {
                if ended.map_err(io::Error::other)? == RegistrationEnd::Orphaned {
                    tracing::info!(event = event::WORKER_ORPHANED, "no stream left, and not the activator that has started this worker");
                    walk.drain.handle(now(), Input::Skip(WorkerPhase::Leave));
                }
                // Whatever the phase was, nothing can be said any more.
                break;
            }
            () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {
                walk.drain.handle_timeout(now())
            }
        };
        if moved {
            walk.entered();
        }
    }
    walk.phases.send_replace(WorkerPhase::StopServing);
    stop.cancel();
    for server in [Some(served), within].into_iter().flatten() {
        let _ = server.await;
    }
    Ok(())
}

/// Does what a phase is about.
struct Walk {
    drain: Drain<WorkerPhase, 6>,
    phases: watch::Sender<WorkerPhase>,
    metrics: Arc<WorkerMetrics>,
    engine: Engine,
    requests: mpsc::Sender<RegistrationRequest>,
    inputs: mpsc::Sender<Input<WorkerPhase>>,
}

impl Walk {
    fn entered(&self) {
        let phase = self.drain.phase();
        self.phases.send_replace(phase);
        self.metrics.phase(phase);
        if phase != WorkerPhase::Serving {
            tracing::info!(
                event = event::DRAIN_ADVANCED,
                phase = phase.as_str(),
                streams = self.engine.streams(),
                "drain advanced"
            );
        }
        let (engine, requests, inputs) = (self.engine.clone(), self.requests.clone(), self.inputs.clone());
        tokio::spawn(async move {
            match phase {
                WorkerPhase::Serving | WorkerPhase::StopServing => return,
                WorkerPhase::Unready => {
                    let (told, answer) = oneshot::channel();
                    let _ = requests.send(RegistrationRequest::Drain(told)).await;
                    let _ = answer.await;
                }
                WorkerPhase::HandBack => engine.hand_back().await,
                WorkerPhase::AwaitStreams => engine.idle().await,
                // It is done when the registration has ended.
                WorkerPhase::Leave => {
                    let _ = requests.send(RegistrationRequest::Leave).await;
                    return;
                }
            }
            let _ = inputs.send(Input::Done(phase)).await;
        });
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
