//! The pods of workers, watched while publishers wait for one. In: the demand, watch events of the API. Out: news for the phases of cold starts
//! ([`crate::dispatch`]); nothing is decided by them, and no stream waits for them.
//!
//! Times of the API are whole seconds by another clock, so the moment at which an event arrives counts. The watch is opened when a publisher waits
//! without room and closed when none does: an idle activator watches nothing. What has happened before the watch began is not known.
#![expect(clippy::disallowed_methods, reason = "shell: pauses")]

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use liveedgecast_common::event;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tracing::debug;

use super::api::Api;
use super::error::ApiError;
use super::metrics::{ApiCall, KubernetesMetrics};
use crate::dispatch::PodNews;
use crate::peers::Cluster;

/// Time between two looks at the demand, so that many changes at once are handled as one.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after a watch that failed or ended.
const RETRY: Duration = Duration::from_secs(5);
/// Seconds after which the API server ends a watch by itself; it takes no more than 294.
const WATCH_SECONDS: u32 = 290;

/// Watches while streams wait, until dropped. A watch that fails has no consequence but phases that are not known: it neither counts for the health of
/// this activator nor keeps it from acting.
pub async fn watch_pods(api: Api, cluster: Cluster, metrics: KubernetesMetrics) {
    let mut changes = cluster.changes();
    let waits = |cluster: &Cluster| cluster.known(None).unplaced > 0;
    loop {
        if !until(&mut changes, || waits(&cluster)).await {
            return;
        }
        let watched = async {
            metrics.called(ApiCall::Watch);
            if let Err(error) = watch_once(&api, &cluster).await {
                metrics.failed(&error);
                debug!(event = event::KUBERNETES_FAILED, %error, "pods of workers not watched: the phases of cold starts have no pods");
            }
            sleep(RETRY).await;
        };
        tokio::select! {
            () = watched => {}
            goes_on = until(&mut changes, || !waits(&cluster)) => if !goes_on { return },
        }
    }
}

/// Returns when this holds, looked at after changes; false if there will be none.
async fn until(changes: &mut watch::Receiver<u64>, holds: impl Fn() -> bool) -> bool {
    while !holds() {
        if changes.changed().await.is_err() {
            return false;
        }
        if holds() {
            return true;
        }
        sleep(PAUSE).await;
    }
    true
}

/// Passes on events until one of both watches ends.
async fn watch_once(api: &Api, cluster: &Cluster) -> Result<(), ApiError> {
    let client = api.client()?;
    let pods = kube::Api::<Pod>::default_namespaced(client.clone());
    let deployments = kube::Api::<Deployment>::default_namespaced(client);
    // An event of what was there before would look like a new one: both watches begin behind the present.
    let (listed, scale) = tokio::try_join!(async { Ok(pods.list(&ListParams::default().limit(1)).await?) }, async {
        api.scale().await
    },)?;
    let from = listed.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    let named = params.clone().fields(&format!("metadata.name={}", api.deployment()));
    let pods = pods.watch(&params, &from).await?;
    let deployments = deployments.watch(&named, scale.version.as_deref().unwrap_or_default()).await?;
    tokio::pin!(pods, deployments);
    let mut wanted = scale.wanted;
    loop {
        let news = tokio::select! {
            Some(event) = pods.next() => pod_news(api.deployment(), event?),
            Some(event) = deployments.next() => scale_news(&mut wanted, event?),
            else => return Ok(()),
        };
        news.into_iter().for_each(|news| cluster.pod_seen(news));
    }
}

/// The news in an event of a pod. A pod of a Deployment has its name and a suffix.
fn pod_news(deployment: &str, event: WatchEvent<Pod>) -> Vec<PodNews> {
    let (pod, is_new) = match event {
        WatchEvent::Added(pod) => (pod, true),
        WatchEvent::Modified(pod) => (pod, false),
        WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return Vec::new(),
    };
    let name = pod.metadata.name.unwrap_or_default();
    if !name.strip_prefix(deployment).is_some_and(|rest| rest.starts_with('-')) {
        return Vec::new();
    }
    let placed = pod.spec.is_some_and(|spec| spec.node_name.is_some());
    let created = is_new.then(|| PodNews::Created(name.clone()));
    created.into_iter().chain(placed.then(|| PodNews::Scheduled(name.clone()))).collect()
}

/// The news in an event of the Deployment, which wanted so many pods before.
fn scale_news(wanted: &mut i32, event: WatchEvent<Deployment>) -> Vec<PodNews> {
    let (WatchEvent::Added(deployment) | WatchEvent::Modified(deployment)) = event else { return Vec::new() };
    let now = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    let more = now > std::mem::replace(wanted, now);
    more.then_some(PodNews::Scaled).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::key::{AppName, StreamId};
    use prometheus::Registry;
    use serde_json::json;

    use super::super::testing::Server;
    use super::*;
    use crate::config::{Fleet, Handoff};
    use crate::destinations::StreamDestinations;
    use crate::dispatch::{Entry, Rules};
    use crate::events::Events;
    use crate::lobby::{Lobby, LobbyMetrics};

    fn event<T: serde::de::DeserializeOwned>(kind: &str, object: serde_json::Value) -> WatchEvent<T>
    where
        WatchEvent<T>: serde::de::DeserializeOwned,
    {
        serde_json::from_value(json!({ "type": kind, "object": object })).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_while_nobody_waits_and_little_while_the_api_cannot_say() {
        let server = Server::default();
        let lobby = Lobby::new(Rules::default(), None, LobbyMetrics::unregistered(), Events::default());
        let cluster = Cluster::alone(lobby.peers.clone(), Fleet::External);
        let api = Api::with_client("workers", server.client());
        let metrics = KubernetesMetrics::new(&Registry::new()).unwrap();
        let watching = tokio::spawn(watch_pods(api, cluster, metrics));
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(server.objects().requests, [], "idle");
        let place = lobby.places.enter(entry());
        sleep(Duration::from_secs(60)).await;
        // The server of this test has no list of pods.
        let asked = server.count("GET");
        assert!((1..30).contains(&asked), "{asked} requests in a minute");
        drop(place);
        sleep(Duration::from_secs(3600)).await;
        assert!(server.count("GET") <= asked + 2, "nobody waits any more");
        watching.abort();
    }

    fn entry() -> Entry {
        Entry {
            stream_id: StreamId("x".to_owned()),
            identities: vec![],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: liveedgecast_common::clock::now() + Duration::from_secs(600),
            hold: Duration::from_secs(600),
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        }
    }

    #[test]
    fn pods_of_the_deployment_are_news_when_they_are_created_and_when_they_have_a_node() {
        let pod = |name: &str, node: Option<&str>| json!({ "metadata": { "name": name }, "spec": { "containers": [], "nodeName": node } });
        let news = |kind, object| pod_news("workers", event(kind, object));
        let (created, scheduled) = (PodNews::Created("workers-5d-x".into()), PodNews::Scheduled("workers-5d-x".into()));
        assert_eq!(news("ADDED", pod("workers-5d-x", None)), std::slice::from_ref(&created));
        assert_eq!(news("MODIFIED", pod("workers-5d-x", None)), []);
        assert_eq!(news("MODIFIED", pod("workers-5d-x", Some("n"))), std::slice::from_ref(&scheduled));
        assert_eq!(news("ADDED", pod("workers-5d-x", Some("n"))), [created, scheduled]);
        assert_eq!(news("DELETED", pod("workers-5d-x", Some("n"))), []);
        for other in ["workersx-1", "activator-1", "workers"] {
            assert_eq!(news("ADDED", pod(other, Some("n"))), [], "{other}");
        }
    }

    #[test]
    fn deployment_is_news_when_it_is_scaled_up() {
        let deployment = |replicas: i32| json!({ "metadata": { "name": "workers" }, "spec": { "replicas": replicas, "selector": {}, "template": {} } });
        let mut wanted = 0;
        let mut news = |replicas| scale_news(&mut wanted, event("MODIFIED", deployment(replicas)));
        assert_eq!(news(0), []);
        assert_eq!(news(2), [PodNews::Scaled]);
        assert_eq!(news(2), []);
        assert_eq!(news(1), []);
        assert_eq!(news(2), [PodNews::Scaled]);
    }
}
