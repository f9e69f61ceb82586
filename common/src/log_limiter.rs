//! A limit on log lines that a stranger can cause at will. In: the time. Out: whether a line is due.
//!
//! Note: an operator wants a warning per refused proof when one worker has an old secret; when somebody sends a hundred thousand bad
//! proofs, the same warning fills the disk.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one log line, or a small number of lines, through per interval.
#[derive(Debug)]
pub struct LogLimiter {
    every: Duration,
    /// Most lines of one interval.
    most: u32,
    // A lock, because it is a static that tasks share; held for one comparison. The beginning of the current interval, and its lines.
    interval: Mutex<Option<(Instant, u32)>>,
}

impl LogLimiter {
    /// A limiter that lets the first line through at once, and then at most one per `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self::several(1, every)
    }

    /// A limiter that lets at most `most` lines through in an interval of `every`, which begins with the first of them.
    #[must_use]
    pub const fn several(most: u32, every: Duration) -> Self {
        Self { every, most, interval: Mutex::new(None) }
    }

    /// True if a line may be logged at `now`; it counts as logged then.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut interval = self.interval.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, lines) =
            interval.filter(|(begun, _)| now.saturating_duration_since(*begun) < self.every).unwrap_or((now, 0));
        let due = lines < self.most;
        *interval = Some((begun, lines + u32::from(due)));
        due
    }
}

/// Lets one log line of each peer through per interval, so that a peer which causes many does not hide the line of another. IPv6 addresses of one /64
/// are one peer, because one machine has them all.
#[derive(Debug)]
pub struct PeerLogLimiter {
    every: Duration,
    /// Most peers with a line in one interval, and with it most lines.
    most: usize,
    // A lock, because it is a static that tasks share; held for a look at `most` entries. The time of each peer's last line.
    lines: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl PeerLogLimiter {
    /// A limiter that lets a line of each of at most `most` peers through per `every`.
    #[must_use]
    pub const fn new(most: usize, every: Duration) -> Self {
        Self { every, most, lines: Mutex::new(BTreeMap::new()) }
    }

    /// True if a line about `peer` may be logged at `now`; it counts as logged then.
    pub fn is_due(&self, peer: IpAddr, now: Instant) -> bool {
        let peer = match peer.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 => v4,
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, last| now.saturating_duration_since(*last) < self.every);
        let due = lines.len() < self.most && !lines.contains_key(&peer);
        if due {
            lines.insert(peer, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::origin;

    #[test]
    fn first_line_passes_then_one_per_interval() {
        let (limiter, origin) = (LogLimiter::new(Duration::from_secs(1)), origin());
        let due =
            [0, 0, 400, 999, 1000, 1001, 1999, 9000, 9000].map(|at| limiter.is_due(origin + Duration::from_millis(at)));
        assert_eq!(due, [true, false, false, false, true, false, false, true, false]);
    }

    #[test]
    fn each_peer_has_its_line_and_many_peers_have_a_bound() {
        let (limiter, origin) = (PeerLogLimiter::new(3, Duration::from_secs(1)), origin());
        let due = |peer: &str, at| limiter.is_due(peer.parse().unwrap(), origin + Duration::from_millis(at));
        assert!(due("10.0.0.1", 0) && !due("10.0.0.1", 0) && !due("::ffff:10.0.0.1", 1));
        assert!(due("10.0.0.2", 1), "the line of another peer is hidden");
        assert!(due("2001:db8::1", 2) && !due("2001:db8::2", 2), "one machine has a whole /64");
        assert!(!due("10.0.0.4", 3), "the bound");
        assert!(due("10.0.0.4", 1000), "the first one has made room");
        assert!(!due("10.0.0.1", 1000) && due("10.0.0.1", 1001));
        assert!(limiter.lines.lock().unwrap().len() <= 3);
    }

    #[test]
    fn several_lines_pass_in_each_interval() {
        let (limiter, origin) = (LogLimiter::several(2, Duration::from_secs(1)), origin());
        let due = [0, 900, 950, 1000, 1001, 1002].map(|at| limiter.is_due(origin + Duration::from_millis(at)));
        assert_eq!(due, [true, true, false, true, true, false]);
    }
}
