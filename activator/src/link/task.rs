//! The shell of a stream by link: carries the publisher's bytes to a worker and the worker's answers back. In: both connections. Out: an
//! [`HandoffOutcome`]. Bytes are written as they come, from where they were read to: one read, one vectored write. Next: the worker's `receive`.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::io;

use bytes::BytesMut;
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::handoff::frame::Reader;
use liveedgecast_common::handoff::{Assignment, Frame, PublisherEnd};
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::{event, sys};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tracing::{debug, warn};

use super::limits::{ARRIVED_READS, LEAST_BLOCK, LEAST_READ, MOST_BLOCK};
use super::machine::{Carried, Machine, Output};
use crate::accept::{ConnectionEvent, PublisherConnection, Wants};
use crate::handoff::progress::WorkerLoss;
use crate::handoff::{ClaimedPlace, HandoffConnection, HandoffOutcome, Interruption};

/// Assigns the stream to the worker and carries it until the end.
pub(crate) async fn carry(
    connection: HandoffConnection,
    assignment: Assignment,
    publisher: &mut PublisherConnection,
    carried: &mut Carried,
    place: &mut ClaimedPlace<'_>,
) -> HandoffOutcome {
    let HandoffConnection { wire, mut reader, mut writer, .. } = connection;
    let PeerSocket::Tcp(mut worker) = wire else {
        return HandoffOutcome::untouched();
    };
    let (epoch, resumed, stream_id) = (assignment.epoch, assignment.resumed, assignment.stream_id.clone());
    let mut assigned = Vec::new();
    if let Err(error) = writer.write(&mut assigned, &Frame::Assign(Box::new(assignment))) {
        warn!(event = event::LINK_NOT_ASSIGNED, stream = %stream_id, %error, "stream not assigned");
        return HandoffOutcome::untouched();
    }
    let mut link = Machine::new(now(), carried, writer, assigned);
    let (mut from_worker, to_worker) = worker.split();
    let mut blocks = Blocks { block: BytesMut::new(), room: LEAST_BLOCK };
    loop {
        frames(&mut link, &mut reader);
        write_worker(&mut link, &to_worker);
        write_publisher(&mut link, publisher);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Accepted => place.accepted(),
                Output::Started => place.started(),
                Output::Over(outcome) => {
                    match link.lost() {
                        Some(how) if how.is_fault() => {
                            warn!(event = event::LINK_WORKER_LOST, stream = %stream_id, epoch, how = how.as_str(), "worker given up");
                        }
                        Some(how) => {
                            debug!(event = event::LINK_WORKER_LOST, stream = %stream_id, epoch, how = how.as_str(), "worker lost");
                        }
                        None => {}
                    }
                    return outcome;
                }
            }
        }
        let (transmits, next) = (link.transmit(), link.poll_timeout());
        // The last bytes of a publisher that was live are to be read by the worker all the same.
        let end = !link.is_accepted() && !resumed;
        let wants = Wants { bytes: link.reads(), end, writable: link.reply().is_some() };
        tokio::select! {
            read = from_worker.read_buf(reader.buffer()) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => link.handle_lost(now(), WorkerLoss::Ended),
            },
            event = publisher.next(wants, blocks.room(wants.bytes)) => match event {
                Ok(ConnectionEvent::Bytes) => link.handle_publisher(now(), blocks.take().freeze()),
                Ok(ConnectionEvent::End) => link.handle_publisher_end(now(), PublisherEnd::Fin),
                // Writes are made at the top.
                Ok(ConnectionEvent::Writable) => {}
                Err(error) => link.handle_publisher_end(now(), end_of(&error)),
            },
            _ = to_worker.writable(), if transmits => {}
            interruption = place.interruption() => match interruption {
                Interruption::Kicked(reason) => link.kick(now(), reason),
                Interruption::Withdrawn => link.handle_lost(now(), WorkerLoss::Withdrawn),
            },
            () = sleep_until(next) => {
                if link.gives_up(now()) {
                    read_waiting(&mut link, &mut reader, from_worker.as_ref());
                }
                link.handle_timeout(now());
            }
        }
    }
}

/// The blocks that the publisher's bytes are read into.
struct Blocks {
    block: BytesMut,
    /// Size of the next block.
    room: usize,
}

impl Blocks {
    /// The block, with room for a read if the publisher is read.
    fn room(&mut self, reads: bool) -> &mut BytesMut {
        if reads && self.block.capacity() < LEAST_READ {
            self.block = BytesMut::with_capacity(self.room);
        }
        &mut self.block
    }

    /// The bytes that were read. A read that has filled its block makes the next block larger.
    fn take(&mut self) -> BytesMut {
        if self.block.len() == self.block.capacity() {
            self.room = (self.room * 2).min(MOST_BLOCK);
        }
        self.block.split()
    }
}

fn end_of(error: &io::Error) -> PublisherEnd {
    // TCP keepalive gives up with a time-out.
    if error.kind() == io::ErrorKind::TimedOut { PublisherEnd::Silent } else { PublisherEnd::Reset }
}

fn frames(link: &mut Machine<'_>, reader: &mut Reader) {
    let now = now();
    loop {
        match reader.next() {
            Ok(Some(frame)) => link.handle_frame(now, frame),
            Ok(None) => return,
            Err(error) => {
                warn!(event = event::LINK_UNREADABLE, %error, "frame of a worker unreadable");
                link.handle_lost(now, WorkerLoss::Unreadable);
                return;
            }
        }
    }
}

/// Takes the frames of the worker that wait in the kernel.
fn read_waiting(link: &mut Machine<'_>, reader: &mut Reader, worker: &TcpStream) {
    for _ in 0..ARRIVED_READS {
        match sys::read_now(worker, reader.buffer()) {
            Ok(0) => return link.handle_lost(now(), WorkerLoss::Ended),
            Ok(_) => frames(link, reader),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return link.handle_lost(now(), WorkerLoss::Ended),
        }
    }
}

fn write_worker(link: &mut Machine<'_>, worker: &WriteHalf<'_>) {
    while link.transmit() {
        match worker.try_write_vectored(&link.slices()) {
            Ok(written) => link.transmitted(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return link.handle_lost(now(), WorkerLoss::Ended),
        }
    }
}

fn write_publisher(link: &mut Machine<'_>, publisher: &PublisherConnection) {
    while let Some(bytes) = link.reply() {
        match publisher.try_write(bytes) {
            Ok(written) => link.replied(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Reading tells how it ended.
            Err(_) => return link.handle_publisher_end(now(), PublisherEnd::Reset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_takes_memory_only_while_the_publisher_is_read() {
        let mut blocks = Blocks { block: BytesMut::new(), room: LEAST_BLOCK };
        assert_eq!(blocks.room(false).capacity(), 0);
        assert_eq!(blocks.room(true).capacity(), LEAST_BLOCK);
    }
}
