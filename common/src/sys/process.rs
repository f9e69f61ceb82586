//! A process that cannot be mistaken for another one: by pidfd, not by number. Before a stream's socket and memory go to a successor, its
//! worker must be dead, not merely silent; this module kills it and learns of its end.
//!
//! Between two containers the number means nothing, and no process can be signalled across; but a pidfd tells of the end all the same, and
//! the process itself can pass one on where the kernel does not tell which process has a connection.
//!
//! Note: a process counts as ended only when all its threads are gone, and its descriptors with them; the connection to it closes a little
//! earlier.
#![expect(clippy::disallowed_methods, reason = "shell: /proc says what a descriptor is")]
#![allow(unsafe_code, reason = "registering a descriptor")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket;

/// A handle to one process.
#[derive(Debug)]
pub struct ProcessHandle {
    pidfd: OwnedFd,
}

impl ProcessHandle {
    /// A handle to the process that has this number now: one that cannot have ended unnoticed, such as a child of this process.
    ///
    /// # Errors
    /// There is no such process; or the kernel's.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
        Ok(Self { pidfd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// A pidfd of this process, to be passed on.
    ///
    /// # Errors
    /// The kernel's, before Linux 5.3.
    pub fn ours() -> io::Result<OwnedFd> {
        Ok(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
    }

    /// A handle made from a pidfd that its process has passed on.
    ///
    /// # Errors
    /// The descriptor is no pidfd.
    pub fn passed(pidfd: OwnedFd) -> io::Result<Self> {
        let is = std::fs::read_link(format!("/proc/self/fd/{}", pidfd.as_raw_fd()))?;
        // `anon_inode:[pidfd]`; since Linux 6.9 `pidfd:[INODE]`.
        if !is.to_string_lossy().contains("pidfd") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a process"));
        }
        Ok(Self { pidfd })
    }

    /// A handle to the process that connected a Unix socket. Before Linux 6.5 the process is found by its number: then the connection must
    /// still be open afterwards, or the number may have been given to another process.
    ///
    /// # Errors
    /// The process has ended; before Linux 6.5 also: it is in another process namespace; or the kernel's.
    pub fn of_peer(connection: impl AsFd) -> io::Result<Self> {
        let connection = connection.as_fd();
        match socket::peer_pidfd(connection) {
            Ok(pidfd) => Ok(Self { pidfd }),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Self::open(socket::peer(connection)?.pid),
            Err(error) => Err(error),
        }
    }

    /// Sends SIGKILL, also to a stopped process. Returns before the process has ended, which [`Self::ended`] tells. Harmless if it has
    /// ended already.
    ///
    /// # Errors
    /// The process belongs to another user, or is not in our process namespace; or the kernel's.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// True if the process has ended, with all its threads.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut fds, Some(&now))? > 0)
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn ended(&self) -> io::Result<()> {
        // SAFETY: a borrowed descriptor stays open and the same for as long as `self` is borrowed, which is longer than the registration.
        let pidfd = unsafe { AsyncFd::register_with_interest(self.pidfd.as_fd(), Interest::READABLE)? };
        let _ = pidfd.readable().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use tokio::net::UnixStream;

    use super::*;

    /// A process that lives as long as its input is open.
    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn end_of_a_process_is_noticed() {
        let mut child = child();
        let handle = ProcessHandle::open(child.id()).unwrap();
        assert!(!handle.has_ended().unwrap());
        drop(child.stdin.take());
        handle.ended().await.unwrap();
        // The process has not been waited for, so its number is still taken; it has ended all the same.
        assert!(handle.has_ended().unwrap());
        handle.kill().unwrap();
        assert!(child.wait().unwrap().success());
        // The number may belong to another process now; the handle does not.
        handle.kill().unwrap();
        assert!(handle.has_ended().unwrap());
        handle.ended().await.unwrap();
    }

    #[tokio::test]
    async fn stopped_process_is_killed() {
        let mut child = child();
        let handle = ProcessHandle::open(child.id()).unwrap();
        rustix::process::kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        assert!(!handle.has_ended().unwrap());
        handle.kill().unwrap();
        handle.ended().await.unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn pid_zero_is_no_process() {
        for pid in [0, u32::MAX] {
            assert_eq!(ProcessHandle::open(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[tokio::test]
    async fn passed_pidfd_tells_of_the_end() {
        let mut child = child();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let handle = ProcessHandle::passed(pidfd).unwrap();
        assert!(!handle.has_ended().unwrap());
        child.kill().unwrap();
        handle.ended().await.unwrap();
        child.wait().unwrap();
        assert!(!ProcessHandle::passed(ProcessHandle::ours().unwrap()).unwrap().has_ended().unwrap());
        assert!(ProcessHandle::passed(tempfile::tempfile().unwrap().into()).is_err(), "a file is no process");
    }

    #[tokio::test]
    async fn peer_of_a_socket_is_found() {
        let (here, there) = UnixStream::pair().unwrap();
        // Both ends belong to this process.
        assert!(!ProcessHandle::of_peer(&here).unwrap().has_ended().unwrap());
        drop(there);
        assert!(ProcessHandle::of_peer(tempfile::tempfile().unwrap()).is_err());
    }
}
