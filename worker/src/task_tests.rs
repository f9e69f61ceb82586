//! The whole process but for its streams, which are tiny: from the start to every way of going down.

use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::control::{ActivatorMessage, Availability, SessionState, WorkerMessage};
use liveedgecast_common::encryption::Encryption;
use liveedgecast_common::handoff::{Decline, Frame, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::config;
use crate::config::Handoff;
use crate::receive::{HandoffError, HandoffStream};
use crate::testkit::control::{Activator, Incall, tiny};
use crate::testkit::{Desk, assignment, frame, offer, secret, soon};

/// Longer than any test may take.
const NEVER: Duration = Duration::from_secs(3600);

struct Process {
    activator: Activator,
    desk: Desk,
    call: Incall,
    http: SocketAddr,
    stops: mpsc::Sender<Stop>,
    ended: JoinHandle<io::Result<()>>,
}

fn settings(activator: SocketAddr, drain: Duration) -> Settings {
    Settings {
        name: "w".into(),
        activator: config::Activator::Address(activator),
        protection: Encryption::Auto.into(),
        secret: secret(),
        http: "127.0.0.1:0".parse().unwrap(),
        capacity: 4,
        handoff: Handoff::Auto,
        drain,
        gather: Duration::ZERO,
        threads: 2,
        exit_when_orphaned: false,
        began: now(),
        traces: None,
        introducer: None,
    }
}

impl Process {
    /// A process that is registered and has one stream per key.
    async fn serving(drain: Duration, keys: &[&str]) -> (Self, Vec<HandoffStream>) {
        let mut activator = Activator::start().await;
        let (stops, stopped) = mpsc::channel(STOPS);
        let settings = settings(activator.address, drain);
        let listener = listen::listen(settings.http).unwrap();
        let http = listener.local_addr().unwrap();
        let metrics = WorkerMetrics::new().unwrap();
        let ended = tokio::spawn(Box::pin(serve(listener, settings, tiny(), SpareRings::default(), metrics, stopped)));
        let desk = Desk::tcp().await;
        let (mut call, _) = activator.joined(desk.welcome()).await;
        let mut streams = Vec::new();
        for key in keys {
            let assignment = assignment(key, key, Transport::Link);
            call.say(ActivatorMessage::Offer(offer(&assignment, [7; 16]))).await;
            let (mut stream, _) = desk.accept().await.hand_over(assignment).await;
            assert_eq!(frame(&mut stream).await.unwrap(), Frame::Accepted);
            call.session(key, SessionState::Live).await;
            streams.push(stream);
        }
        (Self { activator, desk, call, http, stops, ended }, streams)
    }

    async fn signal(&self) {
        self.stops.send(Stop::Terminate).await.unwrap();
    }

    /// The status line and the body.
    async fn get(&self, path: &str) -> String {
        let mut socket = soon(TcpStream::connect(self.http)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Waits until the process says goodbye, hangs up, and ends well.
    async fn leaves(mut self) {
        self.call.until(|say| matches!(say, WorkerMessage::Goodbye).then_some(())).await;
        assert_eq!(self.call.next().await, None);
        drop(self.call);
        soon(self.ended).await.unwrap().unwrap();
        assert!(TcpStream::connect(self.http).await.is_err(), "HTTP is closed last");
    }
}

#[tokio::test]
async fn registered_worker_is_ready_and_shows_its_streams() {
    let (mut process, _streams) = Process::serving(NEVER, &["a"]).await;
    assert!(process.get("/readyz").await.contains("ready: registered at 1"));
    assert!(process.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let page = process.get("/metrics").await;
    assert!(page.contains("liveedgecast_worker_activators 1") && !page.contains("worker_streams"), "{page}");
    // The activator shows what the streams have counted.
    let rows = [("worker_streams", ""), ("worker_start_seconds", "handoff"), ("worker_start_seconds", "upstream")];
    while rows.iter().any(|(name, label)| process.call.counted(name, label) != 1) {
        process.call.next().await.unwrap();
    }
    assert_eq!(process.call.counted("worker_capacity", ""), 4);
}

#[tokio::test]
async fn worker_without_streams_ends_at_a_signal() {
    let (process, _) = Process::serving(NEVER, &[]).await;
    process.signal().await;
    process.leaves().await;
}

#[tokio::test]
async fn worker_hands_its_streams_back_before_it_ends() {
    let (mut process, mut streams) = Process::serving(NEVER, &["a", "b"]).await;
    process.signal().await;
    for stream in &mut streams {
        assert_eq!(frame(stream).await.unwrap(), Frame::Returned { why: Decline::Moving });
        assert!(matches!(frame(stream).await, Err(HandoffError::Ended)));
    }
    // Draining is said before any of them is gone.
    let mut draining = false;
    let mut ended = 0;
    while ended < 2 {
        match process.call.next().await.unwrap() {
            WorkerMessage::Load(load) => draining |= load.availability == Availability::Draining,
            WorkerMessage::Session(session) if session.state == SessionState::Ended => {
                assert!(draining);
                ended += 1;
            }
            _ => {}
        }
    }
    process.leaves().await;
}

#[tokio::test]
async fn stream_that_no_worker_takes_is_waited_for_until_a_second_signal() {
    let (mut process, mut streams) = Process::serving(NEVER, &["stubborn"]).await;
    process.signal().await;
    process
        .call
        .until(|say| {
            matches!(say, WorkerMessage::Load(load) if load.availability == Availability::Draining).then_some(())
        })
        .await;
    assert!(process.get("/readyz").await.contains("going down"));
    let drains = "liveedgecast_worker_phase{phase=\"await_streams\"} 1";
    while !process.get("/metrics").await.contains(drains) {
        tokio::task::yield_now().await;
    }

    // In any phase, so many signals end its waits.
    for _ in WorkerPhase::ALL {
        let _ = process.stops.send(Stop::Interrupt).await;
    }
    let ended = soon(process.ended).await.unwrap();
    ended.unwrap();
    // The connection is as the process left it: the system closes it with the process.
    streams.clear();
    drop((process.activator, process.desk));
}

#[tokio::test]
async fn stream_that_no_worker_takes_is_waited_for_until_the_drain_time_is_over() {
    let (process, _streams) = Process::serving(Duration::from_millis(50), &["stubborn"]).await;
    process.signal().await;
    process.leaves().await;
}

#[tokio::test]
async fn taken_http_port_is_an_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = taken.local_addr().unwrap();
    let settings = Settings { http, ..settings(http, NEVER) };
    let (_stops, stopped) = mpsc::channel(STOPS);
    let error = soon(Box::pin(run(settings, tiny(), SpareRings::default(), WorkerMetrics::new().unwrap(), stopped)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn orphaned_worker_ends_well() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = Settings { exit_when_orphaned: true, ..settings(nobody, NEVER) };
    let (_stops, stopped) = mpsc::channel(STOPS);
    soon(Box::pin(run(settings, tiny(), SpareRings::default(), WorkerMetrics::new().unwrap(), stopped))).await.unwrap();
}
