//! A single address for all upstreams of all scenarios. In: connections of workers in pods. Out: the same bytes at the current scenario's
//! upstream.
//!
//! A pod sees a changed push URL only a minute later, so the URL stays the same and its target changes.
#![expect(clippy::disallowed_methods, reason = "shell: two threads per connection")]

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use socket2::SockRef;

/// The current scenario's upstream.
static BEHIND: Mutex<Option<SocketAddr>> = Mutex::new(None);
/// Address of the door, once it is open.
static DOOR: Mutex<Option<SocketAddr>> = Mutex::new(None);

/// Address to which workers push; from now on it leads to `upstream`.
///
/// # Panics
/// `host` is not an address of this machine.
#[must_use]
pub fn to(upstream: SocketAddr, host: IpAddr) -> SocketAddr {
    *BEHIND.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    *DOOR.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| {
        let listener = TcpListener::bind((host, 0)).unwrap_or_else(|error| panic!("CLUSTER_HOST {host}: {error}"));
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || {
            for worker in listener.incoming().flatten() {
                let behind = *BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = behind.map_or(Ok(()), |upstream| pass(worker, upstream));
            }
        });
        address
    })
}

fn pass(worker: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let upstream = TcpStream::connect(upstream)?;
    for socket in [&worker, &upstream] {
        socket.set_nodelay(true)?;
    }
    for (from, to) in [(worker.try_clone()?, upstream.try_clone()?), (upstream, worker)] {
        thread::spawn(move || copy(&from, &to));
    }
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            // The proxy passes on each end as what it was.
            let _ = SockRef::from(to).set_linger(Some(std::time::Duration::ZERO));
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        }
    }
}
