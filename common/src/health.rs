//! One question to a process of ours, "are you alive?", for images that have no shell and no curl.
//!
//! In: the address that it serves HTTP on. Out: nothing, or why not. Next: the exit code of `--health`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connecting, asking and reading: each may take this long. Docker gives a check 3 s in our compose file.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the answer that are looked at: the status line is all that counts.
const STATUS_LINE: u64 = 64;

/// Why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody knows which port it took.
    #[error("the HTTP listener has port 0, which says nothing about where it is")]
    AnyPort,
    /// It does not answer.
    #[error("no answer from {address}: {source}")]
    NoAnswer {
        /// The last address that was asked.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It answers something else than 200.
    #[error("{address} answers {status:?}")]
    Answered {
        /// Who.
        address: SocketAddr,
        /// What.
        status: String,
    },
}

/// Asks `/healthz` of whoever listens on `listen`, from the same machine.
///
/// # Errors
/// It is not alive.
pub fn ask(listen: SocketAddr) -> Result<(), HealthError> {
    if listen.port() == 0 {
        return Err(HealthError::AnyPort);
    }
    let mut result = Err(HealthError::AnyPort);
    for ip in reachable_at(listen.ip()) {
        let address = SocketAddr::new(ip, listen.port());
        result = match status_line(address) {
            Ok(status) if status.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(status) => Err(HealthError::Answered { address, status }),
            Err(source) => Err(HealthError::NoAnswer { address, source }),
        };
    }
    result
}

/// Where a listener is found from its own machine: one on all addresses may be of one family only.
fn reachable_at(ip: IpAddr) -> Vec<IpAddr> {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        ip => vec![ip],
    }
}

fn status_line(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
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

    /// Answers one question with `answer`, and tells what was asked.
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
    fn alive_is_200() {
        let (address, server) = served("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
        ask(address).unwrap();
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let (address, server) = served("HTTP/1.1 200 OK\r\n\r\n");
        ask(SocketAddr::from(([0, 0, 0, 0], address.port()))).unwrap();
        server.join().unwrap();
        let (address, server) = served("HTTP/1.1 200 OK\r\n\r\n");
        ask(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()))).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn anything_else_is_an_error() {
        for (answer, told) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers \"HTTP/1.1 503 Service Unavailable\""),
            ("", "answers \"\""),
            ("SSH-2.0-OpenSSH_9.2 200 200\r\n", "answers"),
        ] {
            let (address, server) = served(answer);
            let error = ask(address).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        // Bound and not listening, so that nobody else can take the port meanwhile.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert!(ask(address).unwrap_err().to_string().starts_with("no answer from 127.0.0.1:"));
        assert!(matches!(ask(SocketAddr::from(([127, 0, 0, 1], 0))), Err(HealthError::AnyPort)));
    }
}
