//! The floor: the least that a relay in user space can cost that keeps its bytes where a successor would find them. In: connections of
//! publishers, the sink's address, a number of rings. Out: every byte, unread, at the sink, and the sink's answers at the publisher.
//!
//! One thread, epoll, edge triggered, one receive straight into the stream's shared memory and one send from there for each arrival. The rings
//! are made and touched before the first connection, so that the price of fresh memory is not in the figure.
//!
//! Note: LiveEdgeCast's own rings grow with their window, and a short one may stay in the cache; these are as long as the window of a stream of
//! 2.5 Mbps needs at most, for every stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use liveedgecast_common::sys::{RingMemory, UnmappedRing};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

/// Bytes of a ring.
const RING: usize = 2 << 20;
/// Bytes received at once.
const READ: usize = 64 << 10;
/// The listener's mark among the events; streams have their number twice, and once more for the side of the sink.
const LISTENER: u64 = u64::MAX;

/// A stream's memory, with the descriptor that would keep it when this process dies.
struct FloorRing {
    memory: RingMemory,
    _kept: UnmappedRing,
}

impl FloorRing {
    fn touched() -> io::Result<Self> {
        let kept = UnmappedRing::create(RING)?;
        let mut memory = kept.map()?;
        // A relay's ring begins short and grows with its window; this one is as long as it gets.
        while memory.grow(0, 0) {}
        memory.space(0, RING).fill(1);
        Ok(Self { memory, _kept: kept })
    }
}

struct FloorStream {
    publisher: TcpStream,
    sink: TcpStream,
    ring: FloorRing,
    received: u64,
    sent: u64,
    /// The kernel has said that the publisher sends nothing more, which it says once: a short read may be in front of the end.
    hung_up: bool,
    /// Everything from the publisher was received.
    ended: bool,
}

/// Whether a connection goes on.
enum Flow {
    On,
    End,
}

impl FloorStream {
    /// Takes what has arrived from the publisher, and what the sink's socket had no room for.
    fn forward(&mut self) -> io::Result<Flow> {
        loop {
            let room = READ.min(RING - self.held());
            // Nothing more has arrived. While the ring is full, this is not known.
            let mut dry = false;
            if !self.ended && room > 0 {
                match self.publisher.read(self.ring.memory.space(self.received, room)) {
                    Ok(0) => self.ended = true,
                    Ok(read) => {
                        self.received += read as u64;
                        dry = read < room && !self.hung_up;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => dry = true,
                    Err(error) => return Err(error),
                }
            }
            if self.held() > 0 {
                match self.sink.write(self.ring.memory.bytes(self.sent, self.held())) {
                    Ok(sent) => self.sent += sent as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::On),
                    Err(error) => return Err(error),
                }
            }
            if self.ended && self.held() == 0 {
                // The sink closes in its turn. If this side closed first, an answer on its way would make the kernel throw away what the sink
                // has not read yet.
                let _ = self.sink.shutdown(Shutdown::Write);
                return Ok(Flow::On);
            }
            if dry {
                return Ok(Flow::On);
            }
        }
    }

    /// Bytes that the sink's socket has not taken yet.
    fn held(&self) -> usize {
        (self.received - self.sent) as usize
    }

    /// Passes the sink's answers on. They are few and short: a publisher that has no room for them is given up.
    fn answer(&mut self, buffer: &mut [u8]) -> io::Result<Flow> {
        loop {
            match self.sink.read(buffer) {
                Ok(0) => return Ok(Flow::End),
                Ok(read) => self.publisher.write_all(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::On),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A bare relay that listens.
pub struct Floor {
    epoll: OwnedFd,
    listener: TcpListener,
    sink: SocketAddr,
    streams: Vec<Option<FloorStream>>,
    free: Vec<usize>,
    rings: Vec<FloorRing>,
}

impl Floor {
    /// Makes the rings, then listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(listen: SocketAddr, sink: SocketAddr, rings: usize) -> io::Result<Self> {
        let rings = (0..rings).map(|_| FloorRing::touched()).collect::<io::Result<_>>()?;
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { epoll, listener, sink, streams: Vec::new(), free: Vec::new(), rings })
    }

    /// Address of the listener.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays until the kernel refuses to say what has arrived.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        let mut answers = vec![0; READ];
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in events.drain(..) {
                let (mark, flags) = (event.data.u64(), event.flags);
                if mark == LISTENER {
                    self.accept();
                    continue;
                }
                let at = (mark / 2) as usize;
                // The stream may have ended at an earlier one of these events.
                let Some(stream) = self.streams.get_mut(at).and_then(Option::as_mut) else { continue };
                let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                let of_the_sink = mark % 2 == 1;
                stream.hung_up |= hung_up && !of_the_sink;
                let flow = if of_the_sink && (hung_up || flags.contains(EventFlags::IN)) {
                    stream.answer(&mut answers)
                } else {
                    Ok(Flow::On)
                };
                let flow = match flow {
                    Ok(Flow::On) if !of_the_sink || stream.sent < stream.received => stream.forward(),
                    other => other,
                };
                if !matches!(flow, Ok(Flow::On)) {
                    self.end(at);
                }
            }
        }
    }

    /// Takes the next connection. What it cannot take is a matter of this stream alone, and said: a publisher that is not relayed would otherwise
    /// look as if the relay were slow.
    fn accept(&mut self) {
        let publisher = match self.listener.accept() {
            Ok((publisher, _)) => publisher,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return eprintln!("floor: no publisher accepted: {error}"),
        };
        if let Err((what, error)) = self.take(publisher) {
            let (live, rings) = (self.streams.iter().flatten().count(), self.rings.len());
            eprintln!("floor: publisher dropped: {what}: {error} ({live} streams, {rings} rings left)");
        }
    }

    fn take(&mut self, publisher: TcpStream) -> Result<(), (&'static str, io::Error)> {
        let sink = TcpStream::connect(self.sink).map_err(|error| ("no connection to the sink", error))?;
        let ring = self.rings.pop().map_or_else(FloorRing::touched, Ok).map_err(|error| ("no ring", error))?;
        let at = self.free.pop().unwrap_or(self.streams.len());
        let watched = [&publisher, &sink].iter().zip(0..).try_for_each(|(socket, side)| {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            epoll::add(&self.epoll, socket, EventData::new_u64(at as u64 * 2 + side), flags)?;
            Ok(())
        });
        if let Err(error) = watched {
            self.free.push(at);
            self.rings.push(ring);
            return Err(("not watched", error));
        }
        if at == self.streams.len() {
            self.streams.push(None);
        }
        self.streams[at] =
            Some(FloorStream { publisher, sink, ring, received: 0, sent: 0, hung_up: false, ended: false });
        Ok(())
    }

    /// Closes both connections, which takes them out of the epoll, and keeps the ring for the next stream.
    fn end(&mut self, at: usize) {
        if let Some(stream) = self.streams[at].take() {
            self.rings.push(stream.ring);
            self.free.push(at);
        }
    }
}

impl std::fmt::Debug for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Floor").field("sink", &self.sink).field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "shell: the relay runs on a thread of its own")]

    use std::thread;

    use super::*;

    #[test]
    fn every_byte_arrives_and_answers_come_back() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let floor = Floor::start("127.0.0.1:0".parse().unwrap(), upstream.local_addr().unwrap(), 1).unwrap();
        let address = floor.address().unwrap();
        thread::spawn(|| floor.run());
        // The second stream gets the ring of the first one, the third one a new ring.
        let first = stream(address, &upstream);
        drop(first);
        let (second, third) = (stream(address, &upstream), stream(address, &upstream));
        drop((second, third));
    }

    /// Sends more than a ring and both sockets hold, to a sink that begins to read when the publisher's socket is full.
    fn stream(address: SocketAddr, upstream: &TcpListener) -> (TcpStream, TcpStream) {
        let bytes: Vec<u8> = (0..=250).collect::<Vec<u8>>().repeat(100_000);
        let mut publisher = TcpStream::connect(address).unwrap();
        let (mut sink, _) = upstream.accept().unwrap();
        publisher.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(some) = publisher.write(&bytes[sent..]) {
            sent += some;
        }
        publisher.set_nonblocking(false).unwrap();
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                publisher.write_all(&bytes[sent..]).unwrap();
                publisher.shutdown(Shutdown::Write).unwrap();
            });
            sink.write_all(b"go on").unwrap();
            let mut received = Vec::new();
            sink.read_to_end(&mut received).unwrap();
            received
        });
        assert!(received == bytes);
        let mut answer = [0; 5];
        publisher.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"go on");
        (publisher, sink)
    }
}
