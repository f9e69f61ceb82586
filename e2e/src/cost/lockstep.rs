//! The fixed input: publishers that send one message at a time, and their upstream. In: the address of a relay. Out: messages at the
//! upstream, each before the next is sent, so that the relay is given the same reads whatever the machine does meanwhile.
#![expect(clippy::disallowed_methods, reason = "shell: the upstream's listener has a thread")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use liveedgecast_common::key::StreamKey;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession};
use liveedgecast_common::rtmp::handshake::{HANDSHAKE_BYTES, Handshake};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::rtmp::{MessageHeader, Scanned, type_id};
use liveedgecast_common::url::PushTemplate;

use crate::bench::payload;
use crate::loopback;
use crate::relay::key;

/// Bytes of a video message: 30 of them a second are 2.2 Mbps.
const VIDEO_BYTES: usize = 9000;
/// Bytes of an audio message: 128 kbps.
const AUDIO_BYTES: usize = 371;
/// Frames per second, and frames from one keyframe to the next.
const FPS: u64 = 30;
const GOP: u64 = 60;
/// AAC at 44.1 kHz: 1024 samples a message.
const AUDIO_MICROS: u64 = 23_220;
/// The chunk stream that OBS sends its media on.
const CSID: u32 = 4;
/// Longest wait for one answer, including a cold start under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

/// The upstream, and the publishers that have started.
#[derive(Debug)]
pub struct LockStep {
    /// Address of the upstream.
    pub upstream: SocketAddr,
    arrivals: Receiver<anyhow::Result<PushEnd>>,
    streams: Vec<StreamInStep>,
    /// Messages sent so far.
    sent: usize,
}

/// A publisher with its connection at the upstream.
#[derive(Debug)]
struct StreamInStep {
    publisher: TcpStream,
    message_stream: u32,
    chunk: u32,
    upstream: PushEnd,
    frames: u64,
    sounds: u64,
}

/// The upstream's end of a push.
#[derive(Debug)]
struct PushEnd {
    socket: TcpStream,
    session: ServerSession,
    buffer: Vec<u8>,
}

impl LockStep {
    /// Starts the upstream.
    #[must_use]
    pub fn new() -> Self {
        let (upstream, listener) = loopback::listener(1935, TcpListener::bind);
        let (arrived, arrivals) = channel();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let started = socket.map_err(anyhow::Error::from).and_then(PushEnd::start);
                if arrived.send(started).is_err() {
                    break;
                }
            }
        });
        Self { upstream, arrivals, streams: Vec::new(), sent: 0 }
    }

    /// Starts one more publisher, up to the arrival of its headers at the upstream.
    ///
    /// # Errors
    /// The relay refuses it, or does not push it.
    pub fn publish(&mut self, to: SocketAddr) -> anyhow::Result<()> {
        let (publisher, client) = publish(to, &key(&format!("cost{}", self.streams.len()))).context("publisher")?;
        let mut upstream = self.arrivals.recv_timeout(PATIENCE).context("no push arrived")?;
        // On a busy machine an offer may be withdrawn and made again: the push that is live is the last one.
        while let Ok(later) = self.arrivals.try_recv() {
            upstream = later;
        }
        let upstream = upstream?;
        let (message_stream, chunk) = (client.message_stream(), client.chunk_size());
        let mut stream = StreamInStep { publisher, message_stream, chunk, upstream, frames: 0, sounds: 0 };
        stream.pass(type_id::DATA_AMF0, 0, &payload::metadata())?;
        stream.pass(type_id::VIDEO, 0, payload::VIDEO_HEADER)?;
        stream.pass(type_id::AUDIO, 0, payload::AUDIO_HEADER)?;
        self.streams.push(stream);
        Ok(())
    }

    /// Sends so many messages, by each publisher in turn; `idle` is called behind each and returns when the relay is asleep.
    ///
    /// # Errors
    /// A message does not arrive.
    pub fn pass(&mut self, messages: usize, mut idle: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        for _ in 0..messages {
            let at = self.sent % self.streams.len();
            let number = self.sent;
            self.streams[at].next().with_context(|| format!("message {number}"))?;
            self.sent += 1;
            idle()?;
        }
        Ok(())
    }
}

impl Default for LockStep {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamInStep {
    /// Sends the message that an encoder would send next, and waits for it at the upstream.
    fn next(&mut self) -> anyhow::Result<()> {
        let (video, audio) = (self.frames * 1_000_000 / FPS, self.sounds * AUDIO_MICROS);
        let milliseconds = u32::try_from(video.min(audio) / 1000)?;
        // The rest of a message is zeros, because no process here looks further.
        if audio < video {
            self.sounds += 1;
            let mut sound = [0; AUDIO_BYTES];
            sound[..2].copy_from_slice(&[0xAF, 1]);
            return self.pass(type_id::AUDIO, milliseconds, &sound);
        }
        let mut frame = [0; VIDEO_BYTES];
        frame[..2].copy_from_slice(&[if self.frames.is_multiple_of(GOP) { 0x17 } else { 0x27 }, 1]);
        self.frames += 1;
        self.pass(type_id::VIDEO, milliseconds, &frame)
    }

    fn pass(&mut self, type_id: u8, timestamp: u32, payload: &[u8]) -> anyhow::Result<()> {
        let header = MessageHeader { csid: CSID, timestamp, length: 0, type_id, stream_id: self.message_stream };
        let mut bytes = Vec::new();
        write_message(&mut bytes, &header, payload, self.chunk);
        self.publisher.write_all(&bytes)?;
        self.upstream.receive(type_id, payload.len())
    }
}

impl PushEnd {
    /// Serves a push up to `Publish.Start`.
    fn start(mut socket: TcpStream) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut handshake = Handshake::server();
        let mut packets = vec![0; usize::try_from(HANDSHAKE_BYTES)?];
        let mut at = 0;
        while at < packets.len() {
            let read = socket.read(&mut packets[at..])?;
            ensure!(read > 0, "the push ended in its handshake");
            socket.write_all(&handshake.handle(&packets[at..at + read])?.output)?;
            at += read;
        }
        let mut this = Self { socket, session: ServerSession::new(HANDSHAKE_BYTES), buffer: Vec::new() };
        while !matches!(this.event()?, Event::Publish) {}
        this.session.accept_publish();
        this.socket.write_all(&this.session.take_output())?;
        Ok(this)
    }

    /// Waits for the end of a message, which must be this one.
    fn receive(&mut self, type_id: u8, length: usize) -> anyhow::Result<()> {
        let (mut begun, mut received) = (None, 0);
        loop {
            match self.event()? {
                Event::Media(Scanned::Begin { header, .. }) => (begun, received) = (Some(header.type_id), 0),
                Event::Media(Scanned::Payload { len, last, .. }) => {
                    received += len as usize;
                    if last {
                        ensure!((begun, received) == (Some(type_id), length), "another message: {begun:?}, {received}");
                        return Ok(());
                    }
                }
                other => ensure!(!matches!(other, Event::Ended(_)), "the push ended"),
            }
        }
    }

    fn event(&mut self) -> anyhow::Result<Event> {
        loop {
            let before = self.session.position();
            let event = self.session.next(&self.buffer)?;
            self.buffer.drain(..usize::try_from(self.session.position() - before)?);
            if self.session.has_output() {
                self.socket.write_all(&self.session.take_output())?;
            }
            if let Some(event) = event {
                return Ok(event);
            }
            let mut scratch = [0; 16 << 10];
            let read = self.socket.read(&mut scratch)?;
            ensure!(read > 0, "the push's connection ended");
            self.buffer.extend_from_slice(&scratch[..read]);
        }
    }
}

/// Connects a publisher, up to `Publish.Start`.
fn publish(to: SocketAddr, key: &str) -> anyhow::Result<(TcpStream, ClientSession)> {
    let template = PushTemplate::parse(&format!("rtmp://{to}/live/{{key}}"))?;
    let mut client = ClientSession::new(&template.resolve("live", &StreamKey::parse(key)?)?, None);
    let mut socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    client.start();
    let mut buffer = [0; 4096];
    loop {
        socket.write_all(&client.take_output())?;
        match client.poll_event() {
            Some(ClientEvent::Started) => return Ok((socket, client)),
            Some(ClientEvent::Refused(_, text)) => anyhow::bail!("refused: {text}"),
            Some(_) => {}
            None => {
                let read = socket.read(&mut buffer)?;
                ensure!(read > 0, "the server closed the connection");
                client.handle(&buffer[..read])?;
            }
        }
    }
}
