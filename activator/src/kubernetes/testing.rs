//! An API server for tests, with the objects that this room uses: the scale of one Deployment, and pods. In: requests. Out: answers, or
//! none.
#![expect(clippy::disallowed_methods, reason = "shell: a server's tasks")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::api::DELETION_COST;

/// The server's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// Does as requested.
    #[default]
    Well,
    /// Refuses, because the role does not allow it.
    Forbidding,
    /// Refuses patches of pods, which the role does not have.
    ForbiddingPods,
    /// Never answers.
    Hanging,
    /// Answers that it is busy.
    Overloaded,
}

/// Objects and behaviour of the server.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) mood: Mood,
    /// The scale of the Deployment `workers`.
    pub(super) replicas: i32,
    version: u64,
    /// Deletion costs of the existing pods, by name.
    pub(super) pods: BTreeMap<String, Option<String>>,
    /// Every request: method, path, content type.
    pub(super) requests: Vec<(String, String, String)>,
}

/// The server. Clones share its objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Server(Arc<Mutex<Objects>>);

const SCALE: &str = "/apis/apps/v1/namespaces/edge/deployments/workers/scale";
const PODS: &str = "/api/v1/namespaces/edge/pods/";

impl Server {
    pub(super) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap()
    }

    /// A client that reaches the server without sockets, so that calls take no virtual time.
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "edge")
    }

    /// Serves the objects on a port of the system's choice, whose address is returned.
    pub(super) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        address
    }

    /// Number of requests so far with this method.
    pub(super) fn count(&self, method: &str) -> usize {
        self.objects().requests.iter().filter(|(asked, _, _)| asked == method).count()
    }

    async fn answer<B: hyper::body::Body<Error: std::fmt::Debug>>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let sort = head.headers.get("content-type").map(|sort| sort.to_str().unwrap().to_owned()).unwrap_or_default();
        let mood = {
            let mut objects = self.objects();
            objects.requests.push((head.method.to_string(), head.uri.path().to_owned(), sort));
            objects.mood
        };
        let (status, answer) = match mood {
            Mood::Hanging => std::future::pending().await,
            Mood::Forbidding => failure(403, "deployments.apps \"workers\" is forbidden"),
            Mood::Overloaded => failure(503, "not now"),
            Mood::ForbiddingPods if head.uri.path().starts_with(PODS) => failure(403, "pods \"w\" is forbidden"),
            Mood::Well | Mood::ForbiddingPods => self.objects().answer(head.method.as_str(), head.uri.path(), &body),
        };
        let body = Full::new(Bytes::from(answer.to_string()));
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    }
}

impl Objects {
    fn answer(&mut self, method: &str, path: &str, change: &Value) -> (u16, Value) {
        let change_of = |path: &str| change.pointer(path).cloned();
        match (method, path) {
            ("GET", SCALE) => (200, self.scale()),
            ("PATCH", SCALE) => {
                let read = change_of("/metadata/resourceVersion");
                if read.is_some_and(|read| read != self.version.to_string().as_str()) {
                    return failure(409, "the object has been modified");
                }
                self.replicas = change_of("/spec/replicas").unwrap().as_i64().unwrap().try_into().unwrap();
                self.version += 1;
                (200, self.scale())
            }
            ("PATCH", path) => {
                let pod = path.strip_prefix(PODS).and_then(|name| self.pods.get_mut(name));
                let Some(cost) = pod else { return failure(404, "pods not found") };
                let annotations = change_of("/metadata/annotations").unwrap();
                *cost = annotations[DELETION_COST].as_str().map(str::to_owned);
                let kind = "PartialObjectMetadata";
                (200, json!({"apiVersion": "meta.k8s.io/v1", "kind": kind, "metadata": {"annotations": annotations}}))
            }
            _ => failure(404, "not found"),
        }
    }

    fn scale(&self) -> Value {
        json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": "workers", "namespace": "edge", "resourceVersion": self.version.to_string()},
            "spec": {"replicas": self.replicas},
            "status": {"replicas": self.replicas, "selector": "app=workers"},
        })
    }
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    (code, json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message}))
}
