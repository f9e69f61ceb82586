//! Traces of stream starts, as a collector gets them.
#![expect(clippy::disallowed_methods, reason = "a collector in a thread of its own")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use liveedgecast_e2e::http;
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::prometheus::Prometheus;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{until, until_some};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::{Request, Response, Status};

by_descriptor_and_by_link! {
    a_cold_start_is_one_trace_of_both_processes
}

/// A span, and the program that has told it.
#[derive(Clone, Debug)]
struct Told {
    service: String,
    span: Span,
}

impl Told {
    fn milliseconds(&self) -> f64 {
        (self.span.end_time_unix_nano - self.span.start_time_unix_nano) as f64 / 1e6
    }
}

/// In place of a collector: it keeps every span that it gets by OTLP over gRPC.
struct FakeCollector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Told>>>,
}

#[derive(Clone)]
struct FakeTraceService(Arc<Mutex<Vec<Told>>>);

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for FakeTraceService {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("the spans");
        for told in request.into_inner().resource_spans {
            let resource = told.resource.expect("a resource");
            let service = text(&resource.attributes, "service.name").expect("a service").to_owned();
            assert!(text(&resource.attributes, "service.instance.id").is_some_and(|id| !id.is_empty()));
            for span in told.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.push(Told { service: service.clone(), span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl FakeCollector {
    fn start() -> Self {
        let (address, spans) = (loopback::socket(4317), Arc::default());
        let service = TraceServiceServer::new(FakeTraceService(Arc::clone(&spans)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(tonic::transport::Server::builder().add_service(service).serve(address))
        });
        Self { address, spans }
    }

    fn spans(&self) -> Vec<Told> {
        self.spans.lock().expect("the spans").clone()
    }

    /// The span of this name, once it has come.
    fn span(&self, name: &str) -> Told {
        until_some(format!("the span {name}"), || self.spans().into_iter().find(|told| told.span.name == name))
    }
}

fn a_cold_start_is_one_trace_of_both_processes(handoff: &str) {
    let (sink, collector) = (Sink::start(), FakeCollector::start());
    let upstreams = format!("{} rtmp://127.0.0.1:9/live/x", sink.url("live/{key}"));
    let settings = ActivatorProcess::pushing_to(&upstreams).with("HANDOFF", handoff);
    let activator = settings.with("OTLP_ENDPOINT", &format!("http://{}", collector.address)).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("traced"))));
    sink.receives(10);
    let whole = collector.span("stream start");
    let parts = ["connect and publish", "pushed", "process_started", "registered", "handed_over", "live", "media"]
        .map(|name| collector.span(name));
    let stream = activator.streams()[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(text(&whole.span.attributes, "liveedgecast.stream"), Some(stream.as_str()));
    assert_eq!(text(&whole.span.attributes, "kind"), Some("cold"));
    assert!(whole.span.parent_span_id.is_empty() && whole.service == "liveedgecast-activator");
    // The parts follow each other from the first to the last moment of the whole.
    let mut at = whole.span.start_time_unix_nano;
    for part in &parts {
        assert_eq!(part.service, "liveedgecast-activator");
        // The two clocks are read anew for each batch.
        assert!(part.span.start_time_unix_nano.abs_diff(at) < 1_000_000, "{part:?} does not begin at {at}");
        at = part.span.end_time_unix_nano;
    }
    assert!(whole.span.end_time_unix_nano.abs_diff(at) < 1_000_000, "{whole:?} does not end at {at}");
    let sum: f64 = parts.iter().map(Told::milliseconds).sum();
    println!("the start took {:.1} ms, its parts together {sum:.1} ms", whole.milliseconds());
    // The worker's own part is within the activator's.
    for name in ["fetch", "first media"] {
        let part = collector.span(name);
        assert_eq!(part.service, "liveedgecast-worker");
        assert!(part.milliseconds() < whole.milliseconds(), "{part:?} takes longer than {whole:?}");
    }
    let upstreams = until_some("both upstreams", || {
        let all: Vec<Told> = collector.spans().into_iter().filter(|told| told.span.name == "upstream").collect();
        (all.len() >= 2).then_some(all)
    });
    let of = |good: bool| {
        let failed = |told: &&Told| told.span.status.as_ref().is_some_and(|status| !status.message.is_empty());
        upstreams.iter().find(|told| failed(told) != good).expect("one that was reached and one that was not")
    };
    let (good, bad) = (of(true), of(false));
    let host = |told: &Told| text(&told.span.attributes, "host").expect("a host").to_owned();
    assert_eq!((host(good), host(bad).as_str()), (sink.address().to_string(), "127.0.0.1:9"));
    let headers = "accept: application/openmetrics-text;version=1.0.0\r\n";
    let page = http::send(activator.http(), "GET", "/metrics", headers, "").expect("an answer").body;
    let trace_id = data_encoding::HEXLOWER.encode(&whole.span.trace_id);
    let exemplars = page.lines().filter(|line| line.contains(&format!(" # {{trace_id=\"{trace_id}\"}} "))).count();
    assert!(exemplars == parts.len() - 1 && page.ends_with("\n# EOF\n"), "{exemplars} of the phases: {page}");
    let mut prometheus = Prometheus::start([127, 0, 0, 1].into());
    prometheus.scrapes(&[activator.http()]);
    let known = || prometheus.exemplars("liveedgecast_cold_start_seconds_bucket").contains(&trace_id);
    until("Prometheus to know the trace", known);
    for told in collector.spans() {
        assert_eq!(told.span.trace_id, whole.span.trace_id, "{told:?} is of another trace");
        assert!(told.span.span_id == whole.span.span_id || told.span.parent_span_id == whole.span.span_id, "{told:?}");
        assert!(!format!("{told:?}").contains("k3y"), "a key is in a span");
    }
}

#[test]
fn a_collector_that_is_away_costs_no_stream_anything_and_is_logged() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.with("OTLP_ENDPOINT", "http://127.0.0.1:9").start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("untraced"))));
    sink.receives(25);
    until("the line about the collector", || !activator.events("trace.failed").is_empty());
    let dropped = |text: &str| http::metric(text, "liveedgecast_trace_spans_dropped_total", &[]);
    until("the counter", || http::get(activator.http(), "/metrics").and_then(|text| dropped(&text)) > Some(0.0));
}
