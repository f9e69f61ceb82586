//! Holds a publisher and outlives its readers. In: a publisher's connection. Out: readers, one after the other.
#![expect(clippy::disallowed_methods, reason = "shell: a kill at a random moment is a matter of time")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::preface::Step;
use liveedgecast_common::handoff::{ActivatorSide, Assignment, Destination, Frame, Policy, Snapshot, Transport, page};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::random;
use liveedgecast_common::rtmp::handshake::{HANDSHAKE_BYTES, Handshake};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::sys::ring_memory::reuse;
use liveedgecast_common::sys::{ProcessHandle, RingMemory, UnmappedRing, send_with_fds};
use liveedgecast_common::url::PushTemplate;
use tokio::net::UnixStream;

use super::{secret, send_all};

/// Bytes of the ring: half a minute of the stream, so that no series of early kills overruns it.
const RING_BYTES: usize = 8 << 20;

/// A publisher that has sent `publish`.
#[derive(Debug)]
pub struct TakeoverHolder {
    socket: TcpStream,
    memory: OwnedFd,
    client: SocketAddr,
    snapshot: Snapshot,
    /// Number of readers so far.
    readers: u64,
    /// The publisher's end of the connection, for a publisher of this process.
    _publisher: Option<TcpStream>,
}

/// A running reader.
#[derive(Debug)]
pub struct RunningReader {
    child: Child,
    handle: ProcessHandle,
    control: UnixStream,
    frames: Reader,
}

impl TakeoverHolder {
    /// Accepts a publisher and answers it up to `publish`. `memory`: that of a stream that has ended; otherwise its ring is new.
    ///
    /// # Errors
    /// The publisher does not send `publish`.
    pub fn accept(listener: &TcpListener, memory: Option<OwnedFd>) -> anyhow::Result<Self> {
        let (mut socket, client) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut handshake = Handshake::server();
        let mut unread = Vec::new();
        while !handshake.is_done() {
            fill(&mut socket, &mut unread)?;
            let progress = handshake.handle(&unread)?;
            unread.drain(..progress.used);
            socket.write_all(&progress.output)?;
        }
        let mut session = ServerSession::new(HANDSHAKE_BYTES);
        loop {
            let start = session.position();
            let event = session.next(&unread)?;
            unread.drain(..(session.position() - start) as usize);
            socket.write_all(&session.take_output())?;
            match event {
                Some(Event::Publish) => break,
                Some(_) => {}
                None => fill(&mut socket, &mut unread)?,
            }
        }
        socket.set_nonblocking(true)?;
        let snapshot = Snapshot { session: session.state(), stream: None, unread };
        let memory = memory.map_or_else(|| RingMemory::create(RING_BYTES), Ok)?;
        Ok(Self { socket, memory, client, snapshot, readers: 0, _publisher: None })
    }

    /// The memory of the stream, whose last reader has ended in order, for another stream.
    ///
    /// # Errors
    /// A reader has it mapped, or was killed.
    pub fn into_memory(self) -> anyhow::Result<OwnedFd> {
        ensure!(reuse::is_left(&self.memory), "the last reader has not left the memory");
        reuse::clear(&self.memory)?;
        Ok(self.memory)
    }

    /// Rebuilds the state that a reader leaves behind which wrote `snapshot`, then received `following` as well, and was killed; the
    /// publisher has closed its side.
    ///
    /// # Errors
    /// A system call fails, or the snapshot is not one of a stream.
    pub fn left_behind(snapshot: Snapshot, following: &[u8]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut publisher = TcpStream::connect(listener.local_addr()?)?;
        let (mut socket, client) = listener.accept()?;
        // The kernel must count as many received bytes as the position says; their values come from the ring.
        let position = snapshot.session.position();
        let mut buffer = [0; 4096];
        let mut left = position as usize + following.len();
        while left > 0 {
            let part = &mut buffer[..left.min(4096)];
            publisher.write_all(part)?;
            socket.read_exact(part)?;
            left -= part.len();
        }
        publisher.shutdown(Shutdown::Write)?;
        socket.set_nonblocking(true)?;

        let memory = RingMemory::create(RING_BYTES)?;
        let mut ring = UnmappedRing::check(memory.try_clone()?)?.map()?;
        while ring.capacity() < following.len() && ring.grow(position, position) {}
        ring.space(position, following.len()).copy_from_slice(following);
        ensure!(page::publish(ring.page_mut(), &snapshot), "the snapshot is too large");
        Ok(Self { socket, memory, client, snapshot, readers: 1, _publisher: Some(publisher) })
    }

    /// Starts `program` as the next reader and hands over everything. The reader publishes to `url` and writes its messages into `log`.
    ///
    /// # Errors
    /// The program cannot be started, or does not take the handoff.
    pub async fn start_reader(&mut self, program: &str, url: &str, log: &Path) -> anyhow::Result<RunningReader> {
        self.readers += 1;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let control = UnixStream::from_std(ours)?;
        let child = Command::new(program).arg(log).stdin(OwnedFd::from(theirs)).spawn()?;
        let handle = ProcessHandle::open(child.id())?;
        let (frames, mut writer) = prove(&control).await?;
        let mut bytes = Vec::new();
        writer.write(&mut bytes, &Frame::Assign(Box::new(self.assignment(url)?)))?;
        send_with_fds(&control, &bytes, &[self.socket.as_fd(), self.memory.as_fd()]).await?;
        Ok(RunningReader { child, handle, control, frames })
    }

    fn assignment(&self, url: &str) -> anyhow::Result<Assignment> {
        let publish = ServerSession::restore(&self.snapshot.session)?.publish().cloned().context("a publish")?;
        let url = PushTemplate::parse(url)?.resolve("live", &publish.key)?;
        Ok(Assignment {
            stream_id: StreamId::from_bytes(self.readers.to_be_bytes()),
            epoch: self.readers,
            activator: "holder".to_owned(),
            client: self.client,
            app: AppName::parse("live")?,
            key: publish.key,
            identities: Vec::new(),
            destinations: vec![Destination { url, required: true }],
            policy: Policy {
                hold_left: Duration::from_secs(60),
                grace: Duration::ZERO,
                replay_time: Duration::from_secs(4),
                replay_bytes: RING_BYTES as u64,
                lag_time: Duration::from_secs(2),
                lag_bytes: RING_BYTES as u64,
            },
            transport: Transport::Descriptor,
            resumed: self.readers > 1,
            snapshot: self.snapshot.clone(),
        })
    }
}

fn fill(socket: &mut TcpStream, unread: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    let length = socket.read(&mut buffer)?;
    ensure!(length > 0, "the publisher left before it had published");
    unread.extend_from_slice(&buffer[..length]);
    Ok(())
}

async fn prove(control: &UnixStream) -> anyhow::Result<(Reader, Writer)> {
    let mut preface = ActivatorSide::new(&secret(), random::bytes());
    loop {
        control.readable().await?;
        let mut buffer = [0; 256];
        let length = match control.try_read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            length => length?,
        };
        ensure!(length > 0, "the reader ended before it was given anything");
        let progress = preface.handle(&buffer[..length]);
        send_all(control, &progress.output).await?;
        match progress.step {
            Step::More => {}
            Step::Done(keys) => return Ok(keys.activator_end()),
            Step::Failed(error) => bail!(error),
        }
    }
}

impl RunningReader {
    /// Kills the reader after `time` and waits until it has gone. `Some` if it had ended by itself before.
    ///
    /// # Errors
    /// A system call fails.
    pub async fn kill_after(mut self, time: Duration) -> anyhow::Result<Option<std::process::ExitStatus>> {
        let ended = tokio::time::timeout(time, self.handle.ended()).await.is_ok();
        self.handle.kill()?;
        self.handle.ended().await?;
        let status = self.child.wait()?;
        Ok(ended.then_some(status))
    }

    /// Waits until the reader has sent `Publish.Start` to the publisher, or has found that a predecessor did.
    ///
    /// # Errors
    /// The reader ended before.
    pub async fn started(&mut self) -> anyhow::Result<()> {
        loop {
            while let Some(frame) = self.frames.next()? {
                if frame == Frame::Started {
                    return Ok(());
                }
            }
            self.control.readable().await?;
            match self.control.try_read_buf(self.frames.buffer()) {
                Ok(0) => bail!("the reader ended before it had started"),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// Waits until the reader ends by itself, because the publisher did.
    ///
    /// # Errors
    /// The reader takes longer than `limit`, or fails.
    pub async fn end(mut self, limit: Duration) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(limit, self.handle.ended()).await;
        if ended.is_err() {
            self.handle.kill()?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the last reader: {status}");
        Ok(())
    }
}
