//! A paced publisher: 30 frames a second in the shape of H.264 with a keyframe every two seconds, and 43 AAC-shaped messages a second. In:
//! an address, a rate. Out: time of `Publish.Start`, number of messages written, whether the connection was cut.
#![expect(clippy::disallowed_methods, reason = "shell: paces by a clock")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader, type_id, writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::BenchClock;
use super::payload::{self, PayloadStamp, Shape};

/// Chunk size that OBS uses.
const CHUNK_SIZE: u32 = 4096;
/// Frames per second, frames per keyframe.
const FPS: u64 = 30;
const GOP: u64 = 60;
/// A keyframe is as long as this many other frames.
const KEY_FACTOR: u64 = 8;
/// AAC at 44.1 kHz: 1024 samples a message; 128 kbps.
const AUDIO_MICROS: u64 = 23_220;
const AUDIO_BYTES: usize = 371;
/// Longest wait for an answer: more than any hold in a benchmark.
const ANSWER: Duration = Duration::from_secs(60);

/// Bit rate of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct BitRate {
    /// Video and audio together, bits per second.
    pub bits: u64,
}

impl BitRate {
    /// Bytes of an inter frame.
    fn inter(self) -> usize {
        let audio = AUDIO_BYTES as u64 * 8 * 1_000_000 / AUDIO_MICROS;
        let per_gop = self.bits.saturating_sub(audio) / 8 * GOP / FPS;
        usize::try_from(per_gop / (GOP - 1 + KEY_FACTOR)).unwrap_or(usize::MAX).max(payload::LEAST)
    }
}

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
    clock: BenchClock,
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
            Self { socket, clock, stream, out: s[1..1537].to_vec(), chunk: 128, published: PublishResult::default() };
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
        // `connect` concerns the connection, and so do the commands up to `createStream`; all of them fit on one chunk stream.
        let stream = u32::from(name == "publish");
        Command { name: name.into(), transaction, object, arguments }.write(&mut self.out, 3, stream, self.chunk);
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
    pub async fn run(mut self, rate: BitRate, stop: CancellationToken) -> PublishResult {
        self.published.cut = self.pace(rate, &stop).await.is_err();
        if !self.published.cut {
            let key = Value::string(format!("s{}", self.stream));
            self.command("FCUnpublish", 6.0, Value::Null, vec![key]);
            self.command("deleteStream", 7.0, Value::Null, vec![Value::Number(1.0)]);
            let _ = self.flush().await;
            let _ = self.socket.shutdown().await;
            let mut scratch = vec![0; 4096];
            let ended = async { while self.socket.read(&mut scratch).await.is_ok_and(|read| read > 0) {} };
            let _ = timeout(Duration::from_secs(5), ended).await;
        }
        self.published
    }

    async fn pace(&mut self, rate: BitRate, stop: &CancellationToken) -> io::Result<()> {
        let (inter, begin) = (rate.inter(), Instant::now());
        let (mut frame, mut sound) = (0_u64, 0_u64);
        let mut scratch = [0; 4096];
        loop {
            let (video, audio) = (frame * 1_000_000 / FPS, sound * AUDIO_MICROS);
            let due = video.min(audio);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(begin + Duration::from_micros(due)) => {}
            }
            let stamp = PayloadStamp { stream: self.stream, number: self.published.messages, sent: self.clock.now() };
            let mut body = Vec::with_capacity(inter);
            let type_id = if audio < video {
                sound += 1;
                payload::write(&mut body, Shape::Audio, &stamp, AUDIO_BYTES);
                type_id::AUDIO
            } else {
                let key = frame.is_multiple_of(GOP);
                frame += 1;
                let len = if key { inter * KEY_FACTOR as usize } else { inter };
                payload::write(&mut body, if key { Shape::Keyframe } else { Shape::Inter }, &stamp, len);
                type_id::VIDEO
            };
            let timestamp = (due / 1000) as u32;
            let header = MessageHeader { csid: 4, timestamp, length: 0, type_id, stream_id: 1 };
            writer::write_message(&mut self.out, &header, &body, CHUNK_SIZE);
            self.flush().await?;
            self.published.messages += 1;
            // Acknowledgements and pings are read, so that they never fill the peer's window.
            if self.published.messages.is_multiple_of(32) {
                match self.socket.try_read(&mut scratch) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        }
    }
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
