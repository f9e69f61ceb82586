//! The HTTP routes, over real connections.

#![expect(clippy::disallowed_methods, reason = "tests of a shell: a server in a task")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use liveedgecast_common::clock;
use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::control::ActivatorMessage;
use liveedgecast_common::control::{Session, SessionState, UpstreamReport};
use liveedgecast_common::http::{MAX_READERS, serve};
use liveedgecast_common::key::{AppName, Secret, StreamId, StreamKey};
use liveedgecast_common::listen::listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::streams::MAX_LIST;
use super::*;
use crate::admission::AdmissionMetrics;
use crate::config::{Args, Handoff, Settings};
use crate::destinations::{DestinationView, RouteOrigin, StreamDestinations, StreamNames};
use crate::dispatch::{
    AudioView, Entry, Introduction, PlaceEvent, Rules, StreamView, UpstreamView, VideoView, WorkerState, WorkerView,
};
use crate::lobby::{Lobby, MAX_UNREAD};
use crate::peers::ForwardedRequest;
use crate::scaler::KedaAnswer;

const SECRET: &str = "0123456789abcdef";
const ADMIN: &str = "the-token-of-operators";
const VIEW: &str = "the-token-of-readers";

struct Server {
    address: SocketAddr,
    lobby: Lobby,
    phase: watch::Sender<Phase>,
    _stop: tokio_util::sync::DropGuard,
}

/// The sources of answers; without the lobby and the phase they are those of an activator that has ended.
fn context(args: &[&str]) -> (HttpContext, Lobby, watch::Sender<Phase>) {
    let args = ["x", "--open", "--push-url", "rtmp://a/live/{key}", "--control-secret", SECRET].iter().chain(args);
    let settings = Settings::resolve(&Args::try_parse_from(args).unwrap(), [1; 32]).unwrap();
    let metrics = ActivatorMetrics::new().unwrap();
    let events = Events::default();
    let lobby = Lobby::new(Rules::default(), None, metrics.lobby.clone(), events.clone());
    let (phase, phases) = watch::channel(Phase::Serving);
    let cluster = Cluster::alone(lobby.peers.clone(), settings.fleet);
    let shown = HttpContext {
        name: "here".to_owned(),
        views: lobby.views.clone(),
        changes: StreamChanges { views: lobby.views.clone(), streams: lobby.streams.clone() },
        courier: Courier::new(cluster.clone(), settings.protection.clone(), CurrentTokens::new(&settings)),
        cluster,
        target: settings.capacity,
        admission: Arc::new(Admission::new(&settings, events.clone(), AdmissionMetrics::unregistered())),
        is_local: settings.listen.is_local(),
        tokens: CurrentTokens::new(&settings),
        events,
        metrics,
        protection: settings.protection.clone(),
        rtmps: None,
        scaler: None,
        phase: phases,
        started: clock::now(),
    };
    (shown, lobby, phase)
}

fn server(args: &[&str]) -> Server {
    let (shown, lobby, phase) = context(args);
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routes(shown), stop.clone()));
    Server { address, lobby, phase, _stop: stop.drop_guard() }
}

async fn ask(server: &Server, method: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The answer to a request with a token and a body.
async fn call(server: &Server, method: &str, path: &str, token: &str, body: &str) -> (u16, serde_json::Value) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    );
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, body) = (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap());
    let is_problem = head.contains("content-type: application/problem+json");
    assert_eq!(is_problem, status >= 400, "{head}");
    assert_eq!(head.contains("www-authenticate: Bearer"), status == 401, "{head}");
    (status, body)
}

fn entry(id: &str) -> Entry {
    Entry {
        stream_id: StreamId(id.to_owned()),
        identities: vec![],
        app: AppName::parse("live").unwrap(),
        publisher: Some("studio".into()),
        shown_key: None,
        connected: None,
        client: "10.0.0.1:1".parse().unwrap(),
        deadline: clock::now() + Duration::from_secs(60),
        hold: Duration::from_secs(600),
        handoff: Handoff::Auto,
        movable: true,
        destinations: StreamDestinations::default(),
    }
}

#[tokio::test]
async fn what_is_shown_has_its_fixed_shape() {
    let server = server(&[]);
    let _place = server.lobby.places.enter(entry("aa"));
    let rows = [
        ("/healthz", "ok\n"),
        ("/api/v1/workers", "[]\n"),
        ("/api/v1/scale", "{\"active\":true,\"workers\":1,\"target\":50.0,\"value\":50.0}\n"),
        ("/api/v1/scale?target=2&app=other", "{\"active\":false,\"workers\":0,\"target\":2.0,\"value\":0.0}\n"),
    ];
    for (path, body) in rows {
        let answer = ask(&server, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("\r\n\r\n{body}")), "{path}: {answer}");
    }
    let answer = ask(&server, "GET", "/api/v1/demand").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut demand: serde_json::Value = serde_json::from_str(body).unwrap();
    let saved = demand["worker_seconds"].take();
    assert!(saved["used"] == 0.0 && saved["avoided"].as_f64() >= Some(0.0), "{saved}");
    assert_eq!(demand.to_string(), "{\"demand\":1,\"live\":0,\"waiting\":1,\"worker_seconds\":null}");
    let answer = ask(&server, "GET", "/api/v1/streams").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut streams: serde_json::Value = serde_json::from_str(body).unwrap();
    let since = streams[0]["since"].take();
    assert!(since.as_str().is_some_and(|since| since.len() == 24 && since.ends_with('Z')), "{since}");
    assert_eq!(
        streams.to_string(),
        "[{\"app\":\"live\",\"audio\":null,\"bitrate\":0,\"bytes\":0,\"handoff\":null,\"id\":\"aa\",\"peer\":\"10.0.0.1:1\",\"publisher\":\"studio\",\"since\":null,\
         \"state\":\"waiting\",\"upstreams\":[],\"video\":null,\"worker\":null}]"
    );
    let metrics = ask(&server, "GET", "/metrics").await;
    assert!(metrics.contains("\nliveedgecast_streams{state=\"waiting\"} 1\n"), "{metrics}");
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

#[tokio::test]
async fn readiness_names_a_file_with_mistakes_and_the_mistakes_to_those_who_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "alpha").unwrap();
    let named = ["--publish-keys-file", keys.to_str().unwrap()];
    for (more, detailed) in [(&[][..], true), (&["--view-token", VIEW][..], false)] {
        std::fs::write(&keys, "alpha").unwrap();
        let args: Vec<&str> = named.iter().chain(more).copied().collect();
        let (shown, _lobby, _phase) = context(&args);
        let admission = Arc::clone(&shown.admission);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        tokio::spawn(serve(listener, routes(shown), stop));
        let ready = async || {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(!ready().await.contains("WARNING"));
        std::fs::remove_file(&keys).unwrap();
        admission.files().look().await;
        let answer = ready().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("file of PUBLISH_KEYS_FILE"), "{answer}");
        assert_eq!(answer.contains("No such file"), detailed, "{answer}");
        std::fs::write(&keys, "beta").unwrap();
        admission.files().look().await;
        assert!(ready().await.ends_with("ready\n"));
    }
}

#[tokio::test]
async fn a_kick_ends_a_stream_by_either_way() {
    let server = server(&["--admin-token", ADMIN]);
    for (method, path) in [("DELETE", "/api/v1/streams/aa"), ("POST", "/api/v1/streams/aa/kick")] {
        for (body, reason) in
            [("", "kicked over HTTP"), ("{}", "kicked over HTTP"), (r#"{"reason":"too late"}"#, "too late")]
        {
            let mut place = server.lobby.places.enter(entry("aa"));
            let (status, told) = call(&server, method, path, ADMIN, body).await;
            assert_eq!((status, &told["id"], &told["reason"]), (200, &"aa".into(), &reason.into()), "{told}");
            assert_eq!(place.event().await, PlaceEvent::Kicked(reason.into()));
            drop(place);
            let (status, told) = call(&server, method, path, ADMIN, body).await;
            assert_eq!((status, &told["type"]), (404, &"urn:liveedgecast:problem:stream-unknown".into()), "{told}");
        }
        let _place = server.lobby.places.enter(entry("aa"));
        for body in ["too late", r#"{"why":"too late"}"#, r#"{"reason":7}"#, "[]"] {
            let (status, told) = call(&server, method, path, ADMIN, body).await;
            assert_eq!((status, &told["type"]), (400, &"urn:liveedgecast:problem:malformed".into()), "{body}: {told}");
        }
    }
    // An escape that is not UTF-8 names no stream, and says so to the holder of the token alone.
    for (method, path) in [("DELETE", "/api/v1/streams/%FF"), ("POST", "/api/v1/streams/%FF/kick")] {
        assert_eq!(call(&server, method, path, "another-token-of-16", "").await.0, 401);
        assert_eq!(call(&server, method, path, ADMIN, "").await.0, 404);
    }
}

#[tokio::test]
async fn control_secret_opens_nothing() {
    for (args, read, change) in [
        (&[][..], 403, 403),
        (&["--admin-token", ADMIN], 401, 401),
        (&["--view-token", VIEW], 401, 401),
        (&["--admin-token", ADMIN, "--view-token", VIEW], 401, 401),
    ] {
        let server = server(args);
        let _place = server.lobby.places.enter(entry("aa"));
        assert_eq!(call(&server, "GET", "/api/v1/streams", SECRET, "").await.0, read, "{args:?}");
        assert_eq!(call(&server, "GET", "/api/v1/workers", SECRET, "").await.0, read, "{args:?}");
        assert_eq!(call(&server, "DELETE", "/api/v1/streams/aa", SECRET, "").await.0, change, "{args:?}");
        assert_eq!(call(&server, "POST", "/api/v1/streams/aa/kick", SECRET, "").await.0, change, "{args:?}");
    }
}

#[tokio::test]
async fn request_of_another_activator_changes_nothing_where_changes_are_closed() {
    let (shown, lobby, _phase) = context(&[]);
    let _place = lobby.places.enter(entry("aa"));
    let request = |action: &str| ForwardedRequest {
        action: action.to_owned(),
        stream_id: "aa".to_owned(),
        destination: String::new(),
        body: String::new(),
        client: "10.0.0.7".parse().unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let optional = ["--token-files-optional", "--admin-token-file", file.to_str().unwrap()];
    let handler = handler(shown.changes.clone(), context(&optional).0.tokens);
    let answers = |word: &str| (handler.0)(&request(word)).status;
    assert_eq!((answers("kick"), answers("list")), (403, 200));
    // The handler follows a token that appears later.
    std::fs::write(&file, ADMIN).unwrap();
    assert_eq!((answers("list"), answers("kick")), (200, 200));
}

#[tokio::test]
async fn token_for_reading_changes_nothing() {
    let server = server(&["--admin-token", ADMIN, "--view-token", VIEW]);
    let _place = server.lobby.places.enter(entry("aa"));
    for path in ["/api/v1/streams", "/api/v1/workers"] {
        assert_eq!(call(&server, "GET", path, VIEW, "").await.0, 200);
        assert_eq!(call(&server, "GET", path, ADMIN, "").await.0, 200);
        assert!(ask(&server, "GET", path).await.starts_with("HTTP/1.1 401"), "{path}");
    }
    let (status, told) = call(&server, "DELETE", "/api/v1/streams/aa", VIEW, "").await;
    assert_eq!((status, &told["type"]), (403, &"urn:liveedgecast:problem:token-reads-only".into()), "{told}");
    for path in ["/metrics", "/healthz", "/readyz", "/api/v1/demand", "/api/v1/scale"] {
        assert!(ask(&server, "GET", path).await.starts_with("HTTP/1.1 200"), "{path} needs no token");
    }
}

#[tokio::test]
async fn a_worker_is_told_to_give_its_streams_away_and_to_take_some_again() {
    let server = server(&["--admin-token", ADMIN, "--view-token", VIEW]);
    let mut inbox = join_with(&server, 1);
    for (order, on) in [("drain", true), ("undrain", false)] {
        let path = format!("/api/v1/workers/w/{order}");
        assert_eq!(call(&server, "POST", &path, VIEW, "").await.0, 403);
        let (status, told) = call(&server, "POST", &path, ADMIN, "").await;
        assert_eq!((status, &told["name"], &told["drain"]), (200, &"w".into(), &on.into()), "{told}");
        assert_eq!(inbox.recv().await, Some(ActivatorMessage::Drain(on)));
        let (status, told) = call(&server, "POST", &format!("/api/v1/workers/x/{order}"), ADMIN, "").await;
        assert_eq!((status, &told["type"]), (404, &"urn:liveedgecast:problem:worker-unknown".into()), "{told}");
    }
}

#[tokio::test]
async fn patch_that_cannot_be_made_as_a_whole_changes_nothing() {
    let server = server(&["--admin-token", ADMIN]);
    let (app, key) = (AppName::parse("live").unwrap(), StreamKey::parse("s3cret").unwrap());
    let names = StreamNames { app, key, publisher: "studio".into(), secret: Secret::new(SECRET) };
    let destinations = StreamDestinations::new(names, RouteOrigin::Fixed, Vec::new());
    let _place = server.lobby.places.enter(Entry { destinations, ..entry("aa") });
    let all = "/api/v1/streams/aa/destinations";
    for added in [
        r#"{"name":"one","url":"rtmp://one.example/live/{key}"}"#,
        r#"{"name":"two","url":"rtmp://two.example/live/{key}","enabled":false}"#,
    ] {
        assert_eq!(call(&server, "POST", all, ADMIN, added).await.0, 201);
    }
    let before = call(&server, "GET", all, ADMIN, "").await;
    let patch = r#"{"url":"rtmp://one.example/live/{key}","enabled":true}"#;
    assert_eq!(call(&server, "PATCH", &format!("{all}/two"), ADMIN, patch).await.0, 409);
    assert_eq!(call(&server, "GET", all, ADMIN, "").await, before);
}

#[tokio::test]
async fn destinations_of_a_held_stream_are_added_changed_and_removed() {
    let server = server(&["--admin-token", ADMIN, "--view-token", VIEW]);
    let (app, key) = (AppName::parse("live").unwrap(), StreamKey::parse("s3cret").unwrap());
    let names = StreamNames { app, key, publisher: "studio".into(), secret: Secret::new(SECRET) };
    let destinations = StreamDestinations::new(names, RouteOrigin::Fixed, Vec::new());
    let _place = server.lobby.places.enter(Entry { destinations, ..entry("aa") });
    let all = "/api/v1/streams/aa/destinations";
    let one = format!("{all}/tube");
    let restart = format!("{one}/restart");
    let added = r#"{"name":"tube","url":"rtmp://tube.example/live/{publisher}-{key}"}"#;
    // Method, path, body; the status, and the revision or the type of the problem.
    let table: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", all, added, 201, "1"),
        ("POST", all, added, 409, "destination-conflict"),
        ("POST", all, "{}", 400, "malformed"),
        ("POST", all, r#"{"name":"a","url":7}"#, 400, "malformed"),
        ("POST", all, r#"{"name":"a","url":["rtmp://h/s3cret"]}"#, 400, "malformed"),
        ("POST", all, r#"{"name":"a","url":"rtmp://h/s3cret"}"#, 422, "destination-unfit"),
        ("POST", all, r#"{"name":"","url":"rtmp://h/a/b"}"#, 422, "destination-unfit"),
        ("POST", "/api/v1/streams/bb/destinations", added, 404, "stream-unknown"),
        ("PATCH", &one, r#"{"enabled":false}"#, 200, "2"),
        ("PATCH", &one, r#"{"enabled":true,"url":"rtmp://tube2.example/live/{key}"}"#, 200, "3"),
        ("PATCH", &one, "{}", 400, "malformed"),
        ("PATCH", "/api/v1/streams/aa/destinations/none", r#"{"enabled":false}"#, 404, "destination-unknown"),
        ("POST", &restart, "", 200, "4"),
        ("DELETE", &one, "", 200, "5"),
        ("DELETE", &one, "", 404, "destination-unknown"),
    ];
    for (method, path, body, status, told) in table {
        assert_eq!(call(&server, method, path, VIEW, body).await.0, 403, "{method} {path}");
        let (answered, answer) = call(&server, method, path, ADMIN, body).await;
        assert_eq!(answered, *status, "{method} {path} {body}: {answer}");
        match told.parse::<u64>() {
            Ok(revision) => {
                assert_eq!((&answer["destination"], &answer["revision"]), (&"tube".into(), &revision.into()))
            }
            Err(_) => assert_eq!(answer["type"], format!("urn:liveedgecast:problem:{told}"), "{body}"),
        }
        assert!(!answer.to_string().contains("s3cret"), "{answer}");
        if path.ends_with("restart") {
            let (_, listed) = call(&server, "GET", all, VIEW, "").await;
            let host = "tube2.example:1935";
            let shown = serde_json::json!([{"name":"tube","host":host,"enabled":true,"required":false,"by_api":true}]);
            assert_eq!(listed, shown);
        }
    }
}

#[tokio::test]
async fn errors_of_the_server_itself_have_the_form_of_problems() {
    let server = server(&["--admin-token", ADMIN]);
    for (method, path, status) in
        [("GET", "/api/v1/none", 404), ("GET", "/api/v1/streams/aa", 405), ("POST", "/healthz", 405)]
    {
        let (told, problem) = call(&server, method, path, ADMIN, "").await;
        assert_eq!((told, &problem["type"], &problem["status"]), (status, &"about:blank".into(), &status.into()));
    }
}

/// The description of the API.
fn openapi() -> serde_json::Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Names of the entries of a table, in their order.
fn names(table: &serde_json::Value) -> Vec<&str> {
    let mut names: Vec<&str> = table.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn description_of_the_api_has_every_route_and_no_other() {
    let (shown, _lobby, _phase) = context(&[]);
    let method = |filter: &MethodFilter| {
        let known = [
            ("get", MethodFilter::GET),
            ("post", MethodFilter::POST),
            ("patch", MethodFilter::PATCH),
            ("delete", MethodFilter::DELETE),
        ];
        known.into_iter().find(|(_, other)| other == filter).unwrap().0
    };
    let mut served: Vec<String> =
        routes(shown).listed().iter().map(|(filter, path)| format!("{} {path}", method(filter))).collect();
    served.sort();
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    let mut described: Vec<String> = paths
        .iter()
        .flat_map(|(path, methods)| names(methods).into_iter().map(move |it| format!("{it} {path}")))
        .collect();
    described.sort();
    assert_eq!(served, described);
    let types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
    let mut types: Vec<&str> = types.iter().map(|it| it.as_str().unwrap()).collect();
    types.sort_unstable();
    let problems = ApiProblem::all();
    let mut known: Vec<String> =
        problems.iter().map(|it| format!("urn:liveedgecast:problem:{}", it.as_str())).collect();
    known.push("about:blank".into());
    known.sort();
    assert_eq!(types, known);
    let guide = include_str!("../../deploy/docs/api.md");
    for problem in problems {
        assert!(guide.contains(&format!("\n| `{}` | ", problem.as_str())), "api.md has no {}", problem.as_str());
    }
    let server = server(&["--admin-token", ADMIN]);
    assert!(ask(&server, "GET", "/api/v1/openapi.json").await.ends_with(OPENAPI));
}

#[test]
fn description_of_the_api_has_every_field_of_its_answers() {
    let document = openapi();
    let schema = |name: &str| document["components"]["schemas"][name]["properties"].clone();
    let stream = serde_json::to_value(StreamView::default()).unwrap();
    assert_eq!(names(&stream), names(&schema("Stream")));
    let upstream = serde_json::to_value(UpstreamView::default()).unwrap();
    assert_eq!(names(&upstream), names(&schema("Upstream")));
    let video = VideoView {
        codec: Some("h264".into()),
        width: Some(1),
        height: Some(1),
        frame_rate: Some(1.0),
        keyframe_interval: Some(1.0),
        bitrate: 1,
        profile: [100, 0, 31],
    };
    assert_eq!(names(&serde_json::to_value(video).unwrap()), names(&schema("Video")));
    let audio =
        AudioView { codec: "aac".into(), bitrate: 1, channels: Some(2), sample_rate: Some(48_000), object_type: 2 };
    assert_eq!(names(&serde_json::to_value(audio).unwrap()), names(&schema("Audio")));
    let destination =
        DestinationView { name: "tube".into(), host: "h:1935".into(), enabled: true, required: false, by_api: true };
    assert_eq!(names(&serde_json::to_value(destination).unwrap()), names(&schema("Destination")));
    let worker = WorkerView { name: "w".into(), state: WorkerState::Ready, streams: 0, capacity: 1 };
    assert_eq!(names(&serde_json::to_value(worker).unwrap()), names(&schema("Worker")));
    let keda = Some(KedaAnswer { asked: UtcTime(0), value: 1.0 });
    let peers = vec![activators::PeerView { name: "there".into(), state: "synced" }];
    let all = serde_json::to_value(activators::ActivatorsView { name: "here".into(), peers, keda }).unwrap();
    assert_eq!(names(&all), names(&schema("Activators")));
    assert_eq!(names(&all["peers"][0]), names(&schema("Peer")));
    assert_eq!(names(&all["keda"]), names(&schema("KedaAnswer")));
    let states: Vec<&str> = WorkerState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(schema("Worker")["state"]["enum"], serde_json::json!(states));
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
        sessions: (0..streams).map(session).collect(),
        takes_lists: true,
        key: None,
        age: None,
        excerpts: true,
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
    assert_eq!((parts, ids.len()), (4, MANY));
    assert!(ask(&server, "GET", "/api/v1/streams?from=x").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn slow_readers_of_lists_deny_nobody_a_list() {
    let server = server(&[]);
    let _inbox = join_with(&server, MANY);
    let request = b"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n";
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

#[tokio::test]
async fn statistics_wait_for_other_activators_in_the_beginning_alone() {
    let (mut shown, _lobby, _phase) = context(&["--fleet", "external", "--rtmp-listen", "127.0.0.1:1935"]);
    assert!(shown.cluster.need(None).is_err(), "workers may dial in yet");
    let request = Request {
        path: "/stat".to_owned(),
        query: String::new(),
        captures: Vec::new(),
        body: bytes::Bytes::new(),
        peer: [127, 0, 0, 1].into(),
        bearer: None,
        password: None,
        headers: liveedgecast_common::http::HeaderMap::new(),
    };
    assert!(timeout(Duration::ZERO, nginx::stat(&shown, &request)).await.is_err(), "it waits");
    shown.started = clock::now().checked_sub(Duration::from_secs(11)).expect("a machine that runs for so long");
    let answer = timeout(Duration::ZERO, nginx::stat(&shown, &request)).await.expect("it answers at once");
    assert_eq!(answer.status, 200);
}
