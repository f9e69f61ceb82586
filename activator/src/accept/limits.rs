//! The bounds on connections: of all, per address, and per address before admission. In: the address of a connection. Out: a [`Permit`], which
//! gives its place back when dropped. Pure but for the lock. Next: `task`, which closes connections without a permit.
//!
//! A connection is undecided until admission has answered its publisher. Where there is no room, the oldest undecided connection is
//! evicted. Note: behind a load balancer that hides addresses, one stranger with a few hundred idle connections has everybody's address, and
//! with a bound that refuses the newest connection, that is always the next publisher. A publisher is undecided for a second; one that
//! guesses keys has been decided about and waits for its "no", so guessing stays slow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveedgecast_common::evicting_limit::EvictionOrder;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::net::bucket;

/// Time from a connection to the end of its TLS handshake. Two round trips; RTMP's handshake then has the same time of its own.
pub(super) const TLS_TIME: Duration = Duration::from_secs(10);

/// Bytes of a peer's TLS handshake, at most. A ClientHello has 300 to 2000 bytes, and the rest of the handshake a few hundred.
pub(super) const HANDSHAKE_BYTES: usize = 16 << 10;

/// Time from the connection of a trusted proxy to the end of its PROXY header, which it sends first of all and at once.
pub(super) const PROXY_TIME: Duration = Duration::from_secs(5);

/// Time for a peer that speaks the wrong protocol to read our answer and close.
pub(super) const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Bytes that are read and discarded within [`FAREWELL_TIME`], at most: a first packet of RTMP.
pub(super) const FAREWELL_BYTES: usize = 16 << 10;

/// The bound that a connection did not fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// The process has as many connections as it may have.
    Full,
    /// The address has as many connections as one may have.
    Address,
    /// The address has too many connections that are not admitted yet.
    Strangers,
}

impl TurnedAway {
    /// Every bound, for metrics that exist before the first event.
    pub const ALL: [Self; 3] = [Self::Full, Self::Address, Self::Strangers];

    /// The bound as logs and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "connections_full",
            Self::Address => "address_full",
            Self::Strangers => "address_strangers",
        }
    }
}

#[derive(Clone, Copy, Default)]
struct AddressCount {
    open: usize,
    strangers: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    addresses: HashMap<IpAddr, AddressCount>,
    undecided: EvictionOrder<Option<IpAddr>>,
}

impl Counts {
    /// The bound that one more connection of this address does not fit into.
    fn refusal(&self, limits: &Limits, key: Option<IpAddr>) -> Option<TurnedAway> {
        let address = key.and_then(|key| self.addresses.get(&key)).copied().unwrap_or_default();
        if self.total >= limits.total {
            Some(TurnedAway::Full)
        } else if address.open >= limits.per_address {
            Some(TurnedAway::Address)
        } else if address.strangers >= limits.strangers_per_address {
            Some(TurnedAway::Strangers)
        } else {
            None
        }
    }

    /// Evicts the oldest undecided connection, of the address if that is full; false when there is none.
    fn make_room(&mut self, why: TurnedAway, key: Option<IpAddr>) -> bool {
        let group = match why {
            TurnedAway::Full => None,
            TurnedAway::Address | TurnedAway::Strangers => Some(key),
        };
        let evicted = self.undecided.evict(group);
        if let Some(key) = evicted {
            self.leave(key, true);
        }
        evicted.is_some()
    }

    /// Counts a connection that is not admitted yet.
    fn enter(&mut self, key: Option<IpAddr>) {
        self.total += 1;
        let Some(key) = key else { return };
        let address = self.addresses.entry(key).or_default();
        address.open += 1;
        address.strangers += 1;
    }

    fn leave(&mut self, key: Option<IpAddr>, stranger: bool) {
        self.total = self.total.saturating_sub(1);
        let Some(key) = key else { return };
        if let Some(address) = self.addresses.get_mut(&key) {
            address.open = address.open.saturating_sub(1);
            address.strangers = address.strangers.saturating_sub(usize::from(stranger));
            if address.open == 0 {
                self.addresses.remove(&key);
            }
        }
    }

    /// Makes room for one more connection of an address, and counts it. Returns the bound for which another connection was evicted.
    fn take_place(&mut self, limits: &Limits, key: Option<IpAddr>) -> Result<Option<TurnedAway>, TurnedAway> {
        let mut instead = None;
        // The loop ends, because each eviction leaves one connection less.
        while let Some(why) = self.refusal(limits, key) {
            if !self.make_room(why, key) {
                return Err(why);
            }
            instead = Some(why);
        }
        self.enter(key);
        Ok(instead)
    }
}

/// The bounds, and the connections that count against them.
#[derive(Clone)]
pub struct ConnectionLimits {
    limits: Limits,
    // A lock, because permits are dropped wherever their publisher ends; held for a few map operations, never across an await.
    counts: Arc<Mutex<Counts>>,
}

impl ConnectionLimits {
    /// Bounds that no connection counts against.
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// A place for a connection from `address`, which is undecided until [`Permit::decided`].
    ///
    /// # Errors
    /// The bound that is reached, when no undecided connection can make room.
    pub fn enter(&self, address: IpAddr) -> Result<Permit, TurnedAway> {
        self.take_place(Some(bucket(address)))
    }

    /// A place for a connection of a trusted proxy, whose client is not known yet: it counts in the process alone until [`Permit::name`].
    ///
    /// # Errors
    /// The process is full, and no undecided connection can make room.
    pub fn enter_nameless(&self) -> Result<Permit, TurnedAway> {
        self.take_place(None)
    }

    fn take_place(&self, key: Option<IpAddr>) -> Result<Permit, TurnedAway> {
        let mut counts = lock(&self.counts);
        let instead = counts.take_place(&self.limits, key)?;
        let lost = CancellationToken::new();
        let number = counts.undecided.insert(key, lost.clone());
        let (limits, counts) = (self.limits, Arc::clone(&self.counts));
        Ok(Permit { limits, counts, key, number, stage: PermitStage::Undecided(lost), instead })
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of one connection. Dropping it gives the place back.
pub struct Permit {
    limits: Limits,
    counts: Arc<Mutex<Counts>>,
    /// The address; `None` while the client of a proxy is not known.
    key: Option<IpAddr>,
    number: u64,
    stage: PermitStage,
    instead: Option<TurnedAway>,
}

enum PermitStage {
    /// The token is cancelled by eviction.
    Undecided(CancellationToken),
    Stranger,
    Admitted,
}

impl Permit {
    /// The bound for which another connection was evicted.
    pub fn instead(&self) -> Option<TurnedAway> {
        self.instead
    }

    /// Counts the connection under the address of its client, which its proxy has named. It is the newest connection of that address.
    ///
    /// # Errors
    /// The bound that the address, or the process, has reached; the permit keeps its nameless place until it is dropped.
    pub fn name(&mut self, address: IpAddr) -> Result<(), TurnedAway> {
        let PermitStage::Undecided(lost) = &self.stage else { return Ok(()) };
        let mut counts = lock(&self.counts);
        if !counts.undecided.remove(self.number) {
            // It was evicted in this very moment, and its task has not noticed.
            return Err(TurnedAway::Full);
        }
        counts.leave(self.key, true);
        let key = Some(bucket(address));
        match counts.take_place(&self.limits, key) {
            Ok(instead) => (self.key, self.instead) = (key, instead),
            Err(why) => {
                counts.enter(self.key);
                self.number = counts.undecided.insert(self.key, lost.clone());
                return Err(why);
            }
        }
        self.number = counts.undecided.insert(self.key, lost.clone());
        Ok(())
    }

    /// Returns when the place has been given to another connection. Only an undecided connection can lose it. Cancel safe.
    pub async fn lost(&self) {
        match &self.stage {
            PermitStage::Undecided(lost) => lost.cancelled().await,
            PermitStage::Stranger | PermitStage::Admitted => std::future::pending().await,
        }
    }

    /// Keeps the place until it is dropped: admission has answered the publisher, or has taken too long.
    pub fn decided(&mut self) {
        if matches!(self.stage, PermitStage::Undecided(_)) {
            self.stage = PermitStage::Stranger;
            let mut counts = lock(&self.counts);
            if !counts.undecided.remove(self.number) {
                // It was evicted in this very moment, and its task has not noticed: one connection more than there may be.
                counts.enter(self.key);
            }
        }
    }

    /// Counts the connection no longer among its address's strangers: the publisher was admitted.
    pub fn admitted(&mut self) {
        self.decided();
        if matches!(self.stage, PermitStage::Stranger) {
            self.stage = PermitStage::Admitted;
            let mut counts = lock(&self.counts);
            if let Some(address) = self.key.and_then(|key| counts.addresses.get_mut(&key)) {
                address.strangers = address.strangers.saturating_sub(1);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        match self.stage {
            // An evicted connection has no place to give back.
            PermitStage::Undecided(_) if !counts.undecided.remove(self.number) => {}
            PermitStage::Undecided(_) | PermitStage::Stranger => counts.leave(self.key, true),
            PermitStage::Admitted => counts.leave(self.key, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ConnectionLimits {
        ConnectionLimits::new(Limits { total: 5, per_address: 3, strangers_per_address: 2 })
    }

    /// Connections open now.
    fn open(limits: &ConnectionLimits) -> usize {
        lock(&limits.counts).total
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn dropped_permit_gives_everything_back() {
        let limits = small();
        let a = limits.enter(ip("10.0.0.1")).unwrap();
        let mut b = limits.enter(ip("10.0.0.1")).unwrap();
        b.admitted();
        b.admitted();
        assert_eq!(open(&limits), 2);
        drop((a, b));
        assert_eq!(open(&limits), 0);
        assert!(limits.counts.lock().unwrap().addresses.is_empty());
    }

    /// A connection whose publisher has asked for something.
    fn decided(limits: &ConnectionLimits, address: &str) -> Result<Permit, TurnedAway> {
        let mut permit = limits.enter(ip(address))?;
        permit.decided();
        Ok(permit)
    }

    fn has_lost(permit: &Permit) -> bool {
        matches!(&permit.stage, PermitStage::Undecided(lost) if lost.is_cancelled())
    }

    #[test]
    fn strangers_are_limited_before_addresses_and_those_before_all() {
        let limits = small();
        let mut first = decided(&limits, "10.0.0.1").unwrap();
        let mut second = decided(&limits, "10.0.0.1").unwrap();
        assert_eq!(limits.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Strangers));
        first.admitted();
        second.admitted();
        let _third = decided(&limits, "10.0.0.1").unwrap();
        assert_eq!(limits.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Address));
        let _others = [decided(&limits, "10.0.0.2").unwrap(), decided(&limits, "10.0.0.3").unwrap()];
        assert_eq!(limits.enter(ip("10.0.0.4")).err(), Some(TurnedAway::Full));
    }

    #[test]
    fn oldest_undecided_connection_makes_room_for_the_next_of_its_address() {
        let limits = small();
        let other = limits.enter(ip("10.0.0.2")).unwrap();
        let (first, mut second) = (limits.enter(ip("10.0.0.1")).unwrap(), limits.enter(ip("10.0.0.1")).unwrap());
        let third = limits.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(third.instead(), Some(TurnedAway::Strangers));
        assert!(has_lost(&first) && !has_lost(&second) && !has_lost(&third) && !has_lost(&other));
        assert_eq!(open(&limits), 3);
        drop(first);
        assert_eq!(open(&limits), 3, "an evicted connection has nothing to give back");
        // A publisher that guesses keys and waits for the answer makes no room, so that it cannot guess any faster.
        second.decided();
        let fourth = limits.enter(ip("10.0.0.1")).unwrap();
        assert!(has_lost(&third) && !has_lost(&second) && !has_lost(&fourth));
        drop((second, third, fourth, other));
        let counts = limits.counts.lock().unwrap();
        assert!(counts.total == 0 && counts.addresses.is_empty());
        assert!(counts.undecided.is_empty());
    }

    #[test]
    fn full_process_evicts_the_oldest_undecided_connection_of_all() {
        let limits = small();
        let mut early = limits.enter(ip("10.0.0.9")).unwrap();
        let undecided: Vec<Permit> = (1..5).map(|n| limits.enter(IpAddr::from([10, 0, 0, n])).unwrap()).collect();
        let last = limits.enter(ip("10.0.0.7")).unwrap();
        assert!(last.instead() == Some(TurnedAway::Full) && has_lost(&early) && !has_lost(&undecided[0]));
        // Its publisher was admitted before its task noticed the eviction: it stays.
        early.admitted();
        assert_eq!(open(&limits), 6);
        drop((early, last, undecided));
        assert!(open(&limits) == 0 && limits.counts.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn mapped_address_is_the_same_address_and_a_v6_customer_is_one() {
        let limits = small();
        let _a = decided(&limits, "::ffff:10.0.0.1").unwrap();
        let _b = decided(&limits, "10.0.0.1").unwrap();
        assert_eq!(limits.enter(ip("::ffff:10.0.0.1")).err(), Some(TurnedAway::Strangers));
        let _c = decided(&limits, "2001:db8::1").unwrap();
        let _d = decided(&limits, "2001:db8::ffff:2").unwrap();
        assert_eq!(limits.enter(ip("2001:db8::3")).err(), Some(TurnedAway::Strangers));
    }

    #[test]
    fn client_of_a_proxy_counts_under_its_own_address_once_it_is_named() {
        let limits = small();
        let mut proxied: Vec<Permit> = (0..3).map(|_| limits.enter_nameless().unwrap()).collect();
        assert!(open(&limits) == 3 && lock(&limits.counts).addresses.is_empty(), "no address has three connections");
        for permit in &mut proxied[..2] {
            permit.name(ip("10.0.0.1")).unwrap();
        }
        assert!(!has_lost(&proxied[0]));
        // The third connection of that client evicts its first one.
        proxied[2].name(ip("10.0.0.1")).unwrap();
        assert!(proxied[2].instead() == Some(TurnedAway::Strangers) && has_lost(&proxied[0]));
        assert!(proxied[0].name(ip("10.0.0.2")).is_err(), "an evicted connection has no place to name");
        proxied[1].decided();
        proxied[2].decided();
        let mut last = limits.enter_nameless().unwrap();
        assert_eq!(last.name(ip("10.0.0.1")), Err(TurnedAway::Strangers));
        assert_eq!(open(&limits), 3);
        drop((proxied, last));
        assert!(open(&limits) == 0 && lock(&limits.counts).addresses.is_empty());
        assert!(lock(&limits.counts).undecided.is_empty());
    }

    #[test]
    fn every_stage_of_a_permit_counts_until_the_permit_is_dropped_or_evicted() {
        #[derive(Clone, Copy, Debug)]
        enum Step {
            Decided,
            Admitted,
            /// One more connection from the same address, which has room for one stranger.
            Next,
        }
        use Step::{Admitted, Decided, Next};
        // Steps, the stage of the permit after them, and the address's connections and strangers.
        let table: [(&[Step], &str, (usize, usize)); 10] = [
            (&[], "undecided", (1, 1)),
            (&[Decided], "stranger", (1, 1)),
            (&[Decided, Decided], "stranger", (1, 1)),
            (&[Admitted], "admitted", (1, 0)),
            (&[Decided, Admitted], "admitted", (1, 0)),
            (&[Next], "evicted", (1, 1)),
            // The decision came before the eviction was noticed: one connection more than the bound.
            (&[Next, Decided], "stranger", (2, 2)),
            (&[Next, Admitted], "admitted", (2, 1)),
            (&[Decided, Next], "stranger", (1, 1)),
            (&[Admitted, Next], "admitted", (2, 1)),
        ];
        for (steps, stage, counts) in table {
            let limits = ConnectionLimits::new(Limits { total: 5, per_address: 3, strangers_per_address: 1 });
            let mut permit = limits.enter(ip("10.0.0.1")).unwrap();
            let mut others = Vec::new();
            for step in steps {
                match step {
                    Decided => permit.decided(),
                    Admitted => permit.admitted(),
                    Next => others.extend(limits.enter(ip("10.0.0.1"))),
                }
            }
            let found = match &permit.stage {
                PermitStage::Undecided(lost) if lost.is_cancelled() => "evicted",
                PermitStage::Undecided(_) => "undecided",
                PermitStage::Stranger => "stranger",
                PermitStage::Admitted => "admitted",
            };
            let address = lock(&limits.counts).addresses[&ip("10.0.0.1")];
            assert_eq!((found, (address.open, address.strangers)), (stage, counts), "{steps:?}");
            drop((permit, others));
            assert_eq!(open(&limits), 0, "{steps:?}");
        }
    }
}
