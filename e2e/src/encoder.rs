//! A scripted publisher, for what no real encoder here does: windows, frame sizes and commands of the scenario's choice. In: the messages
//! to send. Out: the server's answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader, type_id, writer};

use crate::record::Message;
use crate::wait::{SOON, until};

/// Chunk size that OBS uses.
const CHUNK_SIZE: u32 = 4096;
/// Bytes that a slow line carries from one look at a condition to the next.
const SLOW_PIECE: usize = 1500;

/// A publisher that is connected.
#[derive(Debug)]
pub struct Encoder {
    socket: TcpStream,
    chunk: u32,
    ingest: Ingest,
    unread: Vec<u8>,
    transaction: f64,
    told: Vec<String>,
    closed: bool,
}

impl Encoder {
    /// Connects to an application and shakes hands.
    ///
    /// # Panics
    /// No process listens at the address, or the server does not speak RTMP.
    #[must_use]
    pub fn connect(address: SocketAddr, app: &str) -> Self {
        let mut socket = TcpStream::connect(address).expect("a server at the address");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        let hello: Vec<u8> = [3, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(std::iter::repeat_n(5, 1528)).collect();
        socket.write_all(&hello).expect("the handshake");
        let mut answer = vec![0; 1 + 1536 + 1536];
        socket.read_exact(&mut answer).expect("the handshake");
        socket.write_all(&answer[1..1537]).expect("the handshake");
        socket.set_nonblocking(true).expect("a socket");
        let mut this = Self {
            socket,
            chunk: 128,
            ingest: Ingest::new(0),
            unread: Vec::new(),
            transaction: 0.0,
            told: Vec::new(),
            closed: false,
        };
        let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
        let url = format!("rtmp://{address}/{app}");
        let object = vec![text("app", app), text("flashVer", "FMLE/3.0"), text("tcUrl", &url)];
        this.command("connect", 0, Value::Object(object), Vec::new());
        this.is_told("_result");
        this.control(&Control::SetChunkSize(CHUNK_SIZE));
        this.chunk = CHUNK_SIZE;
        this
    }

    /// Publishes like [`Self::start`], and sends a header.
    pub fn publish(&mut self, key: &str) {
        self.start(key);
        self.message(type_id::VIDEO, 0, &[0x17, 0, 0, 0, 0, 1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
    }

    /// Publishes and waits for `NetStream.Publish.Start`; also works a second time on the same connection.
    pub fn start(&mut self, key: &str) {
        self.told.clear();
        self.command("createStream", 0, Value::Null, Vec::new());
        self.is_told("_result");
        self.command("publish", 1, Value::Null, vec![Value::string(key), Value::string("live")]);
        self.is_told("NetStream.Publish.Start");
        self.told.clear();
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) {
        self.message(message.type_id, message.timestamp, &message.payload);
    }

    /// Sends a message slowly until the condition holds, and returns the bytes that are left.
    ///
    /// # Panics
    /// The condition does not hold before the last byte is due.
    pub fn send_until(&mut self, message: &Message, what: &str, mut condition: impl FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.encoded(message.type_id, message.timestamp, &message.payload);
        until(what, || {
            let holds = condition();
            if !holds {
                assert!(bytes.len() > SLOW_PIECE, "the message was sent before {what}");
                let later = bytes.split_off(SLOW_PIECE);
                self.write(&std::mem::replace(&mut bytes, later));
            }
            holds
        });
        bytes
    }

    /// Sends `FCUnpublish` and `deleteStream`, and waits for the answer. The connection stays open.
    pub fn goodbye(&mut self, key: &str) {
        self.command("FCUnpublish", 0, Value::Null, vec![Value::string(key)]);
        self.is_told("NetStream.Unpublish.Success");
        self.command("deleteStream", 0, Value::Null, vec![Value::Number(1.0)]);
    }

    /// Sends a frame of `length` bytes, different from every other frame.
    pub fn frame(&mut self, timestamp: u32, keyframe: bool, length: usize) {
        let mut payload = vec![if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        payload.extend(timestamp.to_be_bytes());
        payload.extend((payload.len()..length).map(|at| (at ^ (at >> 8)) as u8));
        self.message(type_id::VIDEO, timestamp, &payload);
    }

    /// Sends a protocol control message.
    pub fn control(&mut self, control: &Control) {
        let mut bytes = Vec::new();
        control.write(&mut bytes, self.chunk);
        self.write(&bytes);
    }

    fn message(&mut self, type_id: u8, timestamp: u32, payload: &[u8]) {
        let bytes = self.encoded(type_id, timestamp, payload);
        self.write(&bytes);
    }

    fn encoded(&self, type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let header = MessageHeader { csid: 6, timestamp, length: 0, type_id, stream_id: 1 };
        let mut bytes = Vec::new();
        writer::write_message(&mut bytes, &header, payload, self.chunk);
        bytes
    }

    fn command(&mut self, name: &str, stream: u32, object: Value, arguments: Vec<Value>) {
        self.transaction += 1.0;
        let mut bytes = Vec::new();
        let command = Command { name: name.to_owned(), transaction: self.transaction, object, arguments };
        command.write(&mut bytes, 3, stream, self.chunk);
        self.write(&bytes);
    }

    /// Writes all bytes, and reads meanwhile.
    pub fn write(&mut self, mut bytes: &[u8]) {
        until("the server to read", || {
            self.read();
            match self.socket.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            while let (false, Ok(written @ 1..)) = (bytes.is_empty(), self.socket.write(bytes)) {
                bytes = &bytes[written..];
            }
            bytes.is_empty()
        });
    }

    fn is_told(&mut self, what: &str) {
        until(format!("the publisher to be told {what}"), || {
            self.read();
            let told = self.told.iter().any(|told| told == what);
            assert!(told || !self.closed, "closed before {what}");
            told
        });
    }

    /// True if the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.read();
        self.closed
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while !self.closed {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
        loop {
            let before = self.ingest.position();
            let found = self.ingest.next(&self.unread).expect("a server that speaks RTMP");
            self.unread.drain(..(self.ingest.position() - before) as usize);
            match found {
                None => return,
                Some(Ingested::Message { header, payload }) if header.type_id == type_id::COMMAND_AMF0 => {
                    let command = Command::parse(header.type_id, &payload).expect("a command");
                    let status = command.argument(0).and_then(|status| status.property("code")).and_then(Value::as_str);
                    self.told.extend(status.map(str::to_owned));
                    self.told.push(command.name);
                }
                Some(_) => {}
            }
        }
    }
}
