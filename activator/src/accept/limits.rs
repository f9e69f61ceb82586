//! How many connections may exist: at all, per address, and per address before its key was checked.
//!
//! In: the address of a connection. Out: a [`Permit`], which gives its place back when dropped. Pure but for the lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections that may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All of them. 16384: ten thousand held publishers and room for those who only knock; at a few KiB each.
    pub total: usize,
    /// From one address. 4096: a load balancer that hides its clients' addresses must still fit.
    pub per_address: usize,
    /// From one address, not yet admitted. 512: a venue's encoders that reconnect in the same second, and no more.
    pub strangers_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 16_384, per_address: 4_096, strangers_per_address: 512 }
    }
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// The process has as many connections as it may.
    Full,
    /// This address has as many as one may.
    Address,
    /// This address has too many that were not admitted yet.
    Strangers,
}

impl TurnedAway {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 3] = [Self::Full, Self::Address, Self::Strangers];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "connections_full",
            Self::Address => "address_full",
            Self::Strangers => "address_strangers",
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Share {
    open: usize,
    strangers: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    addresses: HashMap<IpAddr, Share>,
}

/// Hands out permits.
#[derive(Clone)]
pub struct Doorman {
    limits: Limits,
    // A lock, because permits are dropped wherever their publisher ends; held for a few map operations, never across an await.
    counts: Arc<Mutex<Counts>>,
}

impl Doorman {
    /// A doorman with nobody inside.
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// A place for a connection from `address`, counted as a stranger until [`Permit::admitted`].
    pub fn enter(&self, address: IpAddr) -> Result<Permit, TurnedAway> {
        let key = bucket(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.limits.total {
            return Err(TurnedAway::Full);
        }
        let share = counts.addresses.get(&key).copied().unwrap_or_default();
        if share.open >= self.limits.per_address {
            return Err(TurnedAway::Address);
        }
        if share.strangers >= self.limits.strangers_per_address {
            return Err(TurnedAway::Strangers);
        }
        counts.total += 1;
        counts.addresses.insert(key, Share { open: share.open + 1, strangers: share.strangers + 1 });
        Ok(Permit { counts: Arc::clone(&self.counts), key, stranger: true })
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// One connection's place. Dropping it gives the place back.
pub struct Permit {
    counts: Arc<Mutex<Counts>>,
    key: IpAddr,
    stranger: bool,
}

impl Permit {
    /// The publisher was admitted: it no longer counts among its address's strangers.
    pub fn admitted(&mut self) {
        if std::mem::take(&mut self.stranger) {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(share) = counts.addresses.get_mut(&self.key) {
                share.strangers = share.strangers.saturating_sub(1);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admitted();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(share) = counts.addresses.get_mut(&self.key) {
            share.open = share.open.saturating_sub(1);
            if share.open == 0 {
                counts.addresses.remove(&self.key);
            }
        }
    }
}

/// What counts as one address: IPv4 itself, of IPv6 the /64 (one customer has at least that many addresses).
pub(crate) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Doorman {
        Doorman::new(Limits { total: 5, per_address: 3, strangers_per_address: 2 })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dropped_permit_gives_everything_back() {
        let door = small();
        let a = door.enter(ip("10.0.0.1")).unwrap();
        let mut b = door.enter(ip("10.0.0.1")).unwrap();
        b.admitted();
        b.admitted();
        assert_eq!(door.open(), 2);
        drop((a, b));
        assert_eq!(door.open(), 0);
        assert!(door.counts.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn strangers_are_limited_before_addresses_before_all() {
        let door = small();
        let mut first = door.enter(ip("10.0.0.1")).unwrap();
        let mut second = door.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(door.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Strangers));
        first.admitted();
        second.admitted();
        let _third = door.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(door.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Address));
        let _others = [door.enter(ip("10.0.0.2")).unwrap(), door.enter(ip("10.0.0.3")).unwrap()];
        assert_eq!(door.enter(ip("10.0.0.4")).err(), Some(TurnedAway::Full));
    }

    #[test]
    fn a_mapped_address_is_the_same_address_and_a_v6_customer_is_one_address() {
        let door = small();
        let _a = door.enter(ip("::ffff:10.0.0.1")).unwrap();
        let _b = door.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(door.enter(ip("::ffff:10.0.0.1")).err(), Some(TurnedAway::Strangers));
        let _c = door.enter(ip("2001:db8::1")).unwrap();
        let _d = door.enter(ip("2001:db8::ffff:2")).unwrap();
        assert_eq!(door.enter(ip("2001:db8::3")).err(), Some(TurnedAway::Strangers));
    }
}
