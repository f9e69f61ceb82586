//! The streams that count against the share of their address. In: streams that are published, and their ends. Out: the number of an address's
//! other streams. Next: `rules`. Pure but for the lock, and the clock of a seat that is dropped.
//!
//! Streams count, not connections. Note: a router that forgets its connections leaves them here until keepalive notices, 25 s later, while
//! its encoders are back; and a publisher that resets its connection leaves a session that holds a worker's place for the grace time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::key::Identity;

use crate::net::bucket;

/// Most streams without a publisher that are remembered, some 150 bytes each; those with a publisher are bounded by the connections. It is the
/// number of connections, because each connection leaves one such stream behind. In a flood, those that are due first are forgotten early.
const MAX_GONE: usize = 16_384;

/// The seats of all addresses, shared by clones.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    /// Time that a stream counts after its publisher was lost.
    grace: Duration,
    // A lock, because seats are dropped wherever their publisher ends; held for a few map operations, never across an await.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    streams: HashMap<IpAddr, HashMap<Identity, Stream>>,
    /// Streams without a publisher, by the time at which they are forgotten.
    gone: BTreeMap<(Instant, u64), (IpAddr, Identity)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Stream {
    publishers: usize,
    /// The stream's key in [`Taken::gone`].
    gone: Option<(Instant, u64)>,
}

impl Seats {
    /// Seats of which none is taken.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, taken: Arc::default() }
    }

    /// The number of the address's other streams; `None` when this stream counts already.
    pub(super) fn others(&self, now: Instant, address: IpAddr, stream: &Identity) -> Option<usize> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.forget(|(until, _), _| until <= now);
        match taken.streams.get(&bucket(address)) {
            Some(streams) if streams.contains_key(stream) => None,
            Some(streams) => Some(streams.len()),
            None => Some(0),
        }
    }

    /// Counts a publisher of this stream.
    pub(super) fn take(&self, address: IpAddr, stream: Identity) -> Seat {
        let key = bucket(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = taken.streams.entry(key).or_default().entry(stream).or_default();
        entry.publishers += 1;
        if let Some(gone) = entry.gone.take() {
            taken.gone.remove(&gone);
        }
        Seat { seats: self.clone(), key, stream, has_ended: false }
    }
}

impl Taken {
    /// Gives a seat back; the stream counts until then.
    fn leave(&mut self, key: IpAddr, stream: Identity, until: Instant) {
        let Some(entry) = self.streams.get_mut(&key).and_then(|streams| streams.get_mut(&stream)) else { return };
        entry.publishers = entry.publishers.saturating_sub(1);
        if entry.publishers > 0 {
            return;
        }
        let place = (until, self.next);
        entry.gone = Some(place);
        self.next += 1;
        self.gone.insert(place, (key, stream));
        self.forget(|_, gone| gone > MAX_GONE);
    }

    /// Forgets streams, the one that is due first before the others, while the condition holds for its time and their number.
    fn forget(&mut self, is_due: impl Fn((Instant, u64), usize) -> bool) {
        while let Some((place, (key, stream))) = self.gone.first_key_value().map(|(place, whose)| (*place, *whose))
            && is_due(place, self.gone.len())
        {
            self.gone.remove(&place);
            if let Some(streams) = self.streams.get_mut(&key) {
                streams.remove(&stream);
                if streams.is_empty() {
                    self.streams.remove(&key);
                }
            }
        }
    }
}

/// A publisher's part of its address's share. Dropping it has the stream count for the grace time.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    key: IpAddr,
    stream: Identity,
    /// The session has ended, and holds no worker's place.
    has_ended: bool,
}

impl Seat {
    /// Ends the seat of a publisher that has said goodbye, which ends its session: nothing of it counts any more.
    pub(crate) fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Seat {
    #[expect(clippy::disallowed_methods, reason = "a seat is dropped wherever its publisher ends")]
    fn drop(&mut self) {
        let now = now();
        let until = if self.has_ended { now } else { now + self.seats.grace };
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.leave(self.key, self.stream, until);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests turn the runtime's clock")]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn stream(number: u32) -> Identity {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Identity(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_counts_once_and_until_the_grace_after_its_last_publisher() {
        let (seats, here) = (Seats::new(GRACE), ip("10.0.0.1"));
        let others = |number| seats.others(now(), here, &stream(number));
        let (first, again, other) =
            (seats.take(here, stream(1)), seats.take(here, stream(1)), seats.take(here, stream(2)));
        assert_eq!((others(1), others(2), others(3)), (None, None, Some(2)));
        assert_eq!(seats.others(now(), ip("10.0.0.2"), &stream(1)), Some(0));
        drop(first);
        tokio::time::advance(GRACE * 2).await;
        assert_eq!(others(1), None, "it still has a publisher");
        drop(again);
        tokio::time::advance(GRACE - Duration::from_millis(1)).await;
        assert_eq!((others(1), others(3)), (None, Some(2)), "its session is kept for its publisher");
        let returned = seats.take(here, stream(1));
        tokio::time::advance(GRACE).await;
        assert_eq!(others(1), None, "its publisher returned");
        drop(returned);
        tokio::time::advance(GRACE).await;
        assert_eq!((others(1), others(3)), (Some(1), Some(1)));
        other.end();
        assert_eq!(others(2), Some(0), "a goodbye ends a session at once");
        let taken = seats.taken.lock().unwrap();
        assert!(taken.streams.is_empty() && taken.gone.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_without_a_publisher_are_remembered_within_a_bound() {
        let (seats, here) = (Seats::new(GRACE), ip("2001:db8::1"));
        let kept = seats.take(here, stream(u32::MAX));
        for number in 0..=u32::try_from(MAX_GONE).unwrap() {
            drop(seats.take(here, stream(number)));
        }
        assert_eq!(seats.taken.lock().unwrap().gone.len(), MAX_GONE);
        let same_customer = ip("2001:db8::2");
        assert_eq!(seats.others(now(), same_customer, &stream(0)), Some(MAX_GONE + 1), "the first one is forgotten");
        assert_eq!(seats.others(now(), same_customer, &stream(1)), None);
        assert_eq!(seats.others(now(), same_customer, &stream(u32::MAX)), None, "one with a publisher never is");
        drop(kept);
    }
}
