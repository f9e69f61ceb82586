//! One question to a process of ours, "are you alive?" or "are you ready?", for images that have no shell and no curl.
//!
//! In: the address on which the process serves HTTP, or the container that it runs in. Out: nothing, or the reason for a no. Next: the exit
//! code of `--health`.
//!
//! Note: on a host's network a port does not tell which process answers, for two activators may share it and a worker takes any. Containers
//! there do not share their process namespaces, so the main process of each also answers on an abstract Unix socket that has the name of
//! its process namespace. An orchestrator's probe that runs in the container reaches that one process and no other.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener, UnixStream};
use std::time::Duration;

use tokio::net::UnixListener;

use crate::sys;

/// Time for connecting, asking and reading, each. Docker gives a check 3 s in our compose file.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the answer that are read: only the status line counts.
const STATUS_LINE: u64 = 64;

/// The beginning of an answer that is yes.
const YES: &str = "HTTP/1.1 200 ";
/// The pid of a container's main process within the container.
const MAIN_PROCESS: u32 = 1;

/// The reason why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The configuration does not tell which port was taken.
    #[error("the HTTP listener has port 0, which says nothing about where it is")]
    AnyPort,
    /// No answer from the container's main process.
    #[error("no answer from this container's main process: {0}")]
    Container(io::Error),
    /// The socket's name belongs to a process of another user.
    #[error("the socket of this container's main process belongs to user {0}")]
    Stranger(u32),
    /// The container's main process answers with another status than 200.
    #[error("this container's main process answers {0:?}")]
    ContainerAnswered(String),
    /// No answer from the process.
    #[error("no answer from {address}: {source}")]
    NoAnswer {
        /// Last address that was asked.
        address: SocketAddr,
        /// Error of the connection.
        source: io::Error,
    },
    /// The process answers with another status than 200.
    #[error("{address} answers {status:?}")]
    Answered {
        /// Address that was asked.
        address: SocketAddr,
        /// Status line of the answer.
        status: String,
    },
}

/// The socket on which the main process of a container is asked from within it; `None` when this process is no container's main process, or
/// has no name for it. Must be called in a runtime.
///
/// # Errors
/// The kernel's: another process has the name.
pub fn listen_within() -> io::Result<Option<UnixListener>> {
    if std::process::id() != MAIN_PROCESS {
        return Ok(None);
    }
    name_within().map(|name| listen_as(&name)).transpose()
}

fn listen_as(name: &UnixAddr) -> io::Result<UnixListener> {
    let listener = StdUnixListener::bind_addr(name)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// The name of this container's socket; `None` where `/proc` does not tell.
fn name_within() -> Option<UnixAddr> {
    let namespace = rustix::fs::stat("/proc/self/ns/pid").ok()?;
    UnixAddr::from_abstract_name(format!("liveedgecast-http-{}", namespace.st_ino)).ok()
}

/// Asks the main process of this container.
///
/// # Errors
/// The answer is not yes.
pub fn ask_within(path: &str) -> Result<(), HealthError> {
    let unnamed = || HealthError::Container(io::Error::other("/proc does not tell which container this is"));
    ask_as(&name_within().ok_or_else(unnamed)?, path)
}

fn ask_as(name: &UnixAddr, path: &str) -> Result<(), HealthError> {
    let stream = UnixStream::connect_addr(name).map_err(HealthError::Container)?;
    let user = sys::peer(&stream).map_err(HealthError::Container)?.uid;
    // Any process on the host may have taken an abstract socket's name first.
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        return Err(HealthError::Stranger(user));
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(HealthError::Container)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(HealthError::Container)?;
    match status_line(stream, "localhost", path).map_err(HealthError::Container)? {
        status if status.starts_with(YES) => Ok(()),
        status => Err(HealthError::ContainerAnswered(status)),
    }
}

/// Path of the question whether the process is alive.
pub const ALIVE: &str = "/healthz";
/// Path of the question whether the process is ready.
pub const READY: &str = "/readyz";

/// Asks the process that listens on `listen`, from the same machine.
///
/// # Errors
/// The answer is not yes.
pub fn ask(listen: SocketAddr, path: &str) -> Result<(), HealthError> {
    if listen.port() == 0 {
        return Err(HealthError::AnyPort);
    }
    let mut result = Err(HealthError::AnyPort);
    for ip in reachable_at(listen.ip()) {
        let address = SocketAddr::new(ip, listen.port());
        result = match dial(address).and_then(|stream| status_line(stream, &address.to_string(), path)) {
            Ok(status) if status.starts_with(YES) => return Ok(()),
            Ok(status) => Err(HealthError::Answered { address, status }),
            Err(source) => Err(HealthError::NoAnswer { address, source }),
        };
    }
    result
}

/// The addresses at which a listener is reached from its own machine: a listener on all addresses may be of one family only.
fn reachable_at(ip: IpAddr) -> Vec<IpAddr> {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        ip => vec![ip],
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn status_line(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(STATUS_LINE).read_to_end(&mut head)?;
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one question with `answer`, and returns the question.
    fn served(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server in a test")]
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut buffer = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut buffer).unwrap();
                asked.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, server)
    }

    #[test]
    fn status_200_is_healthy() {
        let (address, server) = served("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
        ask(address, "/healthz").unwrap();
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
    }

    #[test]
    fn listener_on_all_addresses_is_asked_on_loopback() {
        let (address, server) = served("HTTP/1.1 200 OK\r\n\r\n");
        ask(SocketAddr::from(([0, 0, 0, 0], address.port())), "/healthz").unwrap();
        server.join().unwrap();
        let (address, server) = served("HTTP/1.1 200 OK\r\n\r\n");
        ask(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())), "/healthz").unwrap();
        server.join().unwrap();
    }

    #[test]
    fn any_other_status_is_an_error() {
        for (answer, told) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers \"HTTP/1.1 503 Service Unavailable\""),
            ("", "answers \"\""),
            ("SSH-2.0-OpenSSH_9.2 200 200\r\n", "answers"),
        ] {
            let (address, server) = served(answer);
            let error = ask(address, "/healthz").unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn closed_port_is_an_error() {
        // Bound and not listening, so that no other process can take the port meanwhile.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert!(ask(address, "/healthz").unwrap_err().to_string().starts_with("no answer from 127.0.0.1:"));
        assert!(matches!(ask(SocketAddr::from(([127, 0, 0, 1], 0)), "/healthz"), Err(HealthError::AnyPort)));
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a server in a test")]
    async fn process_is_asked_by_the_name_of_its_container() {
        use crate::http::{Answer, Routes, StatusCode, serve};

        // Another name than a container's, so that this test disturbs no process.
        let name = UnixAddr::from_abstract_name(format!("liveedgecast-test-{}", std::process::id())).unwrap();
        assert!(matches!(ask_as(&name, "/healthz"), Err(HealthError::Container(_))), "nobody is there");
        let routes =
            Routes::new().get("/healthz", |_| async { Answer::text("ok\n") }).get("/readyz", |request| async move {
                let status = if request.peer.is_loopback() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                Answer::text("not yet\n").with(status)
            });
        let stop = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(serve(listen_as(&name).unwrap(), routes, stop.clone()));
        assert!(listen_as(&name).is_err(), "one process has the name");
        let ask = |path: &'static str| {
            let name = name.clone();
            tokio::task::spawn_blocking(move || ask_as(&name, path))
        };
        ask("/healthz").await.unwrap().unwrap();
        let error = ask("/readyz").await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "this container's main process answers \"HTTP/1.1 503 Service Unavailable\"");
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn only_a_main_process_answers_for_a_container() {
        // Tests may run as a main process.
        assert_eq!(listen_within().unwrap().is_some(), std::process::id() == MAIN_PROCESS);
    }
}
