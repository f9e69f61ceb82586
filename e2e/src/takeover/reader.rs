//! A reader: the smallest part of a worker that the experiment needs. In: the socket, the ring and a snapshot, from the holder. Out: the
//! stream at one upstream, a state page from which a successor can continue, and a log of every message, for the test to compare.
//!
//! Note: the page must not describe the newest keyframe. It describes the newest one before which the upstream's kernel has acknowledged
//! everything; otherwise bytes that were read but not delivered would be lost with the reader, although they still lie in the ring.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use liveedgecast_common::handoff::frame::{Reader as FrameReader, Writer as FrameWriter};
use liveedgecast_common::handoff::preface::Step;
use liveedgecast_common::handoff::{
    Assignment, Frame, LastTimestamps, OpenMessage, Snapshot, StoredHeader, StreamState, WorkerSide, page,
};
use liveedgecast_common::random;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession};
use liveedgecast_common::rtmp::media::{Kind, inspect};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::rtmp::{MessageHeader, Scanned, type_id, writer};
use liveedgecast_common::sys::{self, RingMemory, UnmappedRing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{LogLine, secret, send_all};

/// Timestamp of the first message of an upstream session: audio behind a keyframe that is a little older stays above 0.
const FIRST_TIMESTAMP: u32 = 500;
/// Largest number of bytes per read.
const READ_BYTES: usize = 64 << 10;

/// Chunk stream for a message type.
const fn csid(type_id: u8) -> u32 {
    match type_id {
        type_id::AUDIO => 4,
        type_id::VIDEO => 6,
        _ => 5,
    }
}

/// A message whose bytes are still arriving.
struct PartialMessage {
    header: MessageHeader,
    begins: u64,
    received: Vec<u8>,
    /// Snapshot as of the message's first chunk, for a successor to begin with if it is a keyframe.
    before: Option<Box<Snapshot>>,
}

/// A complete message.
struct WholeMessage {
    type_id: u8,
    timestamp: u32,
    payload: Vec<u8>,
    /// Snapshot in front of a keyframe, with which a successor may begin.
    before: Option<Box<Snapshot>>,
}

/// Reads a stream until it ends.
///
/// # Errors
/// An error that would lose a byte of the stream.
pub async fn run(control: UnixStream, log: &Path) -> anyhow::Result<()> {
    let (assignment, fds, mut frames) = take(&control).await?;
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut stream = ReaderStream::new(&assignment, fds, log)?;
    let headers = stream.state.headers.clone();
    stream.scan()?;
    let mut upstream = ReaderUpstream::connect(&assignment, headers).await?;
    let mut told = false;
    loop {
        if upstream.live {
            if !stream.session.is_started() {
                stream.start()?;
            }
            if !told {
                told = true;
                let mut bytes = Vec::new();
                frames.write(&mut bytes, &Frame::Started)?;
                send_all(&control, &bytes).await?;
            }
            upstream.take(&mut stream.messages);
            stream.publish(&mut upstream)?;
        }
        stream.answer()?;
        if stream.ended && stream.messages.is_empty() {
            stream.log(&LogLine::End { position: stream.head })?;
            return upstream.end().await;
        }
        tokio::select! {
            ready = stream.socket.readable(), if !stream.ended && stream.has_room() => { ready?; stream.read()?; stream.scan()?; }
            ready = upstream.socket.readable() => { ready?; upstream.read()?; }
            ready = upstream.socket.writable(), if upstream.written < upstream.queued => { ready?; upstream.write()?; }
        }
    }
}

/// Authenticates to the holder and takes the assignment.
async fn take(control: &UnixStream) -> anyhow::Result<(Assignment, Vec<OwnedFd>, FrameWriter)> {
    let (mut preface, hello) = WorkerSide::new(&secret(), random::bytes(), random::bytes());
    send_all(control, &hello).await?;
    let mut buffer = vec![0; READ_BYTES];
    let mut fds = Vec::new();
    let mut ends: Option<(FrameReader, FrameWriter)> = None;
    loop {
        let length = sys::recv_with_fds(control, &mut buffer, &mut fds).await?;
        ensure!(length > 0, "the holder has gone");
        let mut input = &buffer[..length];
        if ends.is_none() {
            let progress = preface.handle(input);
            send_all(control, &progress.output).await?;
            input = &input[progress.used..];
            match progress.step {
                Step::More => continue,
                Step::Done(keys) => ends = Some(keys.worker_end()),
                Step::Failed(error) => bail!(error),
            }
        }
        let Some((mut reader, writer)) = ends.take() else { continue };
        reader.buffer().extend_from_slice(input);
        match reader.next()? {
            Some(Frame::Assign(assignment)) => return Ok((*assignment, fds, writer)),
            Some(other) => bail!("instead of an assignment: {other:?}"),
            None => ends = Some((reader, writer)),
        }
    }
}

/// The publisher's side of the stream.
struct ReaderStream {
    socket: TcpStream,
    ring: RingMemory,
    session: ServerSession,
    /// Position behind the last byte in the ring.
    head: u64,
    /// Position at which a successor begins: bytes from here on stay in the ring.
    page: u64,
    state: StreamState,
    open: Vec<PartialMessage>,
    messages: VecDeque<WholeMessage>,
    /// Complete messages that go behind the keyframe with which the stream resumes, while that is still arriving. `None`: no resume.
    early: Option<Vec<WholeMessage>>,
    log: File,
    /// True if the publisher has closed its side and its last bytes have been read.
    ended: bool,
}

impl ReaderStream {
    fn new(assignment: &Assignment, fds: Vec<OwnedFd>, log: File) -> anyhow::Result<Self> {
        let [socket, memory] = <[OwnedFd; 2]>::try_from(fds).ok().context("a socket and a ring")?;
        let socket = TcpStream::from_std(std::net::TcpStream::from(socket))?;
        let mut ring = UnmappedRing::check(memory)?.map()?;
        // No process has read since the predecessor died, nor will one until the position is known.
        let head = sys::bytes_received(&socket)?;
        let given = &assignment.snapshot;
        let published = page::read(ring.page()).filter(|_| assignment.resumed);
        let usable = |snapshot: &Snapshot| {
            let position = snapshot.session.position();
            (given.session.position()..=head).contains(&position) && head - position <= ring.capacity() as u64
        };
        let (snapshot, from_page) = match published.filter(usable) {
            Some(snapshot) => (snapshot, true),
            None => (given.clone(), false),
        };
        ensure!(usable(&snapshot), "the ring does not reach back to where the stream can be understood");
        let session = ServerSession::restore(&snapshot.session)?;
        let position = session.position();
        // Every reader that begins here writes these bytes again: the first one may have died before it did.
        ring.space(position, snapshot.unread.len()).copy_from_slice(&snapshot.unread);
        let state = snapshot.stream.clone().unwrap_or_default();
        let mut open = Vec::new();
        for (header, received) in snapshot.session.open_media() {
            let kept = state.open.iter().find(|open| open.csid == header.csid);
            let kept = kept.filter(|open| open.received.len() == received as usize);
            let received = kept.context("the beginning of an open message")?.received.clone();
            open.push(PartialMessage { header, begins: 0, received, before: None });
        }
        let mut this = Self {
            socket,
            ring,
            session,
            head,
            page: position,
            state,
            open,
            messages: VecDeque::new(),
            early: snapshot.stream.map(|_| Vec::new()),
            log,
            ended: false,
        };
        this.log(&LogLine::Begin { position, head, from_page })?;
        Ok(this)
    }

    fn log(&mut self, line: &LogLine) -> io::Result<()> {
        // A single call: the line is written or not, even if the process is killed.
        self.log.write_all(format!("{line}\n").as_bytes())
    }

    /// True if the ring has room, for which its lap may grow. Bytes that a successor needs stay in the ring: where a worker would skip, the
    /// publisher waits here.
    fn has_room(&mut self) -> bool {
        let needed = self.head - self.page + READ_BYTES as u64;
        while needed > self.ring.capacity() as u64 && self.ring.grow(self.page, self.head) {}
        needed <= self.ring.capacity() as u64
    }

    /// Reads once, straight into the ring.
    fn read(&mut self) -> anyhow::Result<()> {
        match self.socket.try_read(self.ring.space(self.head, READ_BYTES)) {
            Ok(0) => self.ended = true,
            Ok(length) => self.head += length as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Parses the bytes in the ring.
    fn scan(&mut self) -> anyhow::Result<()> {
        loop {
            let position = self.session.position();
            let bytes = self.ring.bytes(position, (self.head - position) as usize);
            match self.session.next(bytes)? {
                None => return Ok(()),
                Some(Event::Media(Scanned::Begin { header, at })) => {
                    let before = (header.type_id == type_id::VIDEO).then(|| Box::new(self.before()));
                    self.open.push(PartialMessage { header, begins: at, received: Vec::new(), before });
                }
                Some(Event::Media(Scanned::Payload { csid, at, len, last })) => {
                    let index =
                        self.open.iter().position(|open| open.header.csid == csid).context("an open message")?;
                    self.open[index].received.extend_from_slice(self.ring.bytes(at, len as usize));
                    if last {
                        let whole = self.open.remove(index);
                        self.complete(whole)?;
                    }
                }
                Some(Event::Media(Scanned::Aborted { csid, .. })) => self.open.retain(|open| open.header.csid != csid),
                Some(_) => {}
            }
        }
    }

    /// A snapshot as of the first byte of the message that has just begun.
    fn before(&self) -> Snapshot {
        let open = self.open.iter();
        let open = open.map(|open| OpenMessage { csid: open.header.csid, received: open.received.clone() });
        let stream = StreamState { open: open.collect(), began_with_keyframe: true, ..self.state.clone() };
        Snapshot { session: self.session.state_before_chunk(), stream: Some(stream), unread: Vec::new() }
    }

    fn complete(&mut self, whole: PartialMessage) -> anyhow::Result<()> {
        let PartialMessage { header: MessageHeader { timestamp, type_id, .. }, begins, received: payload, before } =
            whole;
        self.log(&LogLine::Message { begins, type_id, timestamp, payload: LogLine::digest(&payload) })?;
        let inspection = inspect(type_id, &payload);
        let LastTimestamps { audio, video, data } = &mut self.state.last_timestamp;
        let last = match inspection.kind {
            Kind::Audio => audio,
            Kind::Video => video,
            Kind::Data => data,
        };
        if inspection.header.is_none() || inspection.kind == Kind::Data {
            *last = Some(timestamp);
        }
        if let Some(slot) = inspection.header {
            self.state.headers.retain(|header| header.slot != slot);
            self.state.headers.push(StoredHeader { slot, type_id, timestamp, payload: payload.clone() });
            self.state.headers.sort_by_key(|header| header.slot);
        }
        let before = before.filter(|_| inspection.keyframe);
        let message = WholeMessage { type_id, timestamp, payload, before };
        match &mut self.early {
            Some(early) if !inspection.keyframe => early.push(message),
            early => {
                self.messages.push_back(message);
                self.messages.extend(early.take().into_iter().flatten());
            }
        }
        Ok(())
    }

    /// Sends `Publish.Start` to the publisher. Until media arrives, the page tells a successor that it was sent.
    fn start(&mut self) -> anyhow::Result<()> {
        self.session.accept_publish();
        self.answer()?;
        if self.messages.is_empty() && self.open.is_empty() && self.state == StreamState::default() {
            let snapshot = Snapshot { session: self.session.state(), stream: None, unread: Vec::new() };
            ensure!(page::publish(self.ring.page_mut(), &snapshot), "the snapshot is too large");
            self.page = self.session.position();
        }
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let output = self.session.take_output();
        if !output.is_empty() {
            // A few bytes at a time: they fit, or the publisher has gone.
            ensure!(self.socket.try_write(&output)? == output.len(), "the publisher does not read");
        }
        Ok(())
    }

    /// Publishes the newest keyframe before which the upstream has acknowledged everything. The bytes before it need no room any more, so
    /// the lap grows and shrinks with each group of pictures: far more often than a worker's.
    fn publish(&mut self, upstream: &mut ReaderUpstream) -> anyhow::Result<()> {
        if let Some(snapshot) = upstream.acknowledged_keyframe()? {
            ensure!(page::publish(self.ring.page_mut(), &snapshot), "the snapshot is too large");
            self.page = snapshot.session.position();
            while self.ring.shrink(self.page, self.head) {}
        }
        Ok(())
    }
}

/// The upstream's side of the stream.
struct ReaderUpstream {
    socket: TcpStream,
    client: ClientSession,
    output: VecDeque<u8>,
    /// Bytes that were ever put into `output`, and that were ever written.
    queued: u64,
    written: u64,
    live: bool,
    /// Headers to be sent before the first message.
    headers: Vec<StoredHeader>,
    /// Offset that is added to the publisher's timestamps, from the first message on.
    offset: Option<u32>,
    /// Keyframes that were queued, with how many bytes were queued before them.
    marks: VecDeque<(u64, Box<Snapshot>)>,
}

impl ReaderUpstream {
    async fn connect(assignment: &Assignment, headers: Vec<StoredHeader>) -> anyhow::Result<Self> {
        let url = &assignment.destinations.first().context("a destination")?.url;
        let socket = TcpStream::connect((url.host.as_str(), url.port)).await?;
        socket.set_nodelay(true)?;
        let mut client = ClientSession::new(url, None);
        client.start();
        let (output, marks) = (VecDeque::new(), VecDeque::new());
        let mut this =
            Self { socket, client, output, queued: 0, written: 0, live: false, headers, offset: None, marks };
        this.queue_control();
        Ok(this)
    }

    fn queue(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        self.queued += bytes.len() as u64;
    }

    fn queue_control(&mut self) {
        let bytes = self.client.take_output();
        self.queue(&bytes);
    }

    fn queue_message(&mut self, type_id: u8, timestamp: u32, payload: &[u8]) {
        let stream_id = self.client.message_stream();
        let header = MessageHeader { csid: csid(type_id), timestamp, length: 0, type_id, stream_id };
        let mut bytes = Vec::new();
        writer::write_message(&mut bytes, &header, payload, self.client.chunk_size());
        self.queue(&bytes);
    }

    /// Queues all complete messages; the headers in force go before the first one.
    fn take(&mut self, messages: &mut VecDeque<WholeMessage>) {
        for message in messages.drain(..) {
            let offset = *self.offset.get_or_insert(FIRST_TIMESTAMP.wrapping_sub(message.timestamp));
            for StoredHeader { type_id, payload, .. } in std::mem::take(&mut self.headers) {
                self.queue_message(type_id, 0, &payload);
            }
            if let Some(before) = message.before {
                self.marks.push_back((self.queued, before));
            }
            self.queue_message(message.type_id, message.timestamp.wrapping_add(offset), &message.payload);
        }
    }

    fn acknowledged_keyframe(&mut self) -> anyhow::Result<Option<Box<Snapshot>>> {
        let acknowledged = self.written - u64::from(sys::unsent(&self.socket)?);
        let count = self.marks.iter().take_while(|(before, _)| *before <= acknowledged).count();
        Ok(self.marks.drain(..count).next_back().map(|(_, snapshot)| snapshot))
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        match self.socket.try_read(&mut buffer) {
            Ok(0) => bail!("the upstream has gone"),
            Ok(length) => self.client.handle(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Started => self.live = true,
                ClientEvent::Acknowledged(_) => {}
                other => bail!("the upstream says {other:?}"),
            }
        }
        self.queue_control();
        Ok(())
    }

    fn write(&mut self) -> anyhow::Result<()> {
        match self.socket.try_write(self.output.as_slices().0) {
            Ok(length) => {
                self.output.drain(..length);
                self.written += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Says goodbye, and closes when the upstream does: an earlier close could lose bytes that it has not read.
    async fn end(mut self) -> anyhow::Result<()> {
        self.client.end();
        self.queue_control();
        while self.written < self.queued {
            self.socket.writable().await?;
            self.write()?;
        }
        self.socket.shutdown().await?;
        let mut rest = Vec::new();
        // An error ends the connection as well.
        let _ = self.socket.read_to_end(&mut rest).await;
        Ok(())
    }
}
