//! Traces of stream starts: one trace for each publisher, from its TCP connection to the first media upstream, across both processes. In: finished
//! spans of any room. Out: spans by OTLP over gRPC, to the collector that the setting names. Next: `trace/export`, with the feature `otlp`.
//!
//! Both processes derive the trace's id and that of its first span from the stream's id, so nothing about traces is on the wire between them, and
//! spans may be told in any order. A stream's id is random, 64 bits, and no secret.
//!
//! Without the feature, and without the setting, a span costs one look at a flag. Note: nothing here waits for the collector. Spans that it does not
//! take are counted and left out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use tokio::sync::mpsc;

use crate::config::Problems;
use crate::setting::set;

#[cfg(feature = "otlp")]
mod export;

/// Spans that wait for the collector. A start has some ten, so that a venue of four hundred encoders fits that come at once.
const MAX_WAITING: usize = 4096;

/// The way to the exporter, once it runs.
static SPANS: OnceLock<mpsc::Sender<StartSpan>> = OnceLock::new();

/// The setting of traces, the same in both binaries, as typed.
#[derive(Clone, Debug, Default, Args)]
pub struct TraceArgs {
    /// Collector that gets traces of stream starts by OTLP over gRPC, such as http://127.0.0.1:4317; in builds with the feature otlp
    /// [default: no traces]
    #[arg(long, env = "OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(String);

impl TraceArgs {
    /// Reads the setting; mistakes are noted.
    pub fn resolve(&self, problems: &mut Problems) -> Option<Collector> {
        const NAME: &str = "OTLP_ENDPOINT";
        let text = set(&self.otlp_endpoint)?;
        if !cfg!(feature = "otlp") {
            problems.add(NAME, "this program was built without traces: build it with --features otlp");
            return None;
        }
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let port = authority.and_then(|authority| authority.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        match (authority, port) {
            (Some(authority), Some(1..=u16::MAX)) if !authority.contains(['/', '@', '?', ' ']) => {
                Some(Collector(text.to_owned()))
            }
            _ => {
                problems
                    .add(NAME, format_args!("{text:?} is no address of a collector: write it like http://HOST:4317"));
                None
            }
        }
    }
}

impl Collector {
    /// The address as it was typed, for a process of ours that is to send its spans there, too.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part of a stream's start that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StartSpan {
    /// Id of the stream.
    pub stream: String,
    /// Name of the part.
    pub name: &'static str,
    /// True for the start as a whole, which all other parts belong to.
    pub whole: bool,
    /// Beginning.
    pub begin: Instant,
    /// End.
    pub end: Instant,
    /// The cause of a failure.
    pub failed: Option<String>,
    /// Further facts, none of which is a secret.
    pub attributes: Vec<(&'static str, String)>,
}

impl StartSpan {
    /// A part without further facts.
    #[must_use]
    pub fn new(stream: &str, name: &'static str, begin: Instant, end: Instant) -> Self {
        let stream = stream.to_owned();
        Self { stream, name, whole: false, begin, end: end.max(begin), failed: None, attributes: Vec::new() }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }
}

/// Returns whether spans go anywhere: where making one costs something, this is asked before.
#[must_use]
pub fn is_on() -> bool {
    SPANS.get().is_some()
}

/// The id of a stream's trace in hexadecimal digits; `None` where there are no traces.
#[must_use]
pub fn id_of(stream: &str) -> Option<String> {
    #[cfg(feature = "otlp")]
    return is_on().then(|| export::trace_id(stream));
    #[cfg(not(feature = "otlp"))]
    return Some(stream).filter(|_| is_on()).map(str::to_owned);
}

/// Tells a span. It is left out when too many wait for the collector; [`left_out`] counts those.
pub fn record(span: StartSpan) {
    if let Some(spans) = SPANS.get()
        && spans.try_send(span).is_err()
    {
        note_left_out(1);
    }
}

/// Spans that were left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

fn note_left_out(spans: usize) {
    LEFT_OUT.fetch_add(spans as u64, Ordering::Relaxed);
}

/// Spans that were left out so far, because the collector did not take them or too many waited.
#[must_use]
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Starts to export spans, once in a process. `service`: the name of the program; `instance`: that of the process.
#[cfg(feature = "otlp")]
pub fn start(collector: &Collector, service: &'static str, instance: &str) {
    let (sender, spans) = mpsc::channel(MAX_WAITING);
    if SPANS.set(sender).is_ok() {
        export::spawn(collector.as_str(), service, instance, spans);
    }
}

/// Does nothing: this build has no traces, and its configuration says so.
#[cfg(not(feature = "otlp"))]
pub fn start(_collector: &Collector, _service: &'static str, _instance: &str) {
    let _bound = MAX_WAITING;
}
