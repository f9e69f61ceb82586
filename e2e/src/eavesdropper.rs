//! A stranger between a worker and its activator, who reads everything that passes. In: connections of a worker that was given the stranger's
//! address as the activator's. Out: the same bytes at the activator, and a record of them as the stranger sees them.
//!
//! Note: a worker finds the link listener at the address where it dialed the control listener, so both pass through here.
#![expect(clippy::disallowed_methods, reason = "shell: a thread with a runtime, tasks")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use liveedgecast_common::encryption::{Encryption, Protection};
use liveedgecast_common::socket::PeerSocket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::loopback;
use crate::relay::ActivatorProcess;
use crate::wait::SOON;

/// Ports of the control listener and the link listener.
const PORTS: [u16; 2] = [6001, 6002];

/// The bytes of all connections, those of each direction in the order in which they came.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// The stranger's proxies for one worker. They live as long as the process.
#[derive(Debug)]
pub struct Eavesdropper {
    address: Ipv4Addr,
    record: Record,
}

impl Eavesdropper {
    /// A stranger that passes the bytes on as they are.
    ///
    /// # Panics
    /// No address is free to listen on.
    #[must_use]
    pub fn before(activator: &ActivatorProcess) -> Self {
        Self::start(activator, false)
    }

    /// A stranger that ends TLS on both sides, with a key of its own, and passes on the bytes inside.
    ///
    /// # Panics
    /// No address is free to listen on.
    #[must_use]
    pub fn ending_tls_before(activator: &ActivatorProcess) -> Self {
        Self::start(activator, true)
    }

    fn start(activator: &ActivatorProcess, ends_tls: bool) -> Self {
        let address = loopback::address(&PORTS);
        let record = Record::default();
        for port in PORTS {
            let listener = std::net::TcpListener::bind((address, port)).expect("a free address");
            listener.set_nonblocking(true).expect("a listener");
            let (target, record) = (SocketAddr::new(activator.control().ip(), port), Arc::clone(&record));
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async move {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    while let Ok((worker, _)) = listener.accept().await {
                        tokio::spawn(pass(worker, target, ends_tls, Arc::clone(&record)));
                    }
                });
            });
        }
        Self { address, record }
    }

    /// The address that the worker is given for the activator's control listener.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}:{}", self.address, PORTS[0])
    }

    /// Tells whether the stranger has read this text.
    #[must_use]
    pub fn has_read(&self, text: &[u8]) -> bool {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text))
    }

    /// The number of bytes that have passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Vec::len).sum()
    }
}

async fn pass(worker: TcpStream, target: SocketAddr, ends_tls: bool, record: Record) -> io::Result<()> {
    let (worker, activator) = if ends_tls {
        let peer = worker.peer_addr()?.ip();
        let on = Protection::from(Encryption::On);
        (on.accept(worker, peer).await?, on.dial(target, SOON).await?)
    } else {
        (PeerSocket::from(worker), Protection::from(Encryption::Off).dial(target, SOON).await?)
    };
    let ((from_worker, to_worker), (from_activator, to_activator)) = (split(worker), split(activator));
    tokio::spawn(copy(from_worker, to_activator, Arc::clone(&record)));
    copy(from_activator, to_worker, record).await
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, record: Record) -> io::Result<()> {
    let number = {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.push(Vec::new());
        record.len() - 1
    };
    let mut bytes = vec![0; 16 << 10];
    while let read @ 1.. = from.read(&mut bytes).await? {
        record.lock().unwrap_or_else(PoisonError::into_inner)[number].extend_from_slice(&bytes[..read]);
        to.write_all(&bytes[..read]).await?;
        to.flush().await?;
    }
    to.shutdown().await
}
