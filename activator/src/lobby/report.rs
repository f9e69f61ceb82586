//! The log lines, metrics and events of the lobby. In: what the machine has decided, after the lock is released. Out: the log, the registry, the
//! events.

use std::time::{Duration, Instant};

use liveedgecast_common::event;
use liveedgecast_common::log_limiter::LogLimiter;
use tracing::{debug, error, info, warn};

use super::metrics::LobbyMetrics;
use super::traces;
use crate::dispatch::messages::{Output as Decision, Started};
use crate::dispatch::processes::{Output as ProcessOutput, ProcessOutcome};
use crate::dispatch::{ColdPhase, ColdStartPhases, Output};
use crate::events::{Events, Fact, Input};

/// A worker may report too many sessions as often as it likes; they are counted.
static EXCESSES: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// A worker may report streams that it was not given as often as it likes; the reports are counted.
static DISBELIEVED: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Logs, counts and tells one output of the machine.
pub(super) fn report(metrics: &LobbyMetrics, events: &Events, now: Instant, output: &Output) {
    match output {
        Output::Dispatcher(decision) => {
            report_decision(metrics, now, decision);
            note_decision(events, decision);
        }
        Output::Processes(process) => {
            report_process(metrics, process);
            if let ProcessOutput::Failed { name, why, .. } = process {
                events.tell(Fact::ProcessFailed { worker: name.clone(), reason: why.clone() });
            }
        }
    }
}

fn note_decision(events: &Events, decision: &Decision) {
    match decision {
        Decision::Started(started) => events.note(Input::Started {
            stream: &started.stream_id,
            worker: &started.worker,
            start: started.started.saturating_duration_since(started.entered),
            cold: started.is_cold(),
            returns_to: started.returns_to.as_deref(),
        }),
        Decision::ColdStart(start) => events.note(Input::ColdStart {
            stream: &start.stream_id,
            worker: &start.worker,
            phases: start.phases.iter().map(|(phase, time)| (phase.as_str(), *time)).collect(),
        }),
        Decision::TakenOver { stream_id, from, to, fault } => {
            events.note(Input::TakenOver { stream: stream_id, from, to, fault: *fault });
        }
        Decision::NeverStarted { stream_id, worker, .. } => {
            events.note(Input::NeverStarted { stream: stream_id, worker });
        }
        Decision::WorkerGone(worker) => events.note(Input::WorkerGone(worker)),
        Decision::WorkerLost(worker, streams) => {
            let streams = u64::try_from(*streams).unwrap_or(u64::MAX);
            events.tell(Fact::WorkerLost { worker: worker.clone(), streams });
        }
        _ => {}
    }
}

fn report_decision(metrics: &LobbyMetrics, now: Instant, decision: &Decision) {
    match decision {
        Decision::Offer { worker, stream_id, epoch, descriptor, .. } => {
            debug!(event = event::STREAM_OFFERED, stream = stream_id, worker, epoch, descriptor, "stream offered");
        }
        Decision::Fence(_, stream_id, epoch) => {
            debug!(
                event = event::STREAM_FENCED,
                stream = stream_id,
                epoch,
                "old worker told to end its part of a stream"
            );
        }
        Decision::Started(started) => {
            report_start(metrics, started);
            traces::warm(started);
        }
        Decision::ColdStart(start) => {
            report_cold_start(metrics, start);
            traces::cold(start);
        }
        Decision::Over(since) => metrics.duration.observe(now.saturating_duration_since(*since).as_secs_f64()),
        Decision::TakenOver { stream_id, from, to, .. } => {
            info!(
                event = event::STREAM_TAKEN_OVER,
                stream = stream_id,
                from,
                to,
                "stream taken over by another worker"
            );
        }
        Decision::NeverStarted { stream_id, worker, entered } => {
            traces::failed(now, stream_id, worker, *entered);
            metrics.never_started.inc();
            let whole_ms = now.saturating_duration_since(*entered).as_millis();
            // The worker logs the cause.
            info!(event = event::START_FAILED, stream = stream_id, worker, whole_ms, "start failed");
        }
        Decision::Outcome(outcome) => metrics.offers.with_label_values(&[outcome.as_str()]).inc(),
        Decision::Excess(worker, sessions) => {
            metrics.excess.inc_by(u64::try_from(*sessions).unwrap_or(u64::MAX));
            if EXCESSES.is_due(now) {
                let text = "sessions beyond a worker's capacity left out";
                warn!(event = event::WORKER_EXCEEDED, worker, sessions, "{text}");
            }
        }
        Decision::Disbelieved(worker, stream) => {
            metrics.disbelieved.inc();
            if DISBELIEVED.is_due(now) {
                let text = "report of a stream left out: its worker was not given the stream";
                warn!(event = event::WORKER_DISBELIEVED, worker, stream, "{text}");
            }
        }
        Decision::Suspect(worker) => {
            warn!(event = event::WORKER_SILENT, worker, "silent worker with streams left out of offers");
        }
        Decision::WorkerLost(worker, streams) => {
            warn!(event = event::WORKER_LOST, worker, streams, "worker lost, its streams go to others");
        }
        Decision::WorkerGone(_) => {}
        Decision::Withdrawn(..)
        | Decision::Refused(..)
        | Decision::Changed(..)
        | Decision::Kicked(..)
        | Decision::KickOnWorker(..) => {}
    }
}

fn report_start(metrics: &LobbyMetrics, started: &Started) {
    let whole = started.started.saturating_duration_since(started.entered);
    let kind = if started.is_cold() { "cold" } else { "warm" };
    metrics.start.with_label_values(&[kind]).observe(whole.as_secs_f64());
    if !started.is_cold() {
        let (stream, worker) = (&started.stream_id, &started.worker);
        debug!(event = event::START_WARM, stream, worker, whole_ms = milliseconds(whole), "warm start");
    }
}

fn report_cold_start(metrics: &LobbyMetrics, start: &ColdStartPhases) {
    for (phase, time) in &start.phases {
        metrics.note_phase(&start.stream_id, phase.as_str(), *time);
    }
    let (stream, worker) = (&start.stream_id, &start.worker);
    let time = |phase| start.time(phase).map(milliseconds);
    debug!(
        event = event::START_COLD,
        stream,
        worker,
        pushed_ms = time(ColdPhase::Pushed),
        scaled_ms = time(ColdPhase::Scaled),
        pod_created_ms = time(ColdPhase::PodCreated),
        scheduled_ms = time(ColdPhase::Scheduled),
        process_started_ms = time(ColdPhase::ProcessStarted),
        registered_ms = time(ColdPhase::Registered),
        handed_over_ms = time(ColdPhase::HandedOver),
        live_ms = time(ColdPhase::Live),
        media_ms = time(ColdPhase::Media),
        whole_ms = milliseconds(start.whole()),
        "cold start"
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn report_process(metrics: &LobbyMetrics, output: &ProcessOutput) {
    let ended = |how: ProcessOutcome| metrics.processes_ended.with_label_values(&[how.as_str()]).inc();
    match output {
        ProcessOutput::Spawn(_) | ProcessOutput::Stop(_) | ProcessOutput::Kill(_) => {}
        ProcessOutput::Failed { name, how, why, last_words, pause } => {
            ended(*how);
            let last_words = last_words.join("\n");
            let pause_ms = pause.as_millis();
            error!(event = event::PROCESS_FAILED, worker = name, why, last_words, pause_ms, "worker process failed");
        }
        ProcessOutput::Gone(name) => {
            ended(ProcessOutcome::Asked);
            info!(event = event::PROCESS_ENDED, worker = name, "worker process ended");
        }
        ProcessOutput::Terminated(name) => {
            ended(ProcessOutcome::Terminated);
            info!(
                event = event::PROCESS_TERMINATED,
                worker = name,
                "worker process ended without being asked: another program terminated it, or it had lost this activator"
            );
        }
    }
}
