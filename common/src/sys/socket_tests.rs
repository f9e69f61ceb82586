//! Against the kernel: real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::fstat;
use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Bytes arrive a moment after they were written.
fn until<T: PartialEq>(mut value: impl FnMut() -> T, wanted: T) {
    while value() != wanted {
        std::thread::yield_now();
    }
}

fn waiting(socket: &TcpStream) -> u64 {
    rustix::io::ioctl_fionread(socket).unwrap()
}

fn state(socket: &TcpStream) -> u8 {
    tcp_info(socket.as_fd()).unwrap().0
}

#[test]
fn position_counts_read_bytes() {
    let (mut client, mut server) = connection();
    assert_eq!(bytes_received(&server).unwrap(), 0);
    client.write_all(&[7; 1000]).unwrap();
    until(|| waiting(&server), 1000);
    assert_eq!(bytes_received(&server).unwrap(), 0);
    server.read_exact(&mut [0; 300]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 300);
    assert_eq!(bytes_received(server.try_clone().unwrap()).unwrap(), 300);
    server.read_exact(&mut [0; 700]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 1000);
    assert_eq!(bytes_received(&client).unwrap(), 0);
}

#[test]
fn fin_is_no_byte_of_the_position() {
    let (mut client, mut server) = connection();
    client.write_all(&[7; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until(|| state(&server), 8);
    assert_eq!(bytes_received(&server).unwrap(), 0);
    server.read_exact(&mut [0; 999]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 999);
    server.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 1000);
    // The FIN itself is read.
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(bytes_received(&server).unwrap(), 1000);
}

/// The case in the file's header in which the kernel has forgotten the FIN.
#[test]
fn fin_of_an_ended_connection_counts_as_a_byte() {
    let (mut client, mut server) = connection();
    client.write_all(&[7; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until(|| state(&server), 8);
    server.write_all(&[7; 10]).unwrap();
    until(|| waiting(&client), 10);
    drop(client);
    until(|| state(&server), 7);
    server.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 1001);
}

#[test]
fn own_fin_leaves_the_position_unchanged() {
    let (mut client, mut server) = connection();
    server.shutdown(Shutdown::Write).unwrap();
    client.write_all(&[7; 1000]).unwrap();
    until(|| waiting(&server), 1000);
    server.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 10);
    server.read_exact(&mut [0; 990]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 1000);
}

#[test]
fn reset_leaves_the_position_unchanged() {
    let (mut client, mut server) = connection();
    client.write_all(&[7; 1000]).unwrap();
    server.write_all(&[7; 10]).unwrap();
    until(|| (waiting(&server), waiting(&client)), (1000, 10));
    server.read_exact(&mut [0; 600]).unwrap();
    // Closed with unread bytes: a reset.
    drop(client);
    until(|| state(&server), 7);
    assert_eq!(bytes_received(&server).unwrap(), 600);
    server.read_exact(&mut [0; 400]).unwrap();
    assert_eq!(bytes_received(&server).unwrap(), 1000);
    assert!(server.read(&mut [0; 1]).is_err());
    assert_eq!(bytes_received(&server).unwrap(), 1000);
}

#[test]
fn position_is_exact_while_bytes_arrive() {
    const TOTAL: u64 = 64 << 20;
    let (mut client, mut server) = connection();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![7; 5003];
            let mut left = TOTAL as usize;
            while left > 0 {
                let len = left.min(block.len());
                client.write_all(&block[..len]).unwrap();
                left -= len;
            }
        });
        let mut buffer = vec![0; 64 << 10];
        let mut read = 0;
        while read < TOTAL {
            let room = buffer.len().min(1 + (read % 50_021) as usize);
            read += server.read(&mut buffer[..room]).unwrap() as u64;
            assert_eq!(bytes_received(&server).unwrap(), read);
        }
        // The writer has closed, or soon will.
        assert_eq!(server.read(&mut buffer).unwrap(), 0);
        assert_eq!(bytes_received(&server).unwrap(), TOTAL);
    });
}

#[test]
fn unsent_bytes_are_counted() {
    let (mut client, mut server) = connection();
    assert_eq!(unsent(&client).unwrap(), 0);
    client.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(len) = client.write(&[7; 65536]) {
        written += len;
    }
    assert!(unsent(&client).unwrap() > 0 && (unsent(&client).unwrap() as usize) < written);
    server.read_exact(&mut vec![0; written]).unwrap();
    until(|| unsent(&client).unwrap(), 0);
}

#[test]
fn only_tcp_has_positions() {
    let file = tempfile::tempfile().unwrap();
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(bytes_received(&file).is_err() && bytes_received(&unix).is_err());
    assert!(unsent(&file).is_err());
    assert!(quick_ack(&unix).is_err());
    assert!(quick_ack(&connection().0).is_ok());
}

#[test]
fn peer_of_a_unix_socket_has_pid_and_uid() {
    let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
    let peer = peer(&here).unwrap();
    assert_eq!(peer, PeerCredentials { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() });
    assert!(super::peer(tempfile::tempfile().unwrap()).is_err());
}

#[test]
fn network_namespace_has_a_name() {
    let name = network_namespace();
    let (boot, inode) = name.split_once(':').unwrap();
    assert!(boot.len() == 36 && inode.parse::<u64>().unwrap() > 0, "{name}");
    assert_eq!(network_namespace(), name);
}

fn inode(fd: impl AsFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

#[tokio::test]
async fn descriptors_come_with_the_first_byte() {
    let (here, there) = UnixStream::pair().unwrap();
    let (client, _server) = connection();
    let file = tempfile::tempfile().unwrap();
    send_with_fds(&here, b"abc", &[client.as_fd(), file.as_fd()]).await.unwrap();
    send_with_fds(&here, b"def", &[]).await.unwrap();

    let (mut fds, mut byte, mut all) = (Vec::new(), [0; 1], Vec::new());
    while all.len() < 6 {
        assert_eq!(recv_with_fds(&there, &mut byte, &mut fds).await.unwrap(), 1);
        all.push(byte[0]);
        assert_eq!(fds.len(), 2);
    }
    assert_eq!(all, b"abcdef");
    assert_eq!((inode(&fds[0]), inode(&fds[1])), (inode(&client), inode(&file)));
    for fd in &fds {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        assert_ne!(fd.as_raw_fd(), client.as_raw_fd());
    }
    drop(here);
    assert_eq!(recv_with_fds(&there, &mut byte, &mut fds).await.unwrap(), 0);
}

#[tokio::test]
async fn a_message_longer_than_the_sockets_buffer_carries_them_once() {
    let (here, there) = UnixStream::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let message: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let (mut fds, mut all, mut part) = (Vec::new(), Vec::new(), vec![0; 100_000]);
    let fd = [file.as_fd()];
    let (sent, ()) = tokio::join!(send_with_fds(&here, &message, &fd), async {
        while all.len() < message.len() {
            let len = recv_with_fds(&there, &mut part, &mut fds).await.unwrap();
            all.extend_from_slice(&part[..len]);
        }
    });
    sent.unwrap();
    assert!(all == message && fds.len() == 1);
}

#[tokio::test]
async fn too_many_descriptors_are_refused() {
    let (here, there) = UnixStream::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let many: Vec<BorrowedFd<'_>> = (0..=MAX_DESCRIPTORS).map(|_| file.as_fd()).collect();
    let refused = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    refused(send_with_fds(&here, b"x", &many).await);
    refused(send_with_fds(&here, b"", &many[..1]).await);

    // A stranger that sends more descriptors than there is room for: the kernel drops some, and sets a flag.
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
    sendmsg(&here, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    let error = recv_with_fds(&there, &mut [0; 9], &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);

    // Too many in several messages.
    let mut fds = Vec::new();
    send_with_fds(&here, b"x", &many[..MAX_DESCRIPTORS]).await.unwrap();
    send_with_fds(&here, b"y", &many[..1]).await.unwrap();
    let mut error = None;
    while error.is_none() {
        error = recv_with_fds(&there, &mut [0; 9], &mut fds).await.err();
    }
}

#[test]
fn socket_with_a_low_water_mark_is_readable_when_that_much_waits_or_at_its_end() {
    let (mut here, there) = connection();
    set_receive_low_water(&there, 10).unwrap();
    let is_readable = || {
        let mut fds = [rustix::event::PollFd::new(&there, rustix::event::PollFlags::IN)];
        let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&nothing)).unwrap() == 1
    };
    let waiting = || rustix::io::ioctl_fionread(&there).unwrap();
    here.write_all(b"123456789").unwrap();
    until(waiting, 9);
    assert!(!is_readable());
    here.write_all(b"0").unwrap();
    until(waiting, 10);
    assert!(is_readable());
    assert_eq!(read_now(&there, &mut BytesMut::new()).unwrap(), 10);
    here.write_all(b"1").unwrap();
    until(waiting, 1);
    assert!(!is_readable());
    set_receive_low_water(&there, 1).unwrap();
    assert!(is_readable(), "what waits already counts, too");
    set_receive_low_water(&there, 10).unwrap();
    drop(here);
    until(is_readable, true);
}
