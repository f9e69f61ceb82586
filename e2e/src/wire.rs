//! The connections between a worker and its activator, which a scenario can cut: a TCP proxy for the control listener and the link
//! listener. In: connections of a worker that was given this address as the activator's. Out: the same bytes at the activator.
//!
//! Note: a worker finds the link listener at the address where it dialed the control listener, so both pass through here.
#![expect(clippy::disallowed_methods, reason = "shell: two threads per connection")]

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::loopback;
use crate::relay::ActivatorProcess;

/// Ports of the control listener and the link listener.
const PORTS: [u16; 2] = [6001, 6002];

type Sockets = Arc<Mutex<Vec<TcpStream>>>;

/// The proxies of one worker. They live as long as the process.
#[derive(Debug)]
pub struct CuttableWire {
    address: Ipv4Addr,
    links: Sockets,
}

impl CuttableWire {
    /// Starts proxies in front of this activator.
    ///
    /// # Panics
    /// No address is free to listen on.
    #[must_use]
    pub fn to(activator: &ActivatorProcess) -> Self {
        let address = loopback::address(&PORTS);
        let links = Sockets::default();
        for port in PORTS {
            let listener = TcpListener::bind((address, port)).expect("a free address");
            let target = SocketAddr::new(activator.control().ip(), port);
            let sockets = if port == PORTS[1] { Arc::clone(&links) } else { Sockets::default() };
            thread::spawn(move || {
                for worker in listener.incoming().flatten() {
                    let _ = pass(&worker, target, &sockets);
                }
            });
        }
        Self { address, links }
    }

    /// The address that the worker is given for the activator's control listener.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}:{}", self.address, PORTS[0])
    }

    /// Resets every connection to the link listener, at both ends.
    pub fn cut_links(&self) {
        let sockets = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        for socket in sockets {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn pass(worker: &TcpStream, target: SocketAddr, sockets: &Sockets) -> io::Result<()> {
    let activator = TcpStream::connect(target)?;
    for socket in [worker, &activator] {
        socket.set_nodelay(true)?;
        sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket.try_clone()?);
    }
    for (from, to) in [(worker, &activator), (&activator, worker)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
