//! The share of one address (IPv6: of one /64) in places that all callers have together. In: addresses of callers that have proved themselves. Out: a place, or none.
//!
//! One worker whose process is taken over knows the control secret, and could take every place. Callers from this machine have no such bound: the
//! process fleet's workers all come from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::bucket;

/// The places in use, by address.
#[derive(Clone, Debug)]
pub(super) struct AddressShares {
    most: usize,
    // A lock, because places are given back by Drop, wherever that happens; held for one map operation.
    used: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place of an address. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct AddressPlace {
    address: IpAddr,
    shares: AddressShares,
}

impl AddressShares {
    /// No address may have more places than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, used: Arc::default() }
    }

    /// A place, if the address has one left.
    pub(super) fn take(&self, address: IpAddr) -> Option<AddressPlace> {
        let is_here = address.to_canonical().is_loopback();
        let address = bucket(address);
        let mut all = self.used();
        let used = all.entry(address).or_default();
        if *used >= self.most && !is_here {
            return None;
        }
        *used += 1;
        Some(AddressPlace { address, shares: self.clone() })
    }

    fn used(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut all = self.shares.used();
        if let Some(used) = all.get_mut(&self.address) {
            *used -= 1;
            if *used == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_its_share_and_gets_places_back() {
        let shares = AddressShares::new(2);
        let (one, mapped, other): (IpAddr, IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = shares.take(one).unwrap();
        let second = shares.take(mapped).unwrap();
        assert!(shares.take(one).is_none());
        assert!(shares.take(other).is_some(), "another address");
        drop(first);
        let third = shares.take(one).unwrap();
        assert!(shares.take(one).is_none());
        drop((second, third));
        assert!(shares.used().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_have_one_share() {
        let shares = AddressShares::new(1);
        let [one, neighbour, other] =
            ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let _first = shares.take(one).unwrap();
        assert!(shares.take(neighbour).is_none());
        assert!(shares.take(other).is_some());
    }

    #[test]
    fn callers_from_this_machine_have_no_share() {
        let shares = AddressShares::new(1);
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let here: IpAddr = here.parse().unwrap();
            assert!([(); 5].map(|()| shares.take(here)).iter().all(Option::is_some), "{here}");
        }
    }
}
