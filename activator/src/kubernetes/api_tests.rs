//! Calls to a server on a port.

use std::net::SocketAddr;

use super::super::testing::{Mood, Server};
use super::*;

fn api(address: SocketAddr) -> Api {
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    // Without TLS no authority is needed, but with `None` the client would insist on reading the system's certificates.
    (config.default_namespace, config.root_cert) = ("edge".into(), Some(vec![]));
    Api::configured("workers", config)
}

#[tokio::test]
async fn scale_is_changed_unless_another_client_changed_it_first() {
    let server = Server::default();
    server.objects().replicas = 2;
    let api = api(server.serve().await);
    let scale = api.scale().await.unwrap();
    assert_eq!((scale.wanted, scale.there), (2, 2));
    assert_eq!(api.change_scale(&scale, 3).await, Ok(()));
    assert_eq!(server.objects().replicas, 3);
    let error = api.change_scale(&scale, 4).await.unwrap_err();
    assert_eq!((error.as_str(), server.objects().replicas), ("changed", 3));
    let patch = server.objects().requests[1].clone();
    assert_eq!(patch.2, "application/merge-patch+json");
}

#[tokio::test]
async fn deletion_cost_is_annotated_when_the_pod_exists() {
    let server = Server::default();
    server.objects().pods.insert("w-1".into(), None);
    let api = api(server.serve().await);
    assert_eq!(api.set_cost("w-1", -100).await, Ok(()));
    assert_eq!(server.objects().pods["w-1"].as_deref(), Some("-100"));
    assert_eq!(api.set_cost("w-2", 1).await.unwrap_err().as_str(), "missing");
}

#[tokio::test]
async fn failed_call_names_its_cause_and_is_not_repeated() {
    let server = Server::default();
    let api = api(server.serve().await);
    server.objects().mood = Mood::Forbidding;
    let error = api.scale().await.unwrap_err();
    assert_eq!(error.as_str(), "forbidden");
    assert!(error.to_string().contains("role.yaml"), "{error}");
    server.objects().mood = Mood::Overloaded;
    assert_eq!(api.scale().await.unwrap_err(), ApiError::Refused(503, "not now".into()));
    assert_eq!(server.count("GET"), 2, "nothing is asked again behind our back");
    server.objects().mood = Mood::Well;
    assert!(api.scale().await.is_ok());
}

#[tokio::test]
async fn call_fails_when_no_process_listens() {
    let address = TcpListenerThatGoes::address().await;
    assert_eq!(api(address).scale().await.unwrap_err().as_str(), "unreachable");
}

struct TcpListenerThatGoes;

impl TcpListenerThatGoes {
    /// An address where no process listens.
    async fn address() -> SocketAddr {
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn call_fails_after_its_deadline_when_the_server_hangs() {
    let server = Server::default();
    server.objects().mood = Mood::Hanging;
    let api = Api::with_client("workers", server.client());
    let start = tokio::time::Instant::now();
    assert_eq!(api.scale().await, Err(ApiError::Late));
    assert_eq!(start.elapsed(), CALL_TIMEOUT);
    assert!(api.client.lock().unwrap().is_none(), "the next call takes another connection");
}

#[tokio::test]
async fn call_fails_outside_a_pod() {
    // Tests may run in a pod too, where the call would use that pod's service account.
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        let error = Api::in_pod("workers").scale().await.unwrap_err();
        assert_eq!(error.as_str(), "outside");
        assert!(error.to_string().contains("token"), "{error}");
    }
}

#[test]
fn every_error_has_its_label_in_the_metric() {
    let text = String::new;
    let all = [
        ApiError::Outside(text()),
        ApiError::Forbidden(text()),
        ApiError::Missing(text()),
        ApiError::Changed(text()),
        ApiError::Refused(500, text()),
        ApiError::Unreachable(text()),
        ApiError::Late,
    ];
    assert_eq!(all.map(|error| error.as_str()), ApiError::WORDS);
}
