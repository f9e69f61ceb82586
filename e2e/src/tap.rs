//! A wire tap: a TCP proxy between a publisher and its server, which records both sides. In: connections of publishers. Out: the same bytes
//! at the server, and a [`TapSession`] per connection.
//!
//! Note: the proxy passes on each end as what it was. A FIN stays a FIN (the other direction goes on), a reset becomes a reset.
#![expect(clippy::disallowed_methods, reason = "shell: two threads per connection")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::loopback;
use crate::record::{Recorder, Recording};
use crate::wait::{now, until_some};

/// The two sides of one connection.
#[derive(Clone, Debug)]
pub struct TapSession {
    /// Time at which the publisher connected.
    pub connected: Instant,
    /// Messages of the publisher.
    pub publisher: Recording,
    /// Answers of the server.
    pub server: Recording,
    /// End of the publisher's side.
    pub left: Option<Instant>,
    /// End of the server's side.
    pub closed: Option<Instant>,
    sockets: Arc<(TcpStream, TcpStream)>,
}

impl TapSession {
    /// Time that the publisher was held: from `publish` to `Publish.Start`, or until now.
    #[must_use]
    pub fn held(&self) -> Option<Duration> {
        let asked = self.publisher.command_at("publish")?;
        Some(self.server.started_at().unwrap_or_else(now).saturating_duration_since(asked))
    }

    /// Resets the connection on both sides, even within a message, without a goodbye of RTMP.
    pub fn cut(&self) {
        for socket in [&self.sockets.0, &self.sockets.1] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A running tap.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    sessions: Arc<Mutex<Vec<TapSession>>>,
}

impl Tap {
    /// Starts a tap in front of `target`. The tap lives as long as the process.
    ///
    /// # Panics
    /// No address is free to listen on.
    #[must_use]
    pub fn before(target: SocketAddr) -> Self {
        let (address, listener) = loopback::listener(1935, TcpListener::bind);
        let sessions = Arc::<Mutex<Vec<TapSession>>>::default();
        let shared = Arc::clone(&sessions);
        thread::spawn(move || {
            for publisher in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else { continue };
                pass(publisher, server, &shared);
            }
        });
        Self { address, sessions }
    }

    /// Address of the tap, where publishers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The push URL for a publisher.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.address)
    }

    /// The connections so far, in order of arrival.
    #[must_use]
    pub fn sessions(&self) -> Vec<TapSession> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest connection.
    #[must_use]
    pub fn last(&self) -> Option<TapSession> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// The only connection.
    ///
    /// # Panics
    /// No connection or several have arrived.
    #[must_use]
    #[track_caller]
    pub fn only(&self) -> TapSession {
        let mut sessions = self.sessions();
        assert_eq!(sessions.len(), 1, "connections of the publisher");
        sessions.remove(0)
    }

    /// Waits until a publisher has sent `publish`.
    #[track_caller]
    pub fn publish_asked(&self) -> TapSession {
        until_some("the publisher's publish", || self.last().filter(|it| it.publisher.command_at("publish").is_some()))
    }

    /// Waits until a publisher has received `NetStream.Publish.Start`.
    #[track_caller]
    pub fn started(&self) -> TapSession {
        until_some("NetStream.Publish.Start", || self.last().filter(|it| it.server.started_at().is_some()))
    }
}

fn pass(publisher: TcpStream, server: TcpStream, sessions: &Arc<Mutex<Vec<TapSession>>>) {
    let _ = (publisher.set_nodelay(true), server.set_nodelay(true));
    let copies = (publisher.try_clone(), server.try_clone(), publisher.try_clone(), server.try_clone());
    let (Ok(publisher_out), Ok(server_out), Ok(kept), Ok(kept_too)) = copies else { return };
    let index = {
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push(TapSession {
            connected: now(),
            publisher: Recording::default(),
            server: Recording::default(),
            left: None,
            closed: None,
            sockets: Arc::new((kept, kept_too)),
        });
        sessions.len() - 1
    };
    let shared = Arc::clone(sessions);
    thread::spawn(move || {
        copy(publisher, server_out, &shared, index, |it| (&mut it.publisher, &mut it.left));
    });
    let shared = Arc::clone(sessions);
    thread::spawn(move || {
        copy(server, publisher_out, &shared, index, |it| (&mut it.server, &mut it.closed));
    });
}

fn copy(
    mut from: TcpStream,
    mut to: TcpStream,
    sessions: &Mutex<Vec<TapSession>>,
    index: usize,
    part: impl Fn(&mut TapSession) -> (&mut Recording, &mut Option<Instant>),
) {
    let mut recorder = Recorder::default();
    let mut buffer = vec![0; 64 << 10];
    let reset = loop {
        // Encoders write with Nagle's algorithm on; a delayed acknowledgement of the tap would be measured as the relay's delay.
        let _ = SockRef::from(&from).set_tcp_quickack(true);
        let length = match from.read(&mut buffer) {
            Ok(0) => break false,
            Ok(length) => length,
            Err(_) => break true,
        };
        {
            let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            recorder.read(now(), &buffer[..length], part(&mut sessions[index]).0);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break true;
        }
    };
    *part(&mut sessions.lock().unwrap_or_else(PoisonError::into_inner)[index]).1 = Some(now());
    if reset {
        let _ = SockRef::from(&to).set_linger(Some(Duration::ZERO));
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(if reset { Shutdown::Both } else { Shutdown::Write });
}
