//! The rate at which an address may do something: a bucket of tokens per address, in bounded memory. In: the time and an address. Out: the
//! wait for a token. Pure. Next: `rules`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::bucket;

/// Addresses remembered at once, some 50 bytes each. Addresses that find the table full share one bucket: a botnet cannot grow the table, and
/// cannot lock out the addresses in it.
const MAX_ADDRESSES: usize = 8_192;

/// The rate of one kind of action, for all addresses.
#[derive(Debug)]
pub(super) struct AddressRate {
    burst: u32,
    every: Duration,
    /// The time at which each address's bucket is full again (GCRA's "theoretical arrival time").
    full_at: HashMap<IpAddr, Instant>,
    everyone_else: Option<Instant>,
}

impl AddressRate {
    /// A rate of `burst` tokens at once, and one more after each `every`.
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, full_at: HashMap::new(), everyone_else: None }
    }

    /// Changes the rate. What addresses have taken stays taken.
    pub(super) fn set(&mut self, burst: u32, every: Duration) {
        (self.burst, self.every) = (burst, every);
    }

    /// Takes a token of this address; false when there is none.
    pub(super) fn take(&mut self, now: Instant, address: IpAddr) -> bool {
        self.reserve(now, address, Duration::ZERO).is_some()
    }

    /// Takes a token of this address, also a future one: returns the wait for it. `None` when the wait is longer than `patience`; nothing is
    /// taken then.
    pub(super) fn reserve(&mut self, now: Instant, address: IpAddr, patience: Duration) -> Option<Duration> {
        let key = bucket(address);
        if self.full_at.len() >= MAX_ADDRESSES && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let room = self.full_at.len() < MAX_ADDRESSES || self.full_at.contains_key(&key);
        let known = if room { self.full_at.get(&key).copied() } else { self.everyone_else };
        let full_at = known.map_or(now, |at| at.max(now)) + self.every;
        let wait = (full_at - now).saturating_sub(self.every * self.burst);
        if wait > patience {
            return None;
        }
        if room {
            self.full_at.insert(key, full_at);
        } else {
            self.everyone_else = Some(full_at);
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn each_address_gets_a_burst_and_then_the_rate() {
        let (mut rate, start) = (AddressRate::new(3, Duration::from_secs(10)), origin());
        let at = |seconds| start + Duration::from_secs(seconds);
        let taken = [0, 0, 0, 0, 9, 10, 10, 20].map(|t| rate.take(at(t), v4(1)));
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
        assert!(rate.take(at(20), v4(2)));
        // After a long silence the burst is back and no more than the burst.
        assert_eq!([0; 4].map(|_| rate.take(at(1000), v4(1))), [true, true, true, false]);
    }

    #[test]
    fn publishers_reserve_later_tokens_in_turn_within_the_longest_wait() {
        let (mut rate, now) = (AddressRate::new(2, Duration::from_secs(10)), origin());
        let patience = Duration::from_secs(25);
        let seconds = |wait: Option<Duration>| wait.map(|wait| wait.as_secs());
        let reserved = [0; 6].map(|_| seconds(rate.reserve(now, v4(1), patience)));
        assert_eq!(reserved, [Some(0), Some(0), Some(10), Some(20), None, None]);
        assert_eq!(
            seconds(rate.reserve(now + Duration::from_secs(5), v4(1), patience)),
            Some(25),
            "refusals took nothing"
        );
        assert_eq!(seconds(rate.reserve(now, v4(2), patience)), Some(0));
    }

    #[test]
    fn memory_is_bounded_and_the_rest_share_a_bucket() {
        let (mut rate, start) = (AddressRate::new(2, Duration::from_secs(1)), origin());
        for n in 0..MAX_ADDRESSES as u32 {
            assert!(rate.take(start, v4(n)));
        }
        assert_eq!([9_000_001, 9_000_002, 9_000_003].map(|n| rate.take(start, v4(n))), [true, true, false]);
        assert!(rate.take(start, v4(5)), "an address in the table keeps its own bucket");
        let later = start + Duration::from_secs(3);
        assert!(rate.take(later, v4(9_000_003)), "buckets that are full again are forgotten");
        assert!(rate.full_at.len() < 10);
    }
}
