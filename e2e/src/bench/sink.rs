//! The counting upstream. In: RTMP connections. Out: per stream the number of messages, their delay, and whether they are the messages that
//! were sent.
//!
//! The sink answers only the commands that a push client needs; every connection may publish.
#![expect(clippy::disallowed_methods, reason = "shell: tasks and sockets")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader, Scanned, type_id};
use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::BenchClock;
use super::payload::PayloadCheck;

/// Bytes read at once.
const READ: usize = 64 << 10;
/// C0 and C1; S0, S1 and S2 are twice C1 and a byte.
const C0C1: usize = 1 + 1536;

/// Nanoseconds after a stream's first message within which a loss counts as a loss at the start: relays that drop until the second keyframe
/// do so for one GOP.
const START: u64 = 3_000_000_000;
/// Pause after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(5);

/// Arrivals of one stream.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// Number of connections that published the stream.
    pub sessions: u32,
    /// Arrival of the first audio or video message (headers not counted), and its number.
    pub first: Option<(u64, u64)>,
    /// Time at which that message was sent.
    pub first_sent: u64,
    /// True if the first video message was a keyframe; `None` before any video.
    pub began_decodable: Option<bool>,
    /// Number of numbered messages.
    pub messages: u64,
    /// Bytes of the numbered messages.
    pub bytes: u64,
    /// Number expected next.
    pub next: u64,
    /// Numbers that were skipped within [`START`] after the first message.
    pub lost_at_start: u64,
    /// Numbers that were skipped later.
    pub lost: u64,
    /// Numbers that arrived twice, or late.
    pub repeated: u64,
    /// Messages whose bytes differ from those sent.
    pub corrupt: u64,
}

/// Arrivals of all streams.
#[derive(Debug, Default)]
pub struct SinkTally {
    /// Arrivals by number of the stream.
    pub streams: HashMap<u32, Arrived>,
    /// Nanoseconds from write to complete read, of messages sent within the measurement.
    pub latencies: Vec<u64>,
    /// Start of the measurement: messages sent before it are not measured.
    pub measure_from: u64,
    /// End of the measurement: messages sent after it are not measured.
    pub measure_to: u64,
    /// Bytes of all messages, headers included, at any time.
    pub bytes: u64,
}

/// A running sink.
#[derive(Clone, Debug)]
pub struct CountingSink {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Counts so far. Single-threaded: borrowed only between two awaits.
    pub tally: Rc<RefCell<SinkTally>>,
    /// Notified at each stream's first message.
    pub first: Rc<Notify>,
    /// True: the sink accepts connections, and reads no more from any.
    pub stalled: Rc<Cell<bool>>,
    buffer: Rc<RefCell<Vec<u8>>>,
}

impl CountingSink {
    /// Starts a sink on a free port of loopback, on the current local set.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(clock: BenchClock) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let buffer = Rc::new(RefCell::new(vec![0; READ]));
        let sink = Self {
            address: listener.local_addr()?,
            tally: Rc::default(),
            first: Rc::default(),
            stalled: Rc::default(),
            buffer,
        };
        let accepting = sink.clone();
        tokio::task::spawn_local(async move {
            loop {
                let socket = match listener.accept().await {
                    Ok((socket, _)) => socket,
                    // A connection that ended before it was accepted, or no free descriptor for the moment: the others still want in.
                    Err(error) => {
                        eprintln!("sink: a connection was not accepted: {error}");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                let sink = accepting.clone();
                tokio::task::spawn_local(async move {
                    // The end of a connection is no error here: missing messages are counted.
                    let _ = serve(socket, sink, clock).await;
                });
            }
        });
        Ok(sink)
    }

    /// Forgets all counts.
    pub fn reset(&self) {
        *self.tally.borrow_mut() = SinkTally { measure_from: u64::MAX, ..SinkTally::default() };
    }
}

async fn serve(mut socket: TcpStream, sink: CountingSink, clock: BenchClock) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut c0c1 = vec![0; C0C1];
    socket.read_exact(&mut c0c1).await?;
    let mut answer = vec![3];
    answer.extend_from_slice(&[0; 8]);
    answer.extend(std::iter::repeat_n(7, 1528));
    answer.extend_from_slice(&c0c1[1..]);
    socket.write_all(&answer).await?;
    socket.read_exact(&mut c0c1[1..]).await?;

    let mut session =
        PushSession { ingest: Ingest::new(0), left: Vec::new(), open: Vec::new(), out: Vec::new(), known: None };
    loop {
        // The buffer is the same for all connections, so that it stays in the cache. It is borrowed between two awaits only.
        let read = poll_fn(|cx| {
            let mut buffer = sink.buffer.borrow_mut();
            buffer[..session.left.len()].copy_from_slice(&session.left);
            let mut space = ReadBuf::new(&mut buffer[session.left.len()..]);
            let ready = Pin::new(&mut socket).poll_read(cx, &mut space);
            ready.map_ok(|()| space.filled().len())
        });
        let read = read.await?;
        session.receive(read, &sink, clock.now())?;
        if sink.stalled.get() {
            pending::<()>().await;
        }
        if read == 0 {
            return Ok(());
        }
        if !session.out.is_empty() {
            socket.write_all(&session.out).await?;
            session.out.clear();
        }
    }
}

struct PushSession {
    ingest: Ingest,
    /// Bytes that the ingest has left: the beginning of a chunk's header.
    left: Vec<u8>,
    open: Vec<(u32, PayloadCheck)>,
    out: Vec<u8>,
    known: Option<u32>,
}

impl PushSession {
    /// Takes so many bytes that have come into the sink's buffer behind those that were left.
    fn receive(&mut self, read: usize, sink: &CountingSink, now: u64) -> io::Result<()> {
        let buffer = sink.buffer.borrow();
        let bytes = &buffer[..self.left.len() + read];
        let start = self.ingest.position();
        loop {
            let at = (self.ingest.position() - start) as usize;
            let found = self.ingest.next(&bytes[at..]).map_err(io::Error::other)?;
            let Some(found) = found else { break };
            self.take(found, start, bytes, sink, now);
        }
        self.left.clear();
        self.left.extend_from_slice(&bytes[(self.ingest.position() - start) as usize..]);
        Ok(())
    }

    fn take(&mut self, found: Ingested, start: u64, buffer: &[u8], sink: &CountingSink, now: u64) {
        match found {
            Ingested::Message { header, payload } => self.answer(&header, &payload),
            Ingested::Media(Scanned::Begin { header, .. }) => self.open.push((header.csid, PayloadCheck::default())),
            Ingested::Media(Scanned::Payload { csid, at, len, last }) => {
                let Some(index) = self.open.iter().position(|(open, _)| *open == csid) else { return };
                let from = (at - start) as usize;
                self.open[index].1.take(&buffer[from..from + len as usize]);
                if last {
                    let (_, payload) = self.open.swap_remove(index);
                    self.count(&payload, sink, now);
                }
            }
            Ingested::Media(Scanned::Aborted { csid, .. }) => self.open.retain(|(open, _)| *open != csid),
        }
    }

    fn count(&mut self, payload: &PayloadCheck, sink: &CountingSink, now: u64) {
        let mut tally = sink.tally.borrow_mut();
        tally.bytes += payload.taken() as u64;
        let Some(read) = payload.stamp() else { return };
        let stamp = match read {
            Ok(stamp) | Err(stamp) => stamp,
        };
        if (tally.measure_from..tally.measure_to).contains(&stamp.sent) {
            tally.latencies.push(now.saturating_sub(stamp.sent));
        }
        let arrived = tally.streams.entry(stamp.stream).or_default();
        if self.known != Some(stamp.stream) {
            self.known = Some(stamp.stream);
            arrived.sessions += 1;
        }
        arrived.corrupt += u64::from(read.is_err());
        if arrived.first.is_none() {
            arrived.first = Some((now, stamp.number));
            arrived.first_sent = stamp.sent;
            arrived.next = stamp.number;
            sink.first.notify_waiters();
        }
        if payload.tag() != 0xAF {
            arrived.began_decodable.get_or_insert(payload.tag() == 0x17);
        }
        arrived.messages += 1;
        arrived.bytes += payload.taken() as u64;
        if stamp.number < arrived.next {
            arrived.repeated += 1;
        } else {
            let gap = stamp.number - arrived.next;
            let starting = stamp.sent < arrived.first_sent + START;
            *(if starting { &mut arrived.lost_at_start } else { &mut arrived.lost }) += gap;
            arrived.next = stamp.number + 1;
        }
    }

    fn answer(&mut self, header: &MessageHeader, payload: &[u8]) {
        let Ok(command) = Command::parse(header.type_id, payload) else { return };
        let status = |code: &str| {
            let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
            Value::Object(vec![text("level", "status"), text("code", code), text("description", "go on")])
        };
        let result = |arguments| Command {
            name: "_result".into(),
            transaction: command.transaction,
            object: Value::Null,
            arguments,
        };
        match command.name.as_str() {
            "connect" => {
                Control::WindowAckSize(50_000_000).write(&mut self.out, 128);
                Control::SetChunkSize(4096).write(&mut self.out, 128);
                result(vec![status("NetConnection.Connect.Success")]).write(&mut self.out, 3, 0, 4096);
            }
            "createStream" => result(vec![Value::Number(1.0)]).write(&mut self.out, 3, 0, 4096),
            "publish" => {
                let start = Command {
                    name: "onStatus".into(),
                    transaction: 0.0,
                    object: Value::Null,
                    arguments: vec![status("NetStream.Publish.Start")],
                };
                start.write(&mut self.out, 5, header.stream_id, 4096);
            }
            _ => {}
        }
        debug_assert!(header.type_id == type_id::COMMAND_AMF0 || header.type_id == type_id::COMMAND_AMF3);
    }
}
