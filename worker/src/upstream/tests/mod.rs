//! Upstreams over real sockets on loopback. Time is virtual: a deadline passes when the test says so, never because a machine is slow.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use liveedgecast_common::key::StreamKey;
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::handshake::{HANDSHAKE_BYTES, Handshake};
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader, Scanned, writer};
use liveedgecast_common::testkit::origin;
use liveedgecast_common::url::PushTemplate;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod plain;
mod tls;

fn url(text: &str) -> PushUrl {
    let key = StreamKey::parse("unused").unwrap();
    PushTemplate::parse(text).unwrap().resolve("unused", &key).unwrap()
}

/// An upstream, its time, and its events.
struct Driver {
    upstream: Upstream,
    now: Instant,
    events: Vec<UpstreamEvent>,
}

impl Driver {
    fn new(text: &str) -> Self {
        Self::with(text, &UpstreamContext::with_roots(rustls::RootCertStore::empty()).unwrap())
    }

    fn with(text: &str, shared: &UpstreamContext) -> Self {
        let now = origin();
        Self { upstream: Upstream::new(url(text), shared, 3, now), now, events: Vec::new() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(event) = self.upstream.poll(cx, self.now) {
            self.events.push(event);
        }
    }

    /// Drives the upstream until the other future is done.
    async fn while_peer<T>(&mut self, peer: impl Future<Output = T>) -> T {
        let mut peer = pin!(peer);
        poll_fn(|cx| {
            self.poll(cx);
            peer.as_mut().poll(cx)
        })
        .await
    }

    async fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        poll_fn(|cx| {
            self.poll(cx);
            if condition(self) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(condition(self), "{what}");
    }

    async fn until_word(&mut self, word: &str) {
        self.until(word, |driver| driver.word() == word).await;
    }

    fn word(&self) -> String {
        self.upstream.report().state.as_str().to_owned()
    }

    fn error(&self) -> String {
        self.upstream.report().error
    }

    /// The next deadline passes.
    fn pass(&mut self) {
        self.now = self.now.max(self.upstream.next_timeout().expect("something is due"));
    }

    fn take_events(&mut self) -> Vec<UpstreamEvent> {
        std::mem::take(&mut self.events)
    }

    async fn write(&mut self, bytes: &[u8]) {
        let mut written = 0;
        poll_fn(|cx| {
            while written < bytes.len() {
                self.poll(cx);
                let half = written + (bytes.len() - written) / 2;
                let slices = [IoSlice::new(&bytes[written..half]), IoSlice::new(&bytes[half..])];
                match self.upstream.poll_write_vectored(cx, &slices) {
                    Poll::Ready(taken) => written += taken.unwrap(),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Writes while the other future runs, until that is done; and how many bytes were unacknowledged at most.
    async fn write_while_peer<T>(&mut self, bytes: &[u8], peer: impl Future<Output = T>) -> (T, u64) {
        let mut peer = pin!(peer);
        let (mut written, mut most) = (0, 0);
        poll_fn(|cx| {
            self.poll(cx);
            while written < bytes.len() {
                match self.upstream.poll_write_vectored(cx, &[IoSlice::new(&bytes[written..])]) {
                    Poll::Ready(taken) => written += taken.unwrap(),
                    Poll::Pending => break,
                }
            }
            most = most.max(self.upstream.unacknowledged());
            peer.as_mut().poll(cx).map(|value| (value, most))
        })
        .await
    }

    /// Writes as much as is taken at once, and says how much that was.
    async fn fill(&mut self) -> u64 {
        let piece = vec![0; 64 << 10];
        let mut written = 0;
        poll_fn(|cx| {
            while let Poll::Ready(taken) = self.upstream.poll_write_vectored(cx, &[IoSlice::new(&piece)]) {
                written += taken.unwrap() as u64;
            }
            Poll::Ready(())
        })
        .await;
        written
    }

    /// A video message of one byte repeated, in chunks as they should be.
    fn video(&self, length: usize) -> Vec<u8> {
        let stream_id = self.upstream.message_stream();
        let header = MessageHeader { csid: 6, timestamp: 0, length: 0, type_id: 9, stream_id };
        let mut bytes = Vec::new();
        writer::write_message(&mut bytes, &header, &vec![0x17; length], self.upstream.chunk_size());
        bytes
    }
}

/// Stage up to which a scripted server behaves before the test takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Upto {
    Accept,
    Handshake,
    Connect,
    CreateStream,
    Publish,
}

const EVERY_STAGE: [(Upto, &str); 4] = [
    (Upto::Accept, "handshake"),
    (Upto::Handshake, "connect"),
    (Upto::Connect, "create_stream"),
    (Upto::CreateStream, "publish"),
];

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A scripted server.
struct Peer<S> {
    stream: S,
    ingest: Ingest,
    unread: Vec<u8>,
    ended: bool,
}

/// A message of the client.
#[derive(Debug)]
enum Said {
    Command(Command),
    Control(Control),
    /// Bytes of media.
    Media(usize),
    Fin,
}

impl Peer<TcpStream> {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self { stream, ingest: Ingest::new(HANDSHAKE_BYTES), unread: Vec::new(), ended: false }
    }

    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let length = self.stream.read(&mut buffer).await.unwrap();
        self.unread.extend_from_slice(&buffer[..length]);
        self.ended = length == 0;
        !self.ended
    }

    async fn handshake(&mut self) {
        let mut handshake = Handshake::server();
        loop {
            assert!(self.read().await, "closed in the handshake");
            let progress = handshake.handle(&self.unread).unwrap();
            self.unread.drain(..progress.used);
            self.stream.write_all(&progress.output).await.unwrap();
            self.stream.flush().await.unwrap();
            if progress.done {
                return;
            }
        }
    }

    async fn said(&mut self) -> Said {
        loop {
            let before = self.ingest.position();
            let found = self.ingest.next(&self.unread).unwrap();
            self.unread.drain(..(self.ingest.position() - before) as usize);
            match found {
                Some(Ingested::Message { header, payload }) => {
                    return match Command::parse(header.type_id, &payload) {
                        Ok(command) => Said::Command(command),
                        Err(_) => Said::Control(Control::parse(header.type_id, &payload).unwrap()),
                    };
                }
                Some(Ingested::Media(Scanned::Payload { len, .. })) => return Said::Media(len as usize),
                Some(Ingested::Media(_)) => {}
                None if self.ended => return Said::Fin,
                None => {
                    self.read().await;
                }
            }
        }
    }

    async fn command(&mut self, name: &str) -> Command {
        loop {
            match self.said().await {
                Said::Command(command) if command.name == name => return command,
                Said::Command(_) | Said::Control(_) => {}
                other => panic!("{other:?} instead of {name}"),
            }
        }
    }

    async fn say(&mut self, name: &str, transaction: f64, arguments: Vec<Value>) {
        let command = Command { name: name.to_owned(), transaction, object: Value::Null, arguments };
        let mut bytes = Vec::new();
        command.write(&mut bytes, 3, 0, 128);
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn say_status(&mut self, name: &str, transaction: f64, level: &str, code: &str, description: &str) {
        let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
        let info = vec![text("level", level), text("code", code), text("description", description)];
        self.say(name, transaction, vec![Value::Object(info)]).await;
    }

    /// Plays its part up to and including a stage.
    async fn reach(&mut self, upto: Upto) {
        if upto >= Upto::Handshake {
            self.handshake().await;
        }
        if upto >= Upto::Connect {
            self.command("connect").await;
            self.say_status("_result", 1.0, "status", "NetConnection.Connect.Success", "").await;
        }
        if upto >= Upto::CreateStream {
            self.command("createStream").await;
            self.say("_result", 4.0, vec![Value::Number(3.0)]).await;
        }
        if upto >= Upto::Publish {
            let publish = self.command("publish").await;
            assert_eq!(publish.argument(0).and_then(Value::as_str), Some("KEY"));
            self.say_status("onStatus", 0.0, "status", "NetStream.Publish.Start", "").await;
        }
    }

    /// Bytes of media until so many have come, or the end.
    async fn media(&mut self, expected: usize) -> usize {
        let mut total = 0;
        while total < expected {
            match self.said().await {
                Said::Media(length) => total += length,
                Said::Fin => break,
                Said::Command(_) | Said::Control(_) => {}
            }
        }
        total
    }
}
