//! Servers that decide who may publish: nginx in nginx-rtmp's form, and one that speaks JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use liveedgecast_e2e::loopback;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, stays_true_for, until};
use serde_json::Value;

/// Status and body of an answer to a body.
type Decide = dyn Fn(&Value) -> (u16, String) + Send + Sync;

/// A server that answers questions in JSON, and keeps them.
struct JsonServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl JsonServer {
    fn start(decide: impl Fn(&Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(loopback::socket(8090)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (kept, decide): (_, Arc<Decide>) = (Arc::clone(&asked), Arc::new(decide));
        spawn(move || {
            for socket in listener.incoming().flatten() {
                let (kept, decide) = (Arc::clone(&kept), Arc::clone(&decide));
                spawn(move || while answer(&socket, &kept, &*decide).is_some() {});
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/rtmp", self.address)
    }

    /// The questions so far whose field `call` is this.
    fn calls(&self, call: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|body| body["call"] == call).cloned().collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a server of the scenario")]
fn spawn(run: impl FnOnce() + Send + 'static) {
    std::thread::spawn(run);
}

/// Answers one request; `None`: the client has ended.
fn answer(mut socket: &TcpStream, kept: &Mutex<Vec<Value>>, decide: &Decide) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let (mut length, mut authorized) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        authorized |= line == "authorization: bearer of-the-hook";
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    kept.lock().unwrap_or_else(PoisonError::into_inner).push(body.clone());
    let (status, text) = if authorized { decide(&body) } else { (401, String::new()) };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    socket.write_all(answer.as_bytes()).ok()
}

#[test]
fn nginx_decides_in_the_form_of_nginx_rtmp() {
    let (sink, nginx) = (Sink::start(), Nginx::upstream());
    let asking = |path: &str| {
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s");
        settings.with("LIVEEDGECAST_ON_PUBLISH_URL", &nginx.http_url(path)).start()
    };
    let refusing = asking("refused");
    let tap = Tap::before(refusing.rtmp());
    let mut refused = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("refused"))));
    assert!(!refused.wait(SOON).success(), "ffmpeg goes on although the hook refuses");
    let told = tap.only().server.statuses();
    assert_eq!(told[0].1, "NetStream.Publish.Denied");
    assert!(refusing.processes().is_empty(), "a refused publisher has woken something");
    assert!(refusing.metric("liveedgecast_publishers_refused_total", &["reason=\"hook\""]) >= Some(1.0));
    drop(refusing);

    let accepting = asking("accepted");
    let accepted = ffmpeg(Media::Both, &accepting.url(&format!("live/{}?token=1", key("accepted"))));
    assert_eq!(sink.receives(30).key, format!("{}?token=1", key("accepted")));
    drop((accepted, accepting));

    let renaming = asking("renamed");
    let renamed = ffmpeg(Media::Both, &renaming.url(&format!("live/{}", key("own"))));
    until("the stream under its new key", || sink.sessions().iter().any(|session| session.key == key("renamed")));
    drop((renamed, renaming));

    let moving = asking("moved");
    let _moved = ffmpeg(Media::Both, &moving.url(&format!("live/{}", key("moved"))));
    until("the stream at the URL of the redirect", || nginx.statistics().contains(&key("moved")));
}

#[test]
fn json_server_names_the_publisher_and_its_destinations_and_is_told_of_its_end() {
    let (sink, other) = (Sink::start(), Sink::start());
    let destination = sink.url("rec");
    let server = JsonServer::start(move |body| match body["args"]["token"].as_str() {
        Some("good") => {
            let text = serde_json::json!({"publisher": "studio-a", "destinations": [
                {"name": "archive", "url": format!("{destination}/{{publisher}}"), "required": true}]});
            (200, text.to_string())
        }
        Some("nonsense") => (200, "{\"destinatons\": []}".to_owned()),
        _ => (403, r#"{"reason": "your plan\nhas ended"}"#.to_owned()),
    });
    let settings = ActivatorProcess::pushing_to(&other.url("live/{key}"));
    let settings = settings.with("LIVEEDGECAST_ON_PUBLISH_URL", &server.url()).with("COOLDOWN", "1s");
    let settings = settings.with("LIVEEDGECAST_ON_PUBLISH_DONE_URL", &server.url());
    let settings = settings.with("LIVEEDGECAST_ON_PUBLISH_SECRET", "of-the-hook");
    let activator = settings.with("LIVEEDGECAST_ON_PUBLISH_FORMAT", "json").start();
    for token in ["bad", "nonsense"] {
        let mut refused = ffmpeg(Media::Both, &activator.url(&format!("live/{}?token={token}", key("one"))));
        assert!(!refused.wait(SOON).success(), "{token}");
        let told = if token == "bad" { "your plan has ended" } else { "has given no usable answer" };
        assert!(refused.log().contains(told), "{}", refused.log());
    }
    until("the mistake of the server in the log", || !activator.events("hook.answer_unusable").is_empty());
    assert!(activator.processes().is_empty(), "a refused publisher has woken something");
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}?token=good", key("one"))));
    assert_eq!(sink.receives(30).key, "studio-a");
    let asked = server.calls("publish").pop().expect("a question");
    assert_eq!((&asked["app"], &asked["name"]), (&"live".into(), &key("one").into()));
    assert!(asked["addr"].as_str().is_some_and(|addr| addr.starts_with("127.")), "{asked}");
    assert!(asked["tcurl"].as_str().is_some_and(|url| url.starts_with("rtmp://")), "{asked}");
    assert!(server.calls("publish_done").is_empty());
    publisher.interrupt();
    until("the server to be told of the end", || !server.calls("publish_done").is_empty());
    let done = server.calls("publish_done");
    assert_eq!((done.len(), &done[0]["clientid"]), (1, &asked["clientid"]));
    assert_eq!(other.connections(), 0);
    assert!(!activator.process.log().contains(KEY_MARK) && !activator.process.log().contains("of-the-hook"));
}

#[test]
fn server_that_is_away_refuses_for_now_unless_it_is_said_to_accept() {
    let sink = Sink::start();
    let nobody = format!("http://{}/", loopback::socket(9));
    let settings = || {
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s");
        settings.with("LIVEEDGECAST_ON_PUBLISH_URL", &nobody)
    };
    let refusing = settings().start();
    let _refused = ffmpeg(Media::Both, &refusing.url(&format!("live/{}", key("away"))));
    let refused = || refusing.metric("liveedgecast_publishers_refused_total", &["reason=\"hook_away\""]);
    until("the publisher to be told to come again", || refused() == Some(1.0));
    assert!(!refusing.events("hook.failed").is_empty());
    assert_eq!(sink.connections(), 0);
    let accepting = settings().with("LIVEEDGECAST_ON_PUBLISH_ON_ERROR", "accept").start();
    let _accepted = ffmpeg(Media::Both, &accepting.url(&format!("live/{}", key("away"))));
    sink.receives(20);
}

#[test]
fn slow_answer_delays_nobody_else() {
    let sink = Sink::start();
    let asked: Arc<Mutex<bool>> = Arc::default();
    let slow = Arc::clone(&asked);
    let server = JsonServer::start(move |body| {
        if body["name"] == key("slow") {
            *slow.lock().unwrap_or_else(PoisonError::into_inner) = true;
            stays_true_for(Duration::from_secs(6), "nobody answers", || true);
        }
        (200, String::new())
    });
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s");
    let settings =
        settings.with("LIVEEDGECAST_ON_PUBLISH_URL", &server.url()).with("LIVEEDGECAST_ON_PUBLISH_TIMEOUT", "9s");
    let settings = settings.with("LIVEEDGECAST_ON_PUBLISH_SECRET", "of-the-hook");
    let activator = settings.with("LIVEEDGECAST_ON_PUBLISH_FORMAT", "json").start();
    let _slow = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("slow"))));
    until("the slow question", || *asked.lock().unwrap_or_else(PoisonError::into_inner));
    let _quick = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("quick"))));
    assert_eq!(sink.receives(10).key, key("quick"));
    until("both streams", || sink.sessions().iter().any(|session| session.key == key("slow")));
}
