//! One address for all upstreams of all scenarios. In: connections of workers in pods. Out: the same bytes at whatever the current
//! scenario has as its upstream.
//!
//! A pod hears of a changed push URL only a minute later, so the URL stays the same and what is behind it changes.
#![expect(clippy::disallowed_methods, reason = "shell: two threads per connection")]

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use socket2::SockRef;

/// What is behind the door.
static BEHIND: Mutex<Option<SocketAddr>> = Mutex::new(None);
/// Where the door is.
static DOOR: Mutex<Option<SocketAddr>> = Mutex::new(None);

/// Where workers push to, from now on to `upstream`.
///
/// # Panics
/// `host` is no address of this machine.
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
            // An end is passed on as what it was.
            let _ = SockRef::from(to).set_linger(Some(std::time::Duration::ZERO));
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        }
    }
}
