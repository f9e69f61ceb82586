//! The gRPC service, shell around `machine` and `metric`. In: KEDA's calls, on connections of `socket`. Out: answers from memory; pushed
//! `true`s. Next: KEDA.
//!
//! Going down: when the activator accepts no more publishers, it ends push streams with OK and then asks connections to close, so that
//! KEDA reconnects to another activator and without a back-off. A client that connects here all the same is answered until the very end,
//! because KEDA would remove the workers of its live streams if the activator stopped answering.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks, the clock")]

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use super::limits::{END_TIMEOUT, MAX_AGE, MAX_CALLS, MAX_HEADERS, MAX_MESSAGE, MAX_STREAMS, PING_EVERY, PING_TIMEOUT};
use super::machine::{Output, Push, PushDemand};
use super::metric::Trigger;
use super::metrics::{KedaCall, ScalerMetrics};
use super::proto::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use super::proto::{
    DESCRIBED, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use super::socket::ScalerCertificates;
use super::socket::{Caller, ConnectionPlaces, accept};
use crate::dispatch::Need;
use crate::drain::Phase;
use crate::peers::Cluster;

/// Time between two looks at changes, so that many changes at once are handled as one.
const PAUSE: Duration = Duration::from_millis(10);

/// The handles and settings of the service.
#[derive(Clone)]
pub struct ScalerContext {
    /// View of all activators, with the demand.
    pub cluster: Cluster,
    /// Streams for each worker, for triggers without a target.
    pub target: u32,
    /// Certificates; `None` serves without TLS.
    pub tls: Option<Arc<ScalerCertificates>>,
    /// The phase of going down.
    pub phase: watch::Receiver<Phase>,
    /// Metrics of this room.
    pub metrics: ScalerMetrics,
}

/// Serves `listener` until `stop` is cancelled.
///
/// # Errors
/// The server could not run.
pub async fn serve(
    listener: TcpListener,
    context: ScalerContext,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let listener = Arc::new(listener);
    let places = ConnectionPlaces::new();
    let leaving = CancellationToken::new();
    let watching = {
        let (mut phase, leaving, stop) = (context.phase.clone(), leaving.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= Phase::StopAccepting) => {}
                () = stop.cancelled() => {}
            }
            leaving.cancel();
        })
    };
    let first = until(&context, &listener, &places, leaving.clone(), true);
    // For clients that connect all the same.
    let second = async {
        leaving.cancelled().await;
        until(&context, &listener, &places, stop.clone(), false).await
    };
    // A client that does not hang up is not waited for.
    let patience = async {
        stop.cancelled().await;
        sleep(2 * END_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = async { tokio::try_join!(first, second) } => served.map(|((), ())| ()),
        () = patience => Ok(()),
    };
    watching.abort();
    served
}

/// Serves until `end` is cancelled: push streams end with OK first, then connections.
async fn until(
    context: &ScalerContext,
    listener: &Arc<TcpListener>,
    places: &ConnectionPlaces,
    end: CancellationToken,
    healthy: bool,
) -> Result<(), tonic::transport::Error> {
    let streams = Arc::new(Semaphore::new(MAX_STREAMS));
    let service = ScalerService { context: context.clone(), streams: Arc::clone(&streams), end: end.clone() };
    let service = ExternalScalerServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let (health, health_service) = tonic_health::server::health_reporter();
    let status = if healthy { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    health.set_service_status("", status).await;
    health.set_service_status("externalscaler.ExternalScaler", status).await;

    let mut server = Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .max_connection_age(MAX_AGE)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    let mut server = server.add_service(service).add_service(health_service);
    // The descriptors are compiled in, so building cannot fail. Without reflection the service is only harder to inspect.
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIBED)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (described().build_v1(), described().build_v1alpha()) {
        (Ok(new), Ok(old)) => server = server.add_service(new).add_service(old),
        (new, old) => {
            warn!(event = event::SCALER_REFLECTION_FAILED, error = ?new.err().or(old.err()), "reflection not offered")
        }
    }
    // Length 1: tonic serves an accepted connection at once.
    let (accepted, incoming) = mpsc::channel(1);
    tokio::spawn(accept(Arc::clone(listener), places.clone(), context.tls.clone(), accepted));
    let ended = async move {
        end.cancelled().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let all = u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX);
        let _ = timeout(END_TIMEOUT, streams.acquire_many(all)).await;
    };
    server.serve_with_incoming_shutdown(ReceiverStream::new(incoming), ended).await
}

struct ScalerService {
    context: ScalerContext,
    /// Places of push streams.
    streams: Arc<Semaphore>,
    end: CancellationToken,
}

impl ScalerService {
    fn trigger(&self, metadata: &HashMap<String, String>) -> Result<Trigger, Status> {
        Trigger::parse(metadata, self.context.target).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// The need that KEDA is about to be told.
    fn need(&self, trigger: &Trigger) -> Result<Need, Status> {
        let app = trigger.app.as_deref();
        let need = self.context.cluster.need(app).map_err(|unsure| Status::unavailable(unsure.to_string()))?;
        if need.demand() > 0 {
            self.context.cluster.pushed(app);
        }
        Ok(need)
    }

    /// Takes a call; its connection counts among callers from now on.
    fn taken<T>(request: Request<T>) -> T {
        if let Some(caller) = request.extensions().get::<Caller>() {
            caller.known();
        }
        request.into_inner()
    }

    /// Counts a call and its end.
    fn counted<T>(
        &self,
        call: KedaCall,
        object: &ScaledObjectRef,
        answer: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        self.context.metrics.called(call, answer.is_ok());
        if let Err(status) = &answer {
            debug!(event = event::SCALER_CALL_FAILED, call = call.as_str(), object = object.name, namespace = object.namespace, %status, "call of KEDA answered with an error");
        }
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl ExternalScaler for ScalerService {
    type StreamIsActiveStream = Pushed;

    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        let object = Self::taken(request);
        let answer = self.trigger(&object.scaler_metadata).and_then(|trigger| self.need(&trigger));
        let answer = answer.map(|need| IsActiveResponse { result: need.demand() > 0 });
        self.counted(KedaCall::IsActive, &object, answer)
    }

    async fn stream_is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<Pushed>, Status> {
        let object = Self::taken(request);
        let answer = self.trigger(&object.scaler_metadata).and_then(|trigger| {
            let place = Arc::clone(&self.streams).try_acquire_owned();
            let place = place.map_err(|_| Status::resource_exhausted("too many push streams"))?;
            // Length 1: a `true` that is still unread says the same as the next one would.
            let (words, from) = mpsc::channel(1);
            let pushing = Pushing {
                context: self.context.clone(),
                trigger,
                words,
                end: self.end.clone(),
                object: format!("{}/{}", object.namespace, object.name),
            };
            self.context.metrics.push_streams.inc();
            tokio::spawn(pushing.run());
            Ok(Pushed {
                from: ReceiverStream::new(from),
                open: self.context.metrics.push_streams.clone(),
                _place: place,
            })
        });
        self.counted(KedaCall::StreamIsActive, &object, answer)
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let object = Self::taken(request);
        let answer = self.trigger(&object.scaler_metadata).map(|trigger| GetMetricSpecResponse {
            metric_specs: vec![MetricSpec {
                metric_name: trigger.metric_name(),
                target_size: trigger.whole_target(),
                target_size_float: trigger.target,
            }],
        });
        self.counted(KedaCall::GetMetricSpec, &object, answer)
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let object = Self::taken(request).scaled_object_ref.unwrap_or_default();
        let answer = self.trigger(&object.scaler_metadata).and_then(|trigger| {
            let need = self.need(&trigger)?;
            Ok(GetMetricsResponse {
                metric_values: vec![MetricValue {
                    metric_name: trigger.metric_name(),
                    metric_value: trigger.whole_value(&need),
                    metric_value_float: trigger.value(&need),
                }],
            })
        });
        if let Some(told) = answer.as_ref().ok().and_then(|answer| answer.metric_values.first()) {
            self.context.metrics.polled(told.metric_value_float);
        }
        self.counted(KedaCall::GetMetrics, &object, answer)
    }
}

/// The task of a push stream.
struct Pushing {
    context: ScalerContext,
    trigger: Trigger,
    words: mpsc::Sender<Result<IsActiveResponse, Status>>,
    end: CancellationToken,
    object: String,
}

impl Pushing {
    async fn run(self) {
        let mut changes = self.context.cluster.changes();
        let mut push = Push::new(now(), self.asked());
        let mut quiet = now();
        debug!(event = event::SCALER_STREAM_OPENED, object = self.object, "push stream opened");
        loop {
            match push.poll_output() {
                Some(Output::True) => {
                    debug!(event = event::SCALER_PUSHED, object = self.object, "true pushed to KEDA");
                    self.context.metrics.pushed.inc();
                    self.context.cluster.pushed(self.trigger.app.as_deref());
                    let _ = self.words.try_send(Ok(IsActiveResponse { result: true }));
                }
                // Dropping the only sender ends the stream with OK.
                Some(Output::End) => return,
                None => {}
            }
            let due = async {
                match push.poll_timeout() {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.words.closed() => return,
                () = self.end.cancelled() => push.end(),
                Ok(()) = async { sleep_until(quiet.into()).await; changes.changed().await } => {
                    push.handle(now(), self.asked());
                    quiet = now() + PAUSE;
                }
                () = due => push.handle_timeout(now()),
            }
        }
    }

    fn asked(&self) -> PushDemand {
        let need = self.context.cluster.known(self.trigger.app.as_deref());
        PushDemand { demand: need.demand(), unplaced: need.unplaced }
    }
}

/// KEDA's end of a push stream; its place is free when the stream has ended.
pub(super) struct Pushed {
    from: ReceiverStream<Result<IsActiveResponse, Status>>,
    open: prometheus::IntGauge,
    _place: OwnedSemaphorePermit,
}

impl Stream for Pushed {
    type Item = Result<IsActiveResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.from).poll_next(cx)
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
