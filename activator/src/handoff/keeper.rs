//! A publisher that went to a worker by descriptor. In: the worker's connection, the assignment, our duplicates of socket and memory. Out:
//! an [`Outcome`], when the worker is through with it or dead. Meanwhile nothing but the worker's connection is in epoll, and that
//! is silent: a live stream costs this process no CPU.
//!
//! Two readers of one connection would tear it apart without a trace. So a worker whose connection ended is not believed dead: its
//! process has ended, or it lives and holds the socket no longer (`/proc` shows which sockets a process has), or it is killed; and where
//! none of that can be known there is no takeover. A worker in another container can be neither looked into nor killed; that its process
//! has ended is known there too, and that it has given a stream back is believed, for it lets go of the socket before it says so.
//!
//! What surprised us: the connection of a dying process closes before the process has ended, and a worker whose one task has died lives on
//! with all the others' streams: killing it at the first sign would take them all.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::{Assignment, Frame, Snapshot};
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys::{self, ProcessHandle};
use tokio::net::UnixStream;
use tracing::{debug, warn};

use super::Outcome;
use super::claim::{Claim, Told};
use super::desk::HandoffConnection;
use super::limits::{DEATH_TIME, RELEASE_LOOK, RELEASE_TIME};
use super::progress::{End, Heard, Loss, Progress, Stage};

/// Our duplicates of what the worker gets.
#[derive(Debug)]
pub(crate) struct Duplicates {
    /// The publisher's socket.
    pub(crate) socket: TcpStream,
    /// The stream's ring and state page.
    pub(crate) memory: OwnedFd,
}

/// Who has the stream.
struct Worker {
    stream: UnixStream,
    process: Option<ProcessHandle>,
    /// 0: its processes are not among ours.
    pid: u32,
}

impl Worker {
    /// Whether it is in another container: nobody can look what it has, or kill it.
    fn is_elsewhere(&self) -> bool {
        self.pid == 0
    }
}

/// Hands over and waits for the end. `parted` gets the state of the connection when it is ours again.
pub(crate) async fn keep(
    connection: HandoffConnection,
    assignment: Assignment,
    duplicates: &Duplicates,
    claim: &mut Claim<'_>,
    parted: &mut Option<Box<Snapshot>>,
) -> Outcome {
    let HandoffConnection { wire, mut reader, mut writer, process } = connection;
    let PeerSocket::Unix(stream) = wire else {
        return Outcome::untouched();
    };
    let before = position(duplicates);
    let pid = sys::peer(&stream).map_or(0, |peer| peer.pid);
    let worker = Worker { process: ProcessHandle::of_peer(&stream).ok().or(process), stream, pid };
    let mut progress = Progress::new(now());
    let end = match hand_over(&worker, &mut writer, assignment, duplicates, &progress).await {
        Ok(()) => watch(&worker, &mut reader, &mut writer, duplicates, claim, &mut progress, parted).await,
        Err(error) => {
            debug!(%error, "handoff: the worker was gone before it had the stream");
            End::Lost(Loss::Ended)
        }
    };
    let stage = progress.stage();
    let (accepted, started) = (stage >= Stage::Accepted, stage >= Stage::Started);
    match end {
        End::Duplicate => Outcome::Duplicate,
        End::Done(how, reason) => {
            debug!(reason, "handoff: the stream is done");
            Outcome::Done(how)
        }
        End::Parted if worker.is_elsewhere() || released(&worker, duplicates).await => Outcome::Parted,
        End::Returned(why) if worker.is_elsewhere() || released(&worker, duplicates).await => {
            // It may have read before it thought better of it; the kernel knows.
            Outcome::Returned { why, touched: accepted || position(duplicates) != before, started }
        }
        End::Lost(how) => {
            let pid = worker.pid;
            if how.is_fault() {
                warn!(pid, accepted, how = how.as_str(), "handoff: a worker is given up");
            } else {
                debug!(pid, accepted, how = how.as_str(), "handoff: a worker is lost");
            }
            if released(&worker, duplicates).await {
                Outcome::Lost { accepted, touched: accepted || position(duplicates) != before, started }
            } else {
                Outcome::NotReleased
            }
        }
        End::Returned(_) | End::Parted => Outcome::NotReleased,
    }
}

fn position(duplicates: &Duplicates) -> Option<u64> {
    sys::bytes_received(&duplicates.socket).ok()
}

async fn hand_over(
    worker: &Worker,
    writer: &mut Writer,
    assignment: Assignment,
    duplicates: &Duplicates,
    progress: &Progress,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    writer.write(&mut bytes, &Frame::Assign(Box::new(assignment))).map_err(io::Error::other)?;
    let fds = [duplicates.socket.as_fd(), duplicates.memory.as_fd()];
    tokio::select! {
        sent = sys::send_with_fds(&worker.stream, &bytes, &fds) => sent,
        () = sleep_until(progress.poll_timeout()) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Until the handoff is over.
async fn watch(
    worker: &Worker,
    reader: &mut Reader,
    writer: &mut Writer,
    duplicates: &Duplicates,
    claim: &mut Claim<'_>,
    progress: &mut Progress,
    parted: &mut Option<Box<Snapshot>>,
) -> End {
    loop {
        // Whole frames first: those of the preface's last read are here already.
        loop {
            let heard = match reader.next() {
                Ok(Some(Frame::Reply(_) | Frame::Checkpoint(_))) => return End::Lost(Loss::Unfit),
                Ok(Some(frame)) => {
                    let heard = progress.handle(&frame);
                    if let Frame::Parted(snapshot) = frame {
                        *parted = Some(snapshot);
                    }
                    heard
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "handoff: the worker cannot be understood");
                    return End::Lost(Loss::Unreadable);
                }
            };
            match heard {
                Heard::Nothing => {}
                Heard::Taken => claim.taken(),
                Heard::Started => claim.started(),
                Heard::Over(end) => return end,
            }
        }
        tokio::select! {
            read = read(&worker.stream, reader) => match read {
                Ok(0) => return End::Lost(Loss::Ended),
                Ok(_) => {}
                Err(_) => return End::Lost(Loss::Ended),
            },
            told = claim.told() => match told {
                Told::Kicked(reason) => {
                    kick(worker, writer, reason).await;
                    progress.kicked(now());
                }
                Told::Withdrawn => return End::Lost(Loss::Withdrawn),
            },
            () = sleep_until(progress.poll_timeout()) => {
                // The worker's frames may wait unread, because this process was stopped or is busy: they are handled before its deadline is judged.
                if let Ok(1..) = sys::read_now(&worker.stream, reader.buffer()) {
                    continue;
                }
                if let Heard::Over(end) = progress.handle_timeout(now()) {
                    if progress.stage() >= Stage::Accepted {
                        // It was told to end the stream: the publisher's end will tell it again.
                        let _ = duplicates.socket.shutdown(Shutdown::Both);
                        return End::Done(liveedgecast_common::handoff::Close::Abort, "kicked".to_owned());
                    }
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

async fn kick(worker: &Worker, writer: &mut Writer, reason: String) {
    let mut bytes = Vec::new();
    if writer.write(&mut bytes, &Frame::Kick(reason)).is_ok() {
        // Some bytes in an empty buffer: if they do not fit, the worker hangs and its time runs.
        let _ = worker.stream.try_write(&bytes);
    }
}

/// Makes sure that nobody but us has the socket.
async fn released(worker: &Worker, duplicates: &Duplicates) -> bool {
    if worker.pid == std::process::id() {
        // A worker within this process, as tests have it: what it had went with its connection.
        return true;
    }
    let Some(process) = &worker.process else {
        warn!("handoff: the worker's process is not known, its stream cannot be taken over");
        return false;
    };
    let Some(socket) = inode(duplicates) else { return false };
    let until = now() + if worker.is_elsewhere() { RELEASE_TIME + DEATH_TIME } else { RELEASE_TIME };
    loop {
        if process.has_ended().unwrap_or(false) {
            return true;
        }
        match holds(worker.pid, socket) {
            _ if worker.is_elsewhere() => {}
            // Looked at what is still the same process: its number cannot have gone to another one.
            Ok(false) if !process.has_ended().unwrap_or(true) => return true,
            Ok(_) | Err(_) => {}
        }
        let now = now();
        if now >= until {
            break;
        }
        tokio::select! {
            _ = process.ended() => {}
            () = sleep_until(Some(until.min(now + RELEASE_LOOK))) => {}
        }
    }
    if worker.is_elsewhere() {
        warn!("handoff: a worker in another container has lost a stream and lives, the stream cannot be taken over");
        return false;
    }
    warn!(pid = worker.pid, "handoff: the worker does not let go of a stream and is killed");
    if let Err(error) = process.kill() {
        warn!(pid = worker.pid, %error, "handoff: the worker cannot be killed, its stream cannot be taken over");
        return false;
    }
    tokio::select! {
        _ = process.ended() => true,
        () = sleep_until(Some(now() + DEATH_TIME)) => false,
    }
}

fn inode(duplicates: &Duplicates) -> Option<u64> {
    rustix::fs::fstat(&duplicates.socket).ok().map(|stat| stat.st_ino)
}

/// Whether a process has the socket.
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
