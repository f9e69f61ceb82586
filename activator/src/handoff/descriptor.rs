//! The shell of a handoff by descriptor. In: the worker's connection, the assignment, our duplicates of socket and memory. Out: an
//! [`HandoffOutcome`], when the worker is through with the stream or dead. Meanwhile nothing but the worker's connection is in epoll, and that is
//! silent: a live stream costs this process no CPU. The rules are in `progress` and `release`. Next: the worker's `receive`.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::event;
use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::{Frame, Snapshot};
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys::{self, ProcessHandle};
use tokio::net::UnixStream;
use tracing::{debug, warn};

use super::listener::HandoffConnection;
use super::place::{ClaimedPlace, Interruption};
use super::progress::{FrameEffect, HandoffEnd, HandoffProgress, WorkerLoss};
use super::release::{self, Machine as Release};
use super::spare::PeerProcess;
use super::{AssignedStream, HandoffOutcome};
use crate::excerpt::KeptBytes;

/// Duplicates of the descriptors that the worker gets.
#[derive(Debug)]
pub(crate) struct Duplicates {
    /// The publisher's socket.
    pub(crate) socket: TcpStream,
    /// The stream's ring and state page.
    pub(crate) memory: OwnedFd,
}

impl Duplicates {
    /// The bytes that a successor would find now. The position is right although the worker reads meanwhile: it is that of one moment.
    fn kept(&self) -> Option<KeptBytes> {
        Some(KeptBytes::Memory { memory: self.memory.try_clone().ok()?, head: position(self)? })
    }
}

/// The worker that has the stream.
struct DescriptorWorker<'a> {
    stream: UnixStream,
    process: Option<&'a ProcessHandle>,
    pid: u32,
}

impl DescriptorWorker<'_> {
    /// Tells whether the worker is in another container: it can be neither looked into nor killed.
    fn is_elsewhere(&self) -> bool {
        self.pid == 0
    }
}

/// The process at the other end of the connection.
pub(crate) fn process(connection: &mut HandoffConnection) -> PeerProcess {
    let PeerSocket::Unix(stream) = &connection.wire else { return PeerProcess { handle: None, pid: 0 } };
    let pid = sys::peer(stream).map_or(0, |peer| peer.pid);
    PeerProcess { handle: ProcessHandle::of_peer(stream).ok().or(connection.process.take()), pid }
}

/// Hands the publisher over and waits for the end. `parted` gets the state of the connection when that is ours again.
pub(crate) async fn hand_over(
    connection: HandoffConnection,
    process: &PeerProcess,
    assigned: AssignedStream,
    duplicates: &Duplicates,
    place: &mut ClaimedPlace<'_>,
    parted: &mut Option<Box<Snapshot>>,
) -> HandoffOutcome {
    let HandoffConnection { wire, preface, mut reader, mut writer, .. } = connection;
    let PeerSocket::Unix(stream) = wire else {
        return HandoffOutcome::untouched();
    };
    let before = position(duplicates);
    let pid = process.pid;
    let worker = DescriptorWorker { process: process.handle.as_ref(), stream, pid };
    let mut progress = HandoffProgress::new(now());
    let end = match assign(&worker, preface, &mut writer, assigned, duplicates, &progress).await {
        Ok(()) => watch(&worker, &mut reader, &mut writer, duplicates, place, &mut progress, parted).await,
        Err(error) => {
            debug!(event = event::HANDOFF_BROKEN, %error, "worker gone before it had the stream");
            HandoffEnd::Lost(WorkerLoss::Ended)
        }
    };
    let stage = progress.stage();
    match &end {
        HandoffEnd::Done(_, reason) => debug!(event = event::HANDOFF_DONE, pid, reason, "stream done"),
        HandoffEnd::Lost(how) if how.is_fault() => {
            warn!(event = event::HANDOFF_WORKER_LOST, pid, ?stage, how = how.as_str(), "worker given up");
        }
        HandoffEnd::Lost(how) => {
            debug!(event = event::HANDOFF_WORKER_LOST, pid, ?stage, how = how.as_str(), "worker lost");
        }
        // The publisher's end tells the worker again.
        HandoffEnd::KickIgnored => {
            debug!(event = event::HANDOFF_DONE, pid, reason = "kicked", "stream done");
            drop(duplicates.socket.shutdown(Shutdown::Both));
        }
        _ => {}
    }
    let is_released = !release::is_in_doubt(&end) || released(&worker, duplicates).await;
    // The worker may have read before it gave the stream back; the kernel's count of read bytes tells.
    release::outcome(&end, stage, is_released, position(duplicates) != before)
}

fn position(duplicates: &Duplicates) -> Option<u64> {
    sys::bytes_received(&duplicates.socket).ok()
}

async fn assign(
    worker: &DescriptorWorker<'_>,
    mut bytes: Vec<u8>,
    writer: &mut Writer,
    assigned: AssignedStream,
    duplicates: &Duplicates,
    progress: &HandoffProgress,
) -> io::Result<()> {
    assigned.write(writer, &mut bytes).map_err(io::Error::other)?;
    let fds = [duplicates.socket.as_fd(), duplicates.memory.as_fd()];
    tokio::select! {
        sent = sys::send_with_fds(&worker.stream, &bytes, &fds) => sent,
        () = sleep_until(progress.poll_timeout()) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads the worker's frames until the handoff is over.
async fn watch(
    worker: &DescriptorWorker<'_>,
    reader: &mut Reader,
    writer: &mut Writer,
    duplicates: &Duplicates,
    place: &mut ClaimedPlace<'_>,
    progress: &mut HandoffProgress,
    parted: &mut Option<Box<Snapshot>>,
) -> HandoffEnd {
    // Frames for the worker, as far as its socket has not taken them.
    let mut unsent = Vec::new();
    loop {
        // Whole frames first: those of the preface's last read are here already.
        loop {
            let effect = match reader.next() {
                // Frames of the link alone.
                Ok(Some(Frame::Reply(_) | Frame::Checkpoint(_))) => return HandoffEnd::Lost(WorkerLoss::Unfit),
                Ok(Some(frame)) => {
                    let effect = progress.handle(&frame);
                    if let Frame::Parted(snapshot) = frame {
                        *parted = Some(snapshot);
                    }
                    effect
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(event = event::HANDOFF_UNREADABLE, pid = worker.pid, %error, "frame of a worker unreadable");
                    return HandoffEnd::Lost(WorkerLoss::Unreadable);
                }
            };
            match effect {
                FrameEffect::Nothing => {}
                FrameEffect::Accepted => place.accepted(),
                FrameEffect::Started => place.started(),
                FrameEffect::Over(end) => return end,
            }
        }
        tokio::select! {
            read = read(&worker.stream, reader) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return HandoffEnd::Lost(WorkerLoss::Ended),
            },
            interruption = place.interruption() => match interruption {
                Interruption::Kicked(reason) => {
                    // Only an assignment, a list or a snapshot can be too long.
                    let _ = writer.write(&mut unsent, &Frame::Kick(reason));
                    progress.kicked(now());
                }
                Interruption::Changed(list) => {
                    if let Err(error) = writer.write(&mut unsent, &Frame::Destinations(list)) {
                        warn!(event = event::DESTINATIONS_KEPT, pid = worker.pid, %error, "destinations not told to the worker");
                    }
                }
                Interruption::Asked => place.answer(duplicates.kept()),
                Interruption::Withdrawn => return HandoffEnd::Lost(WorkerLoss::Withdrawn),
            },
            written = write(&worker.stream, &unsent), if !unsent.is_empty() => match written {
                Ok(written) => drop(unsent.drain(..written)),
                Err(_) => return HandoffEnd::Lost(WorkerLoss::Ended),
            },
            () = sleep_until(progress.poll_timeout()) => {
                // The worker's frames may wait unread, because this process was stopped or is busy: they are handled before its deadline is judged.
                if let Ok(1..) = sys::read_now(&worker.stream, reader.buffer()) {
                    continue;
                }
                if let FrameEffect::Over(end) = progress.handle_timeout(now()) {
                    return end;
                }
            }
        }
    }
}

/// Reads once. Cancel safe.
async fn read(stream: &UnixStream, reader: &mut Reader) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(reader.buffer()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Writes once. Cancel safe.
async fn write(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Waits until no process but this one has the socket; false if that cannot be known.
async fn released(worker: &DescriptorWorker<'_>, duplicates: &Duplicates) -> bool {
    let pid = worker.pid;
    if pid == std::process::id() {
        // A worker within this process, as tests have it: its descriptors went with its connection.
        return true;
    }
    let Some(process) = worker.process else {
        warn!(event = event::HANDOFF_NOT_RELEASED, pid, "stream not taken over: its worker's process is not known");
        return false;
    };
    let Some(socket) = inode(duplicates) else { return false };
    let mut release = Release::new(now(), worker.is_elsewhere());
    loop {
        let mut output = release.handle(now(), look(worker, process, socket));
        if output == release::Output::Kill {
            warn!(event = event::HANDOFF_WORKER_KILLED, pid, "worker killed: it did not let go of a stream");
            let killed = process.kill();
            if let Err(error) = &killed {
                warn!(event = event::HANDOFF_NOT_RELEASED, pid, %error, "stream not taken over: its worker cannot be killed");
            }
            let input = if killed.is_ok() { look(worker, process, socket) } else { release::Input::NotKilled };
            output = release.handle(now(), input);
        }
        match output {
            release::Output::Released => return true,
            release::Output::NotReleased => {
                if worker.is_elsewhere() {
                    warn!(
                        event = event::HANDOFF_NOT_RELEASED,
                        pid, "stream not taken over: its worker lives in another container"
                    );
                }
                return false;
            }
            release::Output::Kill => {}
            release::Output::Look(at) => tokio::select! {
                _ = process.ended() => {}
                () = sleep_until(Some(at)) => {}
            },
        }
    }
}

fn look(worker: &DescriptorWorker<'_>, process: &ProcessHandle, socket: u64) -> release::Input {
    if process.has_ended().unwrap_or(false) {
        return release::Input::Ended;
    }
    let lets_go = !worker.is_elsewhere() && matches!(holds(worker.pid, socket), Ok(false));
    // The process is still alive, so its pid was not reused while we looked.
    if lets_go && !process.has_ended().unwrap_or(true) { release::Input::LetGo } else { release::Input::Holds }
}

fn inode(duplicates: &Duplicates) -> Option<u64> {
    rustix::fs::fstat(&duplicates.socket).ok().map(|stat| stat.st_ino)
}

/// Tells whether a process holds the socket.
fn holds(pid: u32, socket: u64) -> io::Result<bool> {
    let wanted = format!("socket:[{socket}]");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor that was closed meanwhile is not the one.
        if fs::read_link(entry?.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_holds_a_socket_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let memory = OwnedFd::from(socket.try_clone().unwrap());
        let duplicates = Duplicates { socket, memory };
        let (ours, inode) = (std::process::id(), inode(&duplicates).unwrap());
        assert!(holds(ours, inode).unwrap());
        drop(duplicates);
        assert!(!holds(ours, inode).unwrap());
        assert!(holds(u32::MAX, inode).is_err());
    }
}
