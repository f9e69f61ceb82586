//! How many connections may exist: at all, per address, and per address before its key was checked.
//!
//! In: the address of a connection. Out: a [`Permit`], which gives its place back when dropped. Pure but for the lock.
//!
//! Where there is no place, the connection that has been knocking for longest makes room. What surprised us: behind a load balancer that
//! hides addresses, one stranger with a few hundred idle connections is everybody's address, and who is turned away then is always the
//! next publisher. A publisher knocks for a second; who guesses keys has knocked and waits for its "no", so guessing stays slow.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::net::bucket;

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
    /// Who came when, of those that have not asked for anything yet.
    knocking: BTreeMap<u64, IpAddr>,
    /// The same by address.
    knocking_of: BTreeMap<(IpAddr, u64), CancellationToken>,
    next: u64,
}

impl Counts {
    fn share(&self, key: IpAddr) -> Share {
        self.addresses.get(&key).copied().unwrap_or_default()
    }

    /// What there is no room for.
    fn refusal(&self, limits: &Limits, key: IpAddr) -> Option<TurnedAway> {
        let share = self.share(key);
        if self.total >= limits.total {
            Some(TurnedAway::Full)
        } else if share.open >= limits.per_address {
            Some(TurnedAway::Address)
        } else if share.strangers >= limits.strangers_per_address {
            Some(TurnedAway::Strangers)
        } else {
            None
        }
    }

    /// Sends the one away that has been knocking for longest; false when none is.
    fn make_room(&mut self, why: TurnedAway, key: IpAddr) -> bool {
        let longest = match why {
            TurnedAway::Full => self.knocking.first_key_value().map(|(number, key)| (*key, *number)),
            TurnedAway::Address | TurnedAway::Strangers => {
                self.knocking_of.range((key, 0)..=(key, u64::MAX)).next().map(|(place, _)| *place)
            }
        };
        let Some((key, number)) = longest else { return false };
        if let Some(lost) = self.listen_to(key, number) {
            lost.cancel();
        }
        self.leave(key, true);
        true
    }

    /// It knocks no longer; `None` when it did not.
    fn listen_to(&mut self, key: IpAddr, number: u64) -> Option<CancellationToken> {
        self.knocking.remove(&number);
        self.knocking_of.remove(&(key, number))
    }

    fn come(&mut self, key: IpAddr, stranger: bool) {
        self.total += 1;
        let share = self.share(key);
        let strangers = share.strangers + usize::from(stranger);
        self.addresses.insert(key, Share { open: share.open + 1, strangers });
    }

    fn leave(&mut self, key: IpAddr, stranger: bool) {
        self.total = self.total.saturating_sub(1);
        if let Some(share) = self.addresses.get_mut(&key) {
            share.open = share.open.saturating_sub(1);
            share.strangers = share.strangers.saturating_sub(usize::from(stranger));
            if share.open == 0 {
                self.addresses.remove(&key);
            }
        }
    }
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
        let mut instead = None;
        // Each time round has one connection less.
        while let Some(why) = counts.refusal(&self.limits, key) {
            if !counts.make_room(why, key) {
                return Err(why);
            }
            instead = Some(why);
        }
        counts.come(key, true);
        let number = counts.next;
        counts.next += 1;
        let lost = CancellationToken::new();
        counts.knocking.insert(number, key);
        counts.knocking_of.insert((key, number), lost.clone());
        Ok(Permit { counts: Arc::clone(&self.counts), key, number, stage: Stage::Knocking(lost), instead })
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
    number: u64,
    stage: Stage,
    instead: Option<TurnedAway>,
}

enum Stage {
    Knocking(CancellationToken),
    Stranger,
    Admitted,
}

impl Permit {
    /// Somebody else was turned away for this one.
    pub fn instead(&self) -> Option<TurnedAway> {
        self.instead
    }

    /// Returns when the place is somebody else's. Only who still knocks can lose it. Cancel safe.
    pub async fn lost(&self) {
        match &self.stage {
            Stage::Knocking(lost) => lost.cancelled().await,
            Stage::Stranger | Stage::Admitted => std::future::pending().await,
        }
    }

    /// The publisher has said what it wants: its place is its own until it is dropped.
    pub fn judged(&mut self) {
        if matches!(self.stage, Stage::Knocking(_)) {
            self.stage = Stage::Stranger;
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if counts.listen_to(self.key, self.number).is_none() {
                // It has lost its place in this very moment, and nobody has told it: one more than there may be.
                counts.come(self.key, true);
            }
        }
    }

    /// The publisher was admitted: it no longer counts among its address's strangers.
    pub fn admitted(&mut self) {
        self.judged();
        if matches!(self.stage, Stage::Stranger) {
            self.stage = Stage::Admitted;
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(share) = counts.addresses.get_mut(&self.key) {
                share.strangers = share.strangers.saturating_sub(1);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match self.stage {
            // Who has lost its place has none to give back.
            Stage::Knocking(_) if counts.listen_to(self.key, self.number).is_none() => {}
            Stage::Knocking(_) | Stage::Stranger => counts.leave(self.key, true),
            Stage::Admitted => counts.leave(self.key, false),
        }
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

    /// One that has said what it wants.
    fn judged(door: &Doorman, address: &str) -> Result<Permit, TurnedAway> {
        let mut permit = door.enter(ip(address))?;
        permit.judged();
        Ok(permit)
    }

    fn has_lost(permit: &Permit) -> bool {
        matches!(&permit.stage, Stage::Knocking(lost) if lost.is_cancelled())
    }

    #[test]
    fn strangers_are_limited_before_addresses_before_all() {
        let door = small();
        let mut first = judged(&door, "10.0.0.1").unwrap();
        let mut second = judged(&door, "10.0.0.1").unwrap();
        assert_eq!(door.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Strangers));
        first.admitted();
        second.admitted();
        let _third = judged(&door, "10.0.0.1").unwrap();
        assert_eq!(door.enter(ip("10.0.0.1")).err(), Some(TurnedAway::Address));
        let _others = [judged(&door, "10.0.0.2").unwrap(), judged(&door, "10.0.0.3").unwrap()];
        assert_eq!(door.enter(ip("10.0.0.4")).err(), Some(TurnedAway::Full));
    }

    #[test]
    fn who_has_knocked_longest_makes_room_for_the_next_of_its_address() {
        let door = small();
        let other = door.enter(ip("10.0.0.2")).unwrap();
        let (first, mut second) = (door.enter(ip("10.0.0.1")).unwrap(), door.enter(ip("10.0.0.1")).unwrap());
        let third = door.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(third.instead(), Some(TurnedAway::Strangers));
        assert!(has_lost(&first) && !has_lost(&second) && !has_lost(&third) && !has_lost(&other));
        assert_eq!(door.open(), 3);
        drop(first);
        assert_eq!(door.open(), 3, "it had nothing to give back");
        // Who guesses keys and waits for the answer makes no room, so that it cannot guess any faster.
        second.judged();
        let fourth = door.enter(ip("10.0.0.1")).unwrap();
        assert!(has_lost(&third) && !has_lost(&second) && !has_lost(&fourth));
        drop((second, third, fourth, other));
        let counts = door.counts.lock().unwrap();
        assert!(counts.total == 0 && counts.addresses.is_empty());
        assert!(counts.knocking.is_empty() && counts.knocking_of.is_empty());
    }

    #[test]
    fn a_full_house_sends_away_who_has_knocked_longest_of_all() {
        let door = small();
        let mut early = door.enter(ip("10.0.0.9")).unwrap();
        let knocking: Vec<Permit> = (1..5).map(|n| door.enter(IpAddr::from([10, 0, 0, n])).unwrap()).collect();
        let last = door.enter(ip("10.0.0.7")).unwrap();
        assert!(last.instead() == Some(TurnedAway::Full) && has_lost(&early) && !has_lost(&knocking[0]));
        // It was heard before it was told: it stays.
        early.admitted();
        assert_eq!(door.open(), 6);
        drop((early, last, knocking));
        assert!(door.open() == 0 && door.counts.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn a_mapped_address_is_the_same_address_and_a_v6_customer_is_one_address() {
        let door = small();
        let _a = judged(&door, "::ffff:10.0.0.1").unwrap();
        let _b = judged(&door, "10.0.0.1").unwrap();
        assert_eq!(door.enter(ip("::ffff:10.0.0.1")).err(), Some(TurnedAway::Strangers));
        let _c = judged(&door, "2001:db8::1").unwrap();
        let _d = judged(&door, "2001:db8::ffff:2").unwrap();
        assert_eq!(door.enter(ip("2001:db8::3")).err(), Some(TurnedAway::Strangers));
    }
}
