//! The service as KEDA meets it: a client that calls in KEDA's order and backs off as KEDA does, over real connections.

use std::net::SocketAddr;

use liveedgecast_common::control::ActivatorMessage;
use liveedgecast_common::control::{Session, SessionState};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::listen::listen;
use liveedgecast_common::metrics::text;
use prometheus::Registry;
use tokio_util::sync::DropGuard;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::super::limits::MAX_STRANGERS;
use super::super::proto::external_scaler_client::ExternalScalerClient;
use super::*;
use crate::config::{Fleet, Handoff};
use crate::destinations::StreamDestinations;
use crate::dispatch::{Entry, Introduction, PlaceEvent, Rules};
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics, MAX_UNREAD, Place};

#[path = "tls_tests.rs"]
mod tls;

struct House {
    address: SocketAddr,
    lobby: Lobby,
    registry: Registry,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

fn house_with(fleet: Fleet, tls: Option<ScalerCertificates>) -> House {
    let registry = Registry::new();
    let metrics = ScalerMetrics::new(&registry).unwrap();
    let rules = Rules::default();
    let lobby = Lobby::new(rules, None, lobby_metrics(&registry), Events::default());
    let (phase, phases) = watch::channel(Phase::Serving);
    let cluster = Cluster::alone(lobby.peers.clone(), fleet);
    let tls = tls.map(Arc::new);
    let context = ScalerContext { cluster, target: 50, tls, phase: phases, metrics };
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = {
        let stop = stop.clone();
        tokio::spawn(async move { serve(listener, context, stop).await.unwrap() })
    };
    let guard = stop.clone().drop_guard();
    House { address, lobby, registry, phase, stop, served, _stop: guard }
}

fn lobby_metrics(registry: &Registry) -> LobbyMetrics {
    let counter = |name: &str| prometheus::IntCounter::new(name, name).unwrap();
    LobbyMetrics::new(registry, counter("excess"), counter("disbelieved")).unwrap()
}

fn house() -> House {
    house_with(Fleet::Process, None)
}

impl House {
    fn publisher(&self, id: &str, app: &str) -> Place {
        self.lobby.places.enter(Entry {
            stream_id: StreamId(id.to_owned()),
            identities: vec![],
            app: AppName::parse(app).unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: now() + Duration::from_secs(600),
            hold: Duration::from_secs(600),
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        })
    }

    /// A worker with these streams.
    fn worker(&self, name: &str, capacity: u32, streams: &[&str]) -> mpsc::Receiver<ActivatorMessage> {
        let sessions = streams.iter().map(|id| Session {
            stream_id: (*id).to_owned(),
            app: "live".into(),
            state: SessionState::Live,
            ..Session::default()
        });
        let name = name.to_owned();
        let sessions = sessions.collect();
        let introduction = Introduction {
            name,
            capacity,
            availability: liveedgecast_common::control::Availability::Open,
            same_host: true,
            sessions,
            takes_lists: true,
            key: None,
            age: None,
            excerpts: true,
        };
        let (outbox, inbox) = mpsc::channel(MAX_UNREAD);
        self.lobby.workers.join(introduction, outbox).unwrap();
        inbox
    }

    async fn keda(&self, metadata: &[(&str, &str)]) -> Keda {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Keda::new(endpoint.connect().await.unwrap(), metadata)
    }

    /// Opens more connections than strangers may have, and waits until some have been closed.
    async fn dial_in_silence(&self) -> Vec<tokio::net::TcpStream> {
        use tokio::io::AsyncReadExt;
        let mut undecided = Vec::new();
        for _ in 0..2 * MAX_STRANGERS {
            undecided.push(tokio::net::TcpStream::connect(self.address).await.unwrap());
        }
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(10), undecided[MAX_STRANGERS - 1].read_to_end(&mut rest)).await.unwrap();
        undecided
    }

    fn metric(&self, row: &str) -> bool {
        text(&self.registry).lines().any(|line| line == row)
    }
}

/// Takes the offer that the publisher gets, as its worker would.
async fn taken(place: &mut Place) {
    let PlaceEvent::Offered { epoch, .. } = place.event().await else { panic!() };
    place.taken(epoch);
    place.started();
}

/// KEDA 2.21, as far as a scaler can tell: one connection for polls and pushes.
struct Keda {
    client: ExternalScalerClient<Channel>,
    object: ScaledObjectRef,
    /// Seconds that KEDA would wait before it opens a push stream again.
    back_off: u64,
}

impl Keda {
    fn new(channel: Channel, metadata: &[(&str, &str)]) -> Self {
        let mut object = ScaledObjectRef { name: "workers".into(), namespace: "edge".into(), ..Default::default() };
        object.scaler_metadata.insert("scalerAddress".into(), "activator:6000".into());
        object.scaler_metadata.extend(metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        Self { client: ExternalScalerClient::new(channel), object, back_off: 2 }
    }

    /// The result of a poll: replicas by the HPA's division, and whether it is active. Both of KEDA's ways to read a metric agree.
    async fn poll(&mut self) -> Result<(f64, bool), Status> {
        let specs = self.client.get_metric_spec(self.object.clone()).await?.into_inner().metric_specs;
        let [spec] = specs.as_slice() else { panic!("{specs:?}") };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(spec.metric_name.chars().all(plain), "{spec:?}");
        let asked =
            GetMetricsRequest { scaled_object_ref: Some(self.object.clone()), metric_name: spec.metric_name.clone() };
        let values = self.client.get_metrics(asked).await?.into_inner().metric_values;
        let active = self.client.is_active(self.object.clone()).await?.into_inner().result;
        let target = if spec.target_size_float > 0.0 { spec.target_size_float } else { spec.target_size as f64 };
        let value = |value: &MetricValue| {
            if value.metric_value_float > 0.0 { value.metric_value_float } else { value.metric_value as f64 }
        };
        let sum: f64 = values.iter().map(value).sum();
        let whole: i64 = values.iter().map(|value| value.metric_value).sum();
        assert_eq!((sum / target).ceil(), (whole as f64 / spec.target_size as f64).ceil());
        Ok((sum / target, active))
    }

    async fn stream(&mut self) -> Result<Streaming<IsActiveResponse>, Status> {
        let opened = self.client.stream_is_active(self.object.clone()).await;
        opened.map(Response::into_inner).inspect_err(|_| self.failed())
    }

    /// The next push; at the end of the stream KEDA sets its back-off anew, if the end was OK, else doubles it.
    async fn pushed(&mut self, stream: &mut Streaming<IsActiveResponse>) -> Option<bool> {
        match stream.message().await {
            Ok(Some(pushed)) => Some(pushed.result),
            Ok(None) => {
                self.back_off = 2;
                None
            }
            Err(_) => {
                self.failed();
                None
            }
        }
    }

    fn failed(&mut self) {
        self.back_off = (self.back_off * 2).min(60);
    }
}

#[tokio::test]
async fn polls_follow_a_stream_from_its_arrival_to_its_end() {
    let house = house();
    let mut keda = house.keda(&[("target", "10")]).await;
    assert!(house.metric("liveedgecast_scaler_last_poll_timestamp_seconds 0"));
    assert_eq!(keda.poll().await.unwrap(), (0.0, false));
    let mut place = house.publisher("a", "live");
    assert_eq!(keda.poll().await.unwrap(), (1.0, true), "the first waits");
    let _worker = house.worker("w", 10, &[]);
    assert_eq!(keda.poll().await.unwrap(), (1.0, true), "a worker is on its way to it");
    taken(&mut place).await;
    assert_eq!(keda.poll().await.unwrap(), (1.0, true), "it is live");
    drop(place);
    assert_eq!(keda.poll().await.unwrap(), (0.0, false), "it is gone");
    assert!(house.metric("liveedgecast_scaler_calls_total{call=\"IsActive\"} 5"));
    assert!(!house.metric("liveedgecast_scaler_last_poll_timestamp_seconds 0"));
}

#[tokio::test]
async fn need_of_an_eleventh_worker_exceeds_the_tolerance_of_the_hpa() {
    let house = house();
    let mut keda = house.keda(&[("target", "1")]).await;
    let mut workers = Vec::new();
    for number in 0..10 {
        workers.push(house.worker(&format!("w{number}"), 1, &[&format!("s{number}")]));
    }
    assert_eq!(keda.poll().await.unwrap(), (10.0, true));
    let _place = house.publisher("a", "live");
    let (replicas, _) = keda.poll().await.unwrap();
    assert!(replicas / 10.0 > 1.1, "{replicas} for 10 is within the tolerance of the HPA");
}

#[tokio::test]
async fn trigger_counts_one_app_when_it_names_one() {
    let house = house();
    let (mut live, mut other) = (house.keda(&[("app", "live")]).await, house.keda(&[("app", "other")]).await);
    let _place = house.publisher("a", "live");
    assert_eq!(live.poll().await.unwrap(), (1.0, true));
    assert_eq!(other.poll().await.unwrap(), (0.0, false));
}

#[tokio::test]
async fn true_is_pushed_again_while_a_stream_waits_and_false_never() {
    let house = house();
    let mut keda = house.keda(&[]).await;
    let mut stream = keda.stream().await.unwrap();
    let place = house.publisher("a", "live");
    for _ in 0..3 {
        assert_eq!(keda.pushed(&mut stream).await, Some(true));
    }
    drop(place);
    house.phase.send_replace(Phase::StopAccepting);
    while let Some(pushed) = keda.pushed(&mut stream).await {
        assert!(pushed, "false is never pushed");
    }
    assert_eq!(keda.back_off, 2);
    assert!(house.metric("liveedgecast_scaler_pushed_total 3"));
}

#[tokio::test]
async fn cold_start_has_the_time_until_keda_knew_of_it() {
    // The app that KEDA asks for, whether it is pushed to; the cold starts that it knew of.
    for (app, pushes, known) in [("live", true, 1), ("live", false, 1), ("other", false, 0)] {
        let house = house();
        let mut keda = house.keda(&[("app", app)]).await;
        let mut stream = if pushes { Some(keda.stream().await.unwrap()) } else { None };
        let mut place = house.publisher("a", "live");
        match &mut stream {
            Some(stream) => assert_eq!(keda.pushed(stream).await, Some(true)),
            None => assert_eq!(keda.poll().await.unwrap().1, app == "live"),
        }
        let _worker = house.worker("w", 10, &[]);
        taken(&mut place).await;
        drop(place);
        let row = format!("liveedgecast_cold_start_seconds_count{{phase=\"pushed\"}} {known}");
        assert!(house.metric(&row), "{app} {pushes}");
        assert!(house.metric("liveedgecast_cold_start_seconds_count{phase=\"registered\"} 1"), "{app} {pushes}");
    }
}

#[tokio::test]
async fn true_is_pushed_at_once_when_a_publisher_waited_before() {
    let house = house();
    let _place = house.publisher("a", "live");
    let mut keda = house.keda(&[]).await;
    let mut stream = keda.stream().await.unwrap();
    assert_eq!(keda.pushed(&mut stream).await, Some(true));
    assert!(house.metric("liveedgecast_scaler_push_streams 1"));
}

#[tokio::test]
async fn push_streams_end_with_ok_and_polls_are_answered_while_going_down() {
    let house = house();
    let _worker = house.worker("w", 1, &["a"]);
    let mut keda = house.keda(&[]).await;
    keda.failed();
    keda.failed();
    let mut stream = keda.stream().await.unwrap();
    assert_eq!(keda.pushed(&mut stream).await, Some(true), "something is live");
    house.phase.send_replace(Phase::StopAccepting);
    assert_eq!(keda.pushed(&mut stream).await, None);
    assert_eq!(keda.back_off, 2, "the back-off is as if nothing had happened");
    // KEDA finds no other activator.
    let mut again = house.keda(&[]).await;
    assert_eq!(again.poll().await.unwrap(), (1.0, true), "its stream keeps the worker");
    let mut stream = again.stream().await.unwrap();
    assert_eq!(again.pushed(&mut stream).await, Some(true));
    house.stop.cancel();
    assert_eq!(again.pushed(&mut stream).await, None);
    assert_eq!(again.back_off, 2);
    house.served.await.unwrap();
}

#[tokio::test]
async fn push_stream_is_not_counted_after_keda_drops_it() {
    let house = house();
    let mut keda = house.keda(&[]).await;
    let stream = keda.stream().await.unwrap();
    assert!(house.metric("liveedgecast_scaler_push_streams 1"));
    drop((stream, keda));
    while !house.metric("liveedgecast_scaler_push_streams 0") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_call_explains_the_mistake_when_metadata_is_bad() {
    let house = house();
    let mut keda = house.keda(&[("target", "ten")]).await;
    let object = keda.object.clone();
    let metrics = GetMetricsRequest { scaled_object_ref: Some(object.clone()), metric_name: "x".into() };
    let errors = [
        keda.client.is_active(object.clone()).await.unwrap_err(),
        keda.client.get_metric_spec(object.clone()).await.unwrap_err(),
        keda.client.get_metrics(metrics).await.unwrap_err(),
        keda.client.stream_is_active(object).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("target") && error.message().contains("\"ten\""), "{error}");
    }
    assert!(house.metric("liveedgecast_scaler_errors_total{call=\"GetMetrics\"} 1"));
}

#[tokio::test]
async fn scaler_is_unavailable_after_start_until_it_knows_a_stream() {
    let house = house_with(Fleet::External, None);
    let mut keda = house.keda(&[]).await;
    let object = keda.object.clone();
    assert!(keda.client.get_metric_spec(object.clone()).await.is_ok());
    assert_eq!(keda.client.is_active(object.clone()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(keda.poll().await.unwrap_err().code(), Code::Unavailable);
    let _place = house.publisher("a", "live");
    assert_eq!(keda.poll().await.unwrap(), (1.0, true), "what it knows of is there");
}

/// Fields of the answers that KEDA before 2.17 knows.
mod old {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Spec {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(int64, tag = "2")]
        pub(super) target: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Specs {
        #[prost(message, repeated, tag = "1")]
        pub(super) specs: Vec<Spec>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Value {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(int64, tag = "2")]
        pub(super) value: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Values {
        #[prost(message, repeated, tag = "1")]
        pub(super) values: Vec<Value>,
    }
}

#[tokio::test]
async fn keda_before_2_17_reads_whole_numbers() {
    let house = house();
    let _places: Vec<Place> = (0..4).map(|number| house.publisher(&number.to_string(), "live")).collect();
    let keda = house.keda(&[("target", "2.5")]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    let mut raw = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    raw.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/externalscaler.ExternalScaler/GetMetricSpec");
    let codec = tonic_prost::ProstCodec::<ScaledObjectRef, old::Specs>::default();
    let specs = raw.unary(Request::new(keda.object.clone()), path, codec).await.unwrap().into_inner().specs;
    assert_eq!(specs, [old::Spec { name: "liveedgecast-streams".into(), target: 3 }]);
    let asked = GetMetricsRequest { scaled_object_ref: Some(keda.object), metric_name: specs[0].name.clone() };
    raw.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/externalscaler.ExternalScaler/GetMetrics");
    let codec = tonic_prost::ProstCodec::<GetMetricsRequest, old::Values>::default();
    let values = raw.unary(Request::new(asked), path, codec).await.unwrap().into_inner().values;
    assert_eq!(values, [old::Value { name: "liveedgecast-streams".into(), value: 6 }], "two workers");
}

#[test]
fn protocol_matches_keda_2_17_to_2_21() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(DESCRIBED).unwrap();
    let file = set.file.iter().find(|file| file.package() == "externalscaler").unwrap();
    let mut fields = Vec::new();
    for message in &file.message_type {
        for field in &message.field {
            let kind = match field.r#type() {
                prost_types::field_descriptor_proto::Type::Message => {
                    field.type_name().rsplit('.').next().unwrap().to_owned()
                }
                other => format!("{other:?}").to_lowercase(),
            };
            let many = if field.label() == prost_types::field_descriptor_proto::Label::Repeated { "*" } else { "" };
            fields.push(format!("{}.{}={} {kind}{many}", message.name(), field.name(), field.number()));
        }
    }
    // Names, numbers and types as in KEDA 2.17 to 2.21.
    let expected = [
        "ScaledObjectRef.name=1 string",
        "ScaledObjectRef.namespace=2 string",
        "ScaledObjectRef.scalerMetadata=3 ScalerMetadataEntry*",
        "IsActiveResponse.result=1 bool",
        "GetMetricSpecResponse.metricSpecs=1 MetricSpec*",
        "MetricSpec.metricName=1 string",
        "MetricSpec.targetSize=2 int64",
        "MetricSpec.targetSizeFloat=3 double",
        "GetMetricsRequest.scaledObjectRef=1 ScaledObjectRef",
        "GetMetricsRequest.metricName=2 string",
        "GetMetricsResponse.metricValues=1 MetricValue*",
        "MetricValue.metricName=1 string",
        "MetricValue.metricValue=2 int64",
        "MetricValue.metricValueFloat=3 double",
    ];
    assert_eq!(fields, expected);
    let methods: Vec<(&str, bool)> =
        file.service[0].method.iter().map(|method| (method.name(), method.server_streaming())).collect();
    let expected = [("IsActive", false), ("StreamIsActive", true), ("GetMetricSpec", false), ("GetMetrics", false)];
    assert_eq!((file.service[0].name(), methods.as_slice()), ("ExternalScaler", &expected[..]));
}

#[tokio::test]
async fn stream_metric_spec_of_keda_2_21_is_unimplemented() {
    let house = house();
    let endpoint = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    let mut raw = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    raw.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/externalscaler.ExternalScaler/StreamMetricSpec");
    let codec = tonic_prost::ProstCodec::<ScaledObjectRef, GetMetricSpecResponse>::default();
    let answer = raw.server_streaming(Request::new(ScaledObjectRef::default()), path, codec).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn scaler_serves_health_and_reflection_until_it_goes_down() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let house = house();
    let endpoint = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "externalscaler.ExternalScaler"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = MessageRequest::ListServices(String::new());
    let asked = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
    let mut said = reflection.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    let said = said.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = said else { panic!("{said:?}") };
    assert!(list.service.contains(&ServiceResponse { name: "externalscaler.ExternalScaler".into() }), "{list:?}");
    house.phase.send_replace(Phase::StopAccepting);
    loop {
        // The first server may still accept this connection while it goes down.
        let mut health = HealthClient::new(endpoint.connect().await.unwrap());
        let answer = health.check(HealthCheckRequest::default()).await;
        if answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::NotServing) {
            break;
        }
    }
}

#[tokio::test]
async fn poll_counts_both_streams_when_their_worker_is_lost() {
    let house = house();
    let inbox = house.worker("w", 1, &["a"]);
    let mut keda = house.keda(&[]).await;
    let mut stream = keda.stream().await.unwrap();
    assert_eq!(keda.pushed(&mut stream).await, Some(true), "something is live");
    let _second = house.publisher("b", "live");
    assert_eq!(keda.pushed(&mut stream).await, Some(true), "the worker is full");
    drop(inbox);
    assert_eq!(keda.poll().await.unwrap(), (2.0, true));
}

#[tokio::test]
async fn keda_keeps_its_push_stream_while_strangers_hold_idle_connections() {
    let house = house();
    let mut keda = house.keda(&[]).await;
    let mut stream = keda.stream().await.unwrap();
    let _undecided = house.dial_in_silence().await;
    let _place = house.publisher("a", "live");
    assert_eq!(keda.pushed(&mut stream).await, Some(true));
    assert!(keda.poll().await.is_ok());
}

#[tokio::test]
async fn keda_connects_while_strangers_hold_all_idle_connections() {
    use tokio::io::AsyncReadExt;
    let house = house();
    let mut undecided = Vec::new();
    for _ in 0..MAX_STRANGERS {
        undecided.push(tokio::net::TcpStream::connect(house.address).await.unwrap());
    }
    let mut keda = timeout(Duration::from_secs(10), house.keda(&[])).await.unwrap();
    assert!(timeout(Duration::from_secs(10), keda.poll()).await.unwrap().is_ok());
    let mut greeting = Vec::new();
    let _ = timeout(Duration::from_secs(10), undecided[0].read_to_end(&mut greeting)).await.unwrap();
}
