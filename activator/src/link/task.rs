//! Carries one stream to a worker and the worker's answers back. In: both sockets. Out: an [`Outcome`]. Bytes are written as they come,
//! from where they were read to: one read, one vectored write.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::io;

use bytes::BytesMut;
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::handoff::frame::Reader;
use liveedgecast_common::handoff::{Assignment, Frame, PublisherEnd};
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tracing::{debug, warn};

use super::limits::{ARRIVED_READS, LEAST_BLOCK, LEAST_READ, MOST_BLOCK};
use super::machine::{Carried, Link, Output};
use crate::handoff::claim::{Claim, Told};
use crate::handoff::progress::Loss;
use crate::handoff::{HandoffConnection, Outcome};

/// Hands over and carries until the end.
pub(crate) async fn carry(
    connection: HandoffConnection,
    assignment: Assignment,
    publisher: &mut TcpStream,
    carried: &mut Carried,
    claim: &mut Claim<'_>,
) -> Outcome {
    let HandoffConnection { wire, mut reader, mut writer, .. } = connection;
    let PeerSocket::Tcp(mut worker) = wire else {
        return Outcome::untouched();
    };
    let (epoch, resumed, stream_id) = (assignment.epoch, assignment.resumed, assignment.stream_id.clone());
    let mut assigned = Vec::new();
    if let Err(error) = writer.write(&mut assigned, &Frame::Assign(Box::new(assignment))) {
        warn!(%stream_id, %error, "link: a stream that cannot be put into a frame");
        return Outcome::untouched();
    }
    let mut link = Link::new(now(), carried, writer, assigned);
    let (mut from_worker, to_worker) = worker.split();
    let (from_publisher, to_publisher) = publisher.split();
    let mut from_publisher = Publisher { half: from_publisher, block: BytesMut::new(), room: LEAST_BLOCK };
    loop {
        frames(&mut link, &mut reader);
        write_worker(&mut link, &to_worker);
        write_publisher(&mut link, &to_publisher);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Taken => claim.taken(),
                Output::Started => claim.started(),
                Output::Over(outcome) => {
                    match link.lost() {
                        Some(how) if how.is_fault() => {
                            warn!(%stream_id, epoch, how = how.as_str(), "link: a worker is given up");
                        }
                        Some(how) => debug!(%stream_id, epoch, how = how.as_str(), "link: a worker is lost"),
                        None => {}
                    }
                    return outcome;
                }
            }
        }
        let (transmits, replies, next) = (link.transmit(), link.reply().is_some(), link.poll_timeout());
        // Of one that was live, the last bytes are to be read by the worker all the same.
        let wants = Wants { bytes: link.reads(), end: !link.is_accepted() && !resumed };
        tokio::select! {
            read = from_worker.read_buf(reader.buffer()) => match read {
                Ok(0) => link.handle_lost(now(), Loss::Ended),
                Ok(_) => {}
                Err(_) => link.handle_lost(now(), Loss::Ended),
            },
            read = from_publisher.next(wants) => match read {
                Ok(bytes) if !bytes.is_empty() => link.handle_publisher(now(), bytes.freeze()),
                Ok(_) => link.handle_publisher_end(now(), PublisherEnd::Fin),
                Err(error) => link.handle_publisher_end(now(), end_of(&error)),
            },
            // What is writable is written at the top.
            _ = to_worker.writable(), if transmits => {}
            _ = to_publisher.writable(), if replies => {}
            told = claim.told() => match told {
                Told::Kicked(reason) => link.kick(now(), reason),
                Told::Withdrawn => link.handle_lost(now(), Loss::Withdrawn),
            },
            () = sleep_until(next) => {
                if link.gives_up(now()) {
                    arrived(&mut link, &mut reader, from_worker.as_ref());
                }
                link.handle_timeout(now());
            }
        }
    }
}

/// What is waited for on the publisher's socket.
#[derive(Clone, Copy)]
struct Wants {
    bytes: bool,
    end: bool,
}

struct Publisher<'a> {
    half: ReadHalf<'a>,
    block: BytesMut,
    room: usize,
}

impl Publisher<'_> {
    /// Its next bytes; none is its end. Cancel safe.
    async fn next(&mut self, wants: Wants) -> io::Result<BytesMut> {
        if !wants.bytes {
            if !wants.end {
                return std::future::pending().await;
            }
            // Ready with the end alone: see `publisher::task`.
            self.half.ready(Interest::PRIORITY).await?;
            return Ok(BytesMut::new());
        }
        if self.block.capacity() < LEAST_READ {
            self.block = BytesMut::with_capacity(self.room);
        }
        let room = self.block.capacity();
        let read = self.half.read_buf(&mut self.block).await?;
        if read == room {
            self.room = (self.room * 2).min(MOST_BLOCK);
        }
        Ok(self.block.split())
    }
}

fn end_of(error: &io::Error) -> PublisherEnd {
    // TCP keepalive gave up.
    if error.kind() == io::ErrorKind::TimedOut { PublisherEnd::Silent } else { PublisherEnd::Reset }
}

fn frames(link: &mut Link<'_>, reader: &mut Reader) {
    let now = now();
    loop {
        match reader.next() {
            Ok(Some(frame)) => link.handle_frame(now, frame),
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "link: the worker cannot be understood");
                link.handle_lost(now, Loss::Unreadable);
                return;
            }
        }
    }
}

/// Takes what the worker has said and the kernel has kept.
fn arrived(link: &mut Link<'_>, reader: &mut Reader, worker: &TcpStream) {
    for _ in 0..ARRIVED_READS {
        match sys::read_now(worker, reader.buffer()) {
            Ok(0) => return link.handle_lost(now(), Loss::Ended),
            Ok(_) => frames(link, reader),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return link.handle_lost(now(), Loss::Ended),
        }
    }
}

fn write_worker(link: &mut Link<'_>, worker: &WriteHalf<'_>) {
    while link.transmit() {
        match worker.try_write_vectored(&link.slices()) {
            Ok(written) => link.transmitted(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return link.handle_lost(now(), Loss::Ended),
        }
    }
}

fn write_publisher(link: &mut Link<'_>, publisher: &WriteHalf<'_>) {
    while let Some(bytes) = link.reply() {
        match publisher.try_write(bytes) {
            Ok(written) => link.replied(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Reading tells how it ended.
            Err(_) => return link.handle_publisher_end(now(), PublisherEnd::Reset),
        }
    }
}
