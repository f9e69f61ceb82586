//! A wire tap: a TCP proxy between a publisher and what it publishes to, which records both sides. In: connections of publishers.
//! Out: the same bytes at the target, and a [`TapSession`] per connection.
//!
//! Surprise: an end must be passed on as what it was. A FIN stays a FIN (the other direction goes on), a reset becomes a reset.
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

/// What both sides of one connection said.
#[derive(Clone, Debug)]
pub struct TapSession {
    /// When the publisher connected.
    pub connected: Instant,
    /// What the publisher said.
    pub publisher: Recording,
    /// What it was answered.
    pub server: Recording,
    /// When the publisher's side ended.
    pub left: Option<Instant>,
    /// When the server's side ended.
    pub closed: Option<Instant>,
    sockets: Arc<(TcpStream, TcpStream)>,
}

impl TapSession {
    /// How long the publisher has been held: from its `publish` to `Publish.Start`, or until now.
    #[must_use]
    pub fn held(&self) -> Option<Duration> {
        let asked = self.publisher.command_at("publish")?;
        Some(self.server.started_at().unwrap_or_else(now).saturating_duration_since(asked))
    }

    /// Ends the connection on both sides, wherever in a message that is: no goodbye of the protocol, only TCP's.
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
    /// A tap in front of `target`. It lives as long as the process.
    ///
    /// # Panics
    /// There is no address to listen on.
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

    /// Where publishers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The push URL for a publisher.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.address)
    }

    /// All connections so far.
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
    /// There are none or several.
    #[must_use]
    #[track_caller]
    pub fn only(&self) -> TapSession {
        let mut sessions = self.sessions();
        assert_eq!(sessions.len(), 1, "connections of the publisher");
        sessions.remove(0)
    }

    /// Waits until a publisher has asked to publish.
    #[track_caller]
    pub fn publish_asked(&self) -> TapSession {
        until_some("the publisher's publish", || self.last().filter(|it| it.publisher.command_at("publish").is_some()))
    }

    /// Waits until a publisher was told to start.
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
        // Encoders write with Nagle's delay on; a late acknowledgement of ours would be measured as the relay's.
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
