//! Spans to a collector, by OTLP over gRPC. In: finished spans. Out: batches; what the collector does not take is counted. One task, which sleeps
//! while no span comes.
#![expect(clippy::disallowed_methods, reason = "shell: a task, the wall clock")]

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{StartSpan, note_left_out};
use crate::clock::now;
use crate::log_limiter::LogLimiter;
use crate::{event, random};

/// Spans of one request.
const MAX_BATCH: usize = 512;
/// Time in which the spans of one start come together.
const GATHER: Duration = Duration::from_millis(200);
/// Longest wait for the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Lines about a collector that is away.
static FAILURES: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Starts the task. It ends with the process.
pub(super) fn spawn(endpoint: &str, service: &'static str, instance: &str, mut spans: mpsc::Receiver<StartSpan>) {
    let built = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT).build();
    let mut exporter = match built {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::warn!(event = event::TRACE_FAILED, %error, "traces cannot be exported");
            return;
        }
    };
    let resource = Resource::builder_empty().with_service_name(service).with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while spans.recv_many(&mut batch, MAX_BATCH).await > 0 {
            sleep(GATHER).await;
            while batch.len() < MAX_BATCH
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len();
            let clock = WallMoment { instant: now(), system: SystemTime::now() };
            let sent = exporter.export(batch.drain(..).map(|span| span_data(span, clock)).collect()).await;
            if let Err(error) = sent {
                note_left_out(count);
                if FAILURES.is_due(now()) {
                    tracing::warn!(event = event::TRACE_FAILED, %error, spans = count, "collector did not take spans");
                }
            }
        }
    });
}

/// One moment by both clocks, which converts all others.
#[derive(Clone, Copy, Debug)]
struct WallMoment {
    instant: Instant,
    system: SystemTime,
}

impl WallMoment {
    fn at(&self, moment: Instant) -> SystemTime {
        match moment.checked_duration_since(self.instant) {
            Some(after) => self.system + after,
            None => self.system - self.instant.saturating_duration_since(moment),
        }
    }
}

fn span_data(span: StartSpan, clock: WallMoment) -> SpanData {
    let (trace, first) = ids(&span.stream);
    let (own, parent) = match span.whole {
        true => (first, SpanId::INVALID),
        false => (SpanId::from_bytes(random::bytes()), first),
    };
    let stream = KeyValue::new("liveedgecast.stream", span.stream);
    let facts = span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value));
    SpanData {
        span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: if span.whole { SpanKind::Server } else { SpanKind::Internal },
        name: span.name.into(),
        start_time: clock.at(span.begin),
        end_time: clock.at(span.end),
        attributes: std::iter::once(stream).chain(facts).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("liveedgecast").build(),
    }
}

/// The id of a stream's trace in hexadecimal digits.
pub(super) fn trace_id(stream: &str) -> String {
    ids(stream).0.to_string()
}

/// The trace of a stream, and its first span.
fn ids(stream: &str) -> (TraceId, SpanId) {
    let hash = digest(&SHA256, format!("liveedgecast trace\0{stream}").as_bytes());
    let (mut trace, mut first) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&hash.as_ref()[..16]);
    first.copy_from_slice(&hash.as_ref()[16..24]);
    (TraceId::from_bytes(trace), SpanId::from_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_stream_are_one_trace_whichever_process_tells_them() {
        let clock = WallMoment { instant: now(), system: SystemTime::UNIX_EPOCH + Duration::from_secs(1000) };
        let at = |millis| clock.instant - Duration::from_millis(millis);
        let whole = StartSpan { whole: true, ..StartSpan::new("a", "publish", at(500), at(0)) };
        let whole = span_data(whole, clock);
        let part = span_data(StartSpan::new("a", "connect", at(500), at(400)).with("kind", "cold"), clock);
        let other = span_data(StartSpan::new("b", "connect", at(500), at(400)), clock);
        assert_eq!(part.span_context.trace_id(), whole.span_context.trace_id());
        assert_eq!((part.parent_span_id, whole.parent_span_id), (whole.span_context.span_id(), SpanId::INVALID));
        assert_ne!(part.span_context.span_id(), whole.span_context.span_id());
        assert_ne!(other.span_context.trace_id(), whole.span_context.trace_id());
        let millis = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!((millis(part.start_time), millis(part.end_time)), (999_500, 999_600));
        assert_eq!(part.attributes, [KeyValue::new("liveedgecast.stream", "a"), KeyValue::new("kind", "cold")]);
    }
}
