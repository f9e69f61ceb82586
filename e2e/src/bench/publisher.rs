//! A paced publisher: frames in the shape of H.264 with a keyframe every two seconds, and 43 AAC-shaped messages a second. In: an address, a
//! rate. Out: time of `Publish.Start`, number of messages written, whether the connection was cut. Its messages are written by the pacer.
#![expect(clippy::disallowed_methods, reason = "shell: waits for answers no longer than needed")]

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader, type_id, writer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pacer::{CHUNK_SIZE, Pacer};
use super::schedule::{MediaRate, Schedule};
use super::{BenchClock, payload};

/// Longest wait for an answer: more than any hold in a benchmark.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest wait for a relay to close the connection.
const GOODBYE: Duration = Duration::from_secs(5);

/// Results of a publisher.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishResult {
    /// Time at which `publish` was sent, nanoseconds.
    pub asked: u64,
    /// Time at which `Publish.Start` arrived, nanoseconds.
    pub started: u64,
    /// Numbered messages written.
    pub messages: u64,
    /// True if the connection ended before the publisher was stopped.
    pub cut: bool,
}

/// A publisher that has received `Publish.Start`.
#[derive(Debug)]
pub struct PacedPublisher {
    socket: TcpStream,
    stream: u32,
    out: Vec<u8>,
    chunk: u32,
    published: PublishResult,
}

impl PacedPublisher {
    /// Connects, shakes hands, and waits for `Publish.Start`.
    ///
    /// # Errors
    /// The connection is refused or closed, or no answer arrives.
    pub async fn start(address: SocketAddr, app: &str, stream: u32, clock: BenchClock) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut c0c1 = vec![3, 0, 0, 0, 0, 0, 0, 0, 0];
        c0c1.extend(std::iter::repeat_n(5, 1528));
        socket.write_all(&c0c1).await?;
        let mut s = vec![0; 1 + 1536 + 1536];
        read_exact(&mut socket, &mut s).await?;

        let mut this =
            Self { socket, stream, out: s[1..1537].to_vec(), chunk: 128, published: PublishResult::default() };
        let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
        let url = format!("rtmp://{address}/{app}");
        let object =
            vec![text("app", app), text("type", "nonprivate"), text("flashVer", "FMLE/3.0"), text("tcUrl", &url)];
        this.command("connect", 1.0, Value::Object(object), Vec::new());
        let mut ingest = Ingest::new(0);
        let mut buffer = Vec::new();
        this.await_answer(&mut ingest, &mut buffer, "_result").await?;

        let key = Value::string(format!("s{stream}"));
        Control::SetChunkSize(CHUNK_SIZE).write(&mut this.out, this.chunk);
        this.chunk = CHUNK_SIZE;
        this.command("releaseStream", 2.0, Value::Null, vec![key.clone()]);
        this.command("FCPublish", 3.0, Value::Null, vec![key.clone()]);
        this.command("createStream", 4.0, Value::Null, Vec::new());
        this.await_transaction(&mut ingest, &mut buffer, 4.0).await?;
        this.command("publish", 5.0, Value::Null, vec![key, Value::string("live")]);
        this.published.asked = clock.now();
        this.await_answer(&mut ingest, &mut buffer, "onStatus").await?;
        this.published.started = clock.now();
        this.headers();
        this.flush().await?;
        Ok(this)
    }

    fn command(&mut self, name: &str, transaction: f64, object: Value, arguments: Vec<Value>) {
        command(&mut self.out, self.chunk, name, transaction, object, arguments);
    }

    fn headers(&mut self) {
        let mut message = |type_id, payload: &[u8]| {
            let header = MessageHeader { csid: 4, timestamp: 0, length: 0, type_id, stream_id: 1 };
            writer::write_message(&mut self.out, &header, payload, CHUNK_SIZE);
        };
        message(type_id::DATA_AMF0, &payload::metadata());
        message(type_id::VIDEO, payload::VIDEO_HEADER);
        message(type_id::AUDIO, payload::AUDIO_HEADER);
    }

    async fn flush(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(&self.out).await;
        self.out.clear();
        sent
    }

    async fn await_answer(&mut self, ingest: &mut Ingest, buffer: &mut Vec<u8>, name: &str) -> io::Result<()> {
        self.flush().await?;
        answer(&mut self.socket, ingest, buffer, |command| command.name == name).await
    }

    async fn await_transaction(
        &mut self,
        ingest: &mut Ingest,
        buffer: &mut Vec<u8>,
        transaction: f64,
    ) -> io::Result<()> {
        self.flush().await?;
        let is = |command: &Command| command.name == "_result" && command.transaction == transaction;
        answer(&mut self.socket, ingest, buffer, is).await
    }

    /// Sends at the given rate until `stop`, then says goodbye as encoders do.
    pub async fn run(mut self, rate: MediaRate, pacer: &Pacer, stop: CancellationToken) -> PublishResult {
        let (socket, wake) = (Rc::new(self.socket), Rc::new(Notify::new()));
        let place = pacer.add(socket.clone(), wake.clone(), self.stream, Schedule::new(rate, self.stream));
        let cut = tokio::select! {
            () = stop.cancelled() => false,
            () = attend(&socket, &wake, pacer, place) => true,
        };
        let paced = pacer.remove(place);
        self.published.messages = paced.messages;
        self.published.cut = cut || paced.cut;
        if !self.published.cut {
            // What is pending was promised, and goes in front.
            self.out = paced.pending;
            let key = Value::string(format!("s{}", self.stream));
            command(&mut self.out, self.chunk, "FCUnpublish", 6.0, Value::Null, vec![key]);
            command(&mut self.out, self.chunk, "deleteStream", 7.0, Value::Null, vec![Value::Number(1.0)]);
            let _ = timeout(GOODBYE, goodbye(&socket, &self.out)).await;
        }
        self.published
    }
}

/// Writes what is pending when the socket has room, and reads acknowledgements and pings, so that they never fill the peer's window. Returns
/// when the connection has ended.
async fn attend(socket: &TcpStream, wake: &Notify, pacer: &Pacer, place: usize) {
    let mut scratch = [0; 4096];
    loop {
        if !pacer.flush(place) {
            // Readable as well: an end is an end also while bytes are pending.
            let _ = socket.ready(Interest::READABLE | Interest::WRITABLE).await;
        } else if pacer.is_cut(place) {
            return;
        } else {
            tokio::select! {
                () = wake.notified() => continue,
                _ = socket.readable() => {}
            }
        }
        match socket.try_read(&mut scratch) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// Writes the last bytes, says that nothing follows, and waits until the relay has closed.
async fn goodbye(socket: &TcpStream, mut last: &[u8]) -> io::Result<()> {
    while !last.is_empty() {
        socket.writable().await?;
        match socket.try_write(last) {
            Ok(written) => last = &last[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    SockRef::from(socket).shutdown(Shutdown::Write)?;
    let mut scratch = [0; 4096];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut scratch) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

fn command(out: &mut Vec<u8>, chunk: u32, name: &str, transaction: f64, object: Value, arguments: Vec<Value>) {
    // `connect` concerns the connection, and so do the commands up to `createStream`; all of them fit on one chunk stream.
    let stream = u32::from(name == "publish");
    Command { name: name.into(), transaction, object, arguments }.write(out, 3, stream, chunk);
}

async fn read_exact(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    timeout(ANSWER, socket.read_exact(bytes)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(())
}

/// Reads until the command arrives for which `is` holds; a refusal before it is an error.
async fn answer(
    socket: &mut TcpStream,
    ingest: &mut Ingest,
    buffer: &mut Vec<u8>,
    is: impl Fn(&Command) -> bool,
) -> io::Result<()> {
    let mut scratch = vec![0; 4096];
    loop {
        loop {
            let before = ingest.position();
            let found = ingest.next(buffer).map_err(io::Error::other)?;
            buffer.drain(..(ingest.position() - before) as usize);
            let Some(found) = found else { break };
            let Ingested::Message { header, payload } = found else { continue };
            let Ok(command) = Command::parse(header.type_id, &payload) else { continue };
            let level = command.arguments.first().and_then(|status| status.property("level")).and_then(Value::as_str);
            if command.name == "_error" || level == Some("error") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if is(&command) {
                return Ok(());
            }
        }
        let read = timeout(ANSWER, socket.read(&mut scratch)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&scratch[..read]);
    }
}
