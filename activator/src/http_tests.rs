//! The HTTP routes, over real connections.

#![expect(clippy::disallowed_methods, reason = "tests of a shell: a server in a task")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use liveedgecast_common::clock;
use liveedgecast_common::control::ActivatorMessage;
use liveedgecast_common::control::{Session, SessionState, UpstreamReport};
use liveedgecast_common::http::{MAX_READERS, serve};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::listen::listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Args, Handoff, Settings};
use crate::dispatch::{Entry, Introduction, PlaceEvent, Rules};
use crate::lobby::{Lobby, MAX_UNREAD};

struct Server {
    address: SocketAddr,
    lobby: Lobby,
    phase: watch::Sender<Phase>,
    _stop: tokio_util::sync::DropGuard,
}

fn server(args: &[&str]) -> Server {
    let args = ["x", "--push-url", "rtmp://a/live/{key}", "--control-secret", "0123456789abcdef"].iter().chain(args);
    let settings = Settings::resolve(&Args::try_parse_from(args).unwrap(), [1; 32]).unwrap();
    let metrics = ActivatorMetrics::new().unwrap();
    let lobby = Lobby::new(Rules { workers_stay: false }, None, metrics.lobby.clone());
    let (phase, phases) = watch::channel(Phase::Serving);
    let shown = HttpContext {
        views: lobby.views.clone(),
        cluster: Cluster::alone(lobby.peers.clone(), settings.fleet),
        target: settings.capacity,
        admission: Arc::new(Admission::new(&settings)),
        is_local: settings.listen.rtmp.ip().is_loopback(),
        secret: settings.secret.clone(),
        metrics,
        phase: phases,
    };
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routes(shown), stop.clone()));
    Server { address, lobby, phase, _stop: stop.drop_guard() }
}

async fn ask(server: &Server, method: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn entry(id: &str) -> Entry {
    Entry {
        stream_id: StreamId(id.to_owned()),
        identities: vec![],
        app: AppName::parse("live").unwrap(),
        client: "10.0.0.1:1".parse().unwrap(),
        deadline: clock::now() + Duration::from_secs(60),
        hold: Duration::from_secs(600),
        handoff: Handoff::Auto,
        movable: true,
    }
}

#[tokio::test]
async fn what_is_shown_has_its_fixed_shape() {
    let server = server(&[]);
    let _place = server.lobby.places.enter(entry("aa"));
    let rows = [
        ("/healthz", "ok\n"),
        ("/api/v1/demand", "{\"waiting\":1,\"live\":0,\"demand\":1}\n"),
        (
            "/api/v1/streams",
            "[{\"id\":\"aa\",\"app\":\"live\",\"state\":\"waiting\",\"worker\":null,\"handoff\":null,\"upstreams\":[]}]\n",
        ),
        ("/api/v1/workers", "[]\n"),
        ("/api/v1/scale", "{\"active\":true,\"workers\":1,\"target\":50.0,\"value\":50.0}\n"),
        ("/api/v1/scale?target=2&app=other", "{\"active\":false,\"workers\":0,\"target\":2.0,\"value\":0.0}\n"),
    ];
    for (path, body) in rows {
        let answer = ask(&server, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("\r\n\r\n{body}")), "{path}: {answer}");
    }
    let metrics = ask(&server, "GET", "/metrics").await;
    assert!(metrics.contains("\nliveedgecast_waiting_streams 1\n"), "{metrics}");
}

#[tokio::test]
async fn what_is_not_known_yet_is_not_called_nothing() {
    let server = server(&["--fleet", "external"]);
    for path in ["/api/v1/demand", "/api/v1/scale"] {
        let answer = ask(&server, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
    }
    let _place = server.lobby.places.enter(entry("aa"));
    assert!(ask(&server, "GET", "/api/v1/demand").await.starts_with("HTTP/1.1 200"));
    let answer = ask(&server, "GET", "/api/v1/scale?target=none").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("target"), "{answer}");
}

#[tokio::test]
async fn readiness_says_when_anyone_may_publish_and_when_we_go() {
    for (args, warns) in
        [(&[][..], true), (&["--rtmp-listen", "127.0.0.1:1935"][..], false), (&["--publish-keys", "alpha"][..], false)]
    {
        let server = server(args);
        let answer = ask(&server, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(OPEN) == warns, "{args:?}: {answer}");
        server.phase.send_replace(Phase::Unready);
        let answer = ask(&server, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("unready"), "{answer}");
    }
}

/// A path, with a header, by the way of which `ask` does not know.
fn with_header(path: &str, header: &str) -> String {
    format!("{path} HTTP/1.1\r\n{header}\r\nX-Rest:")
}

#[tokio::test]
async fn a_kick_ends_a_stream_by_either_way() {
    let server = server(&[]);
    for (method, path) in [("DELETE", "/api/v1/streams/aa"), ("POST", "/api/v1/streams/aa/kick")] {
        let mut place = server.lobby.places.enter(entry("aa"));
        let path = with_header(path, "Authorization: Bearer 0123456789abcdef");
        assert!(ask(&server, method, &path).await.starts_with("HTTP/1.1 200"));
        assert_eq!(place.event().await, PlaceEvent::Kicked("kicked over HTTP".into()));
        drop(place);
        assert!(ask(&server, method, &path).await.starts_with("HTTP/1.1 404"));
    }
    // An escape that is not UTF-8 names no stream, and says so to the holder of the secret alone.
    for (method, path) in [("DELETE", "/api/v1/streams/%FF"), ("POST", "/api/v1/streams/%FF/kick")] {
        let refused = ask(&server, method, path).await;
        let missing = ask(&server, method, &with_header(path, "Authorization: Bearer 0123456789abcdef")).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("no-store"), "{path}: {refused}");
        assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("no such stream"), "{path}: {missing}");
    }
}

#[tokio::test]
async fn a_kick_without_the_secret_is_refused_whatever_proxy_or_page_it_came_through() {
    let server = server(&[]);
    let _place = server.lobby.places.enter(entry("aa"));
    let path = "/api/v1/streams/aa/kick";
    // The last two: curl on this machine, and nginx with `proxy_pass http://127.0.0.1:8080` and nothing else, look the same.
    for header in [
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "Origin: http://evil.example",
        "X-Host: 127.0.0.1:8080",
        "Connection: close",
    ] {
        let answer = ask(&server, "POST", &with_header(path, header)).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("CONTROL_SECRET"), "{header}: {answer}");
    }
}

#[tokio::test]
async fn a_kick_needs_the_secret_wherever_it_comes_from() {
    let place = |peer: &str, bearer: Option<&str>| Request {
        path: String::new(),
        query: String::new(),
        captures: vec!["aa".into()],
        body: bytes::Bytes::new(),
        peer: peer.parse().unwrap(),
        bearer: bearer.map(Secret::new),
    };
    let (phase, phases) = watch::channel(Phase::Serving);
    let args = Args::try_parse_from(["x", "--push-url", "rtmp://a/live/{key}"]).unwrap();
    let settings = Settings::resolve(&args, [1; 32]).unwrap();
    let metrics = ActivatorMetrics::new().unwrap();
    let lobby = Lobby::new(Rules { workers_stay: false }, None, metrics.lobby.clone());
    let shown = HttpContext {
        cluster: Cluster::alone(lobby.peers.clone(), settings.fleet),
        target: settings.capacity,
        views: lobby.views.clone(),
        admission: Arc::new(Admission::new(&settings)),
        is_local: false,
        secret: Secret::new("right"),
        metrics,
        phase: phases,
    };
    let _place = lobby.places.enter(entry("aa"));
    for (peer, bearer, status) in [
        ("10.0.0.1", None, 403),
        ("10.0.0.1", Some("wrong"), 403),
        ("10.0.0.1", Some("right"), 200),
        ("127.0.0.1", None, 403),
        ("::1", Some("wrong"), 403),
        ("::1", Some("right"), 200),
    ] {
        assert_eq!(kick(&shown, &place(peer, bearer)).status.as_u16(), status, "{peer} {bearer:?}");
    }
    drop(phase);
}

/// Streams whose list is longer than two answers.
const MANY: usize = 10_000;

/// Has a worker join that serves so many streams, for as long as its inbox is kept.
fn join_with(server: &Server, streams: usize) -> tokio::sync::mpsc::Receiver<ActivatorMessage> {
    let upstream = UpstreamReport { host: "h".repeat(100), error: "e".repeat(100), ..UpstreamReport::default() };
    let session = |number: usize| Session {
        stream_id: format!("s{number}"),
        state: SessionState::Live,
        upstreams: vec![upstream.clone(); 3],
        ..Session::default()
    };
    let introduction = Introduction {
        name: "w".into(),
        capacity: u32::try_from(streams).unwrap(),
        availability: liveedgecast_common::control::Availability::Open,
        same_host: true,
        http: None,
        sessions: (0..streams).map(session).collect(),
    };
    let (outbox, inbox) = tokio::sync::mpsc::channel(MAX_UNREAD);
    server.lobby.workers.join(introduction, outbox).unwrap();
    inbox
}

#[tokio::test]
async fn a_long_list_of_streams_comes_in_bounded_parts() {
    let server = server(&[]);
    let _inbox = join_with(&server, MANY);
    let (mut next, mut parts, mut ids) = (Some("/api/v1/streams".to_owned()), 0, std::collections::BTreeSet::new());
    while let Some(path) = next {
        let answer = ask(&server, "GET", &path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body.len() <= MAX_LIST + 2, "{head}");
        let part: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
        ids.extend(part.iter().map(|stream| stream["id"].as_str().unwrap().to_owned()));
        parts += 1;
        let link = head.lines().find_map(|line| line.strip_prefix("link: <"));
        next = link.map(|link| link.strip_suffix(">; rel=\"next\"").unwrap().to_owned());
    }
    assert_eq!((parts, ids.len()), (3, MANY));
    assert!(ask(&server, "GET", "/api/v1/streams?from=x").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn slow_readers_of_lists_deny_nobody_a_list() {
    let server = server(&[]);
    let _inbox = join_with(&server, MANY);
    let request = b"GET /api/v1/streams HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..=MAX_READERS {
        let socket = TcpSocket::new_v4().unwrap();
        // So that a list does not fit into the sockets' buffers.
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut socket = socket.connect(server.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        slow.push(socket);
    }
    let answer = ask(&server, "GET", "/api/v1/streams").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("]\n"), "{} bytes", answer.len());
}
