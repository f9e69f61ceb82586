//! The spans of a stream's start that this activator knows. In: decisions of the machine about starts. Out: spans, to the process's collector.
//!
//! A cold start is told when the first media are upstream, because that is its end. A warm one ends with `Publish.Start`: its worker's own spans go on
//! from there.

use std::time::Instant;

use liveedgecast_common::trace::{self, StartSpan};

use crate::dispatch::ColdStartPhases;
use crate::dispatch::messages::Started;

/// The whole of a start, from the publisher's connection on.
const START: &str = "stream start";
/// The part in which the publisher connects, speaks up to `publish`, and is judged.
const CONNECT: &str = "connect and publish";

/// Tells the spans of a cold start: one for each phase, each where the one before it has ended.
pub(super) fn cold(start: &ColdStartPhases) {
    if !trace::is_on() {
        return;
    }
    let (stream, worker) = (&start.stream_id, &start.worker);
    whole(stream, worker, "cold", start.connected.unwrap_or(start.entered), start.entered + start.whole());
    if let Some(connected) = start.connected {
        trace::record(StartSpan::new(stream, CONNECT, connected, start.entered));
    }
    let mut at = start.entered;
    for (phase, time) in &start.phases {
        trace::record(StartSpan::new(stream, phase.as_str(), at, at + *time));
        at += *time;
    }
}

/// Tells the spans of a warm start; a cold one is told later.
pub(super) fn warm(start: &Started) {
    if !trace::is_on() || start.is_cold() {
        return;
    }
    let (stream, worker) = (&start.stream_id, &start.worker);
    whole(stream, worker, "warm", start.connected.unwrap_or(start.entered), start.started);
    if let Some(connected) = start.connected {
        trace::record(StartSpan::new(stream, CONNECT, connected, start.entered));
    }
    trace::record(StartSpan::new(stream, "handed_over", start.entered, start.taken));
    trace::record(StartSpan::new(stream, "live", start.taken, start.started));
}

/// Tells a start whose publisher left before its stream was live.
pub(super) fn failed(now: Instant, stream: &str, worker: &str, entered: Instant) {
    if trace::is_on() {
        let span = StartSpan::new(stream, START, entered, now).with("worker", worker);
        let failed = Some("the publisher left before its stream was live".to_owned());
        trace::record(StartSpan { whole: true, failed, ..span });
    }
}

fn whole(stream: &str, worker: &str, kind: &str, begin: Instant, end: Instant) {
    let span = StartSpan::new(stream, START, begin, end).with("worker", worker).with("kind", kind);
    trace::record(StartSpan { whole: true, ..span });
}
