//! The proxies whose PROXY header counts. In: addresses and ranges, of `TRUSTED_PROXIES` and of the configuration file. Out: whether an address
//! is one of them, now. Next: `accept`, which reads the header.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// A range of addresses, as `10.0.0.0/8` or `2001:db8::/32` says it; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    /// Leading bits that an address of the range shares.
    bits: u8,
}

impl AddressRange {
    /// True if the address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u32::from(ours) ^ u32::from(theirs)).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (u128::from(ours) ^ u128::from(theirs)).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address and no range: write 10.0.0.5 or 10.0.0.0/8");
        let (network, bits) = text.split_once('/').map_or((text, None), |(network, bits)| (network, Some(bits)));
        let network: IpAddr = network.parse().map_err(|_| wrong())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?,
        };
        if network.to_canonical() != network {
            return Err(format!("{text:?} is an IPv4 address in IPv6's clothes: write the IPv4 address"));
        }
        Ok(Self { network, bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

/// The proxies whose PROXY header counts, as they are now. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// The ranges of `TRUSTED_PROXIES`.
    set: Arc<[AddressRange]>,
    /// The ranges of the configuration file. There is a lock because the file may change; held for one comparison or one store.
    listed: Arc<RwLock<Vec<AddressRange>>>,
}

impl TrustedProxies {
    /// These, and those of the configuration file.
    #[must_use]
    pub fn new(set: Vec<AddressRange>, listed: Vec<AddressRange>) -> Self {
        Self { set: set.into(), listed: Arc::new(RwLock::new(listed)) }
    }

    /// True if the header of a connection from this address counts.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let listed = || self.listed.read().unwrap_or_else(PoisonError::into_inner);
        self.set.iter().chain(listed().iter()).any(|range| range.contains(address))
    }

    /// Takes the list of a configuration file that was read again.
    pub(super) fn list(&self, listed: &[AddressRange]) {
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = listed.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_contains_its_own_addresses_alone() {
        for (range, address, within) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3/32", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "10.0.0.1", false),
            ("192.168.3.128/25", "192.168.3.127", false),
        ] {
            let parsed: AddressRange = range.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), within, "{address} in {range}");
        }
    }

    #[test]
    fn text_that_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::/129",
            "proxy.example",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn list_of_the_file_changes_and_the_setting_stays() {
        let proxies = TrustedProxies::new(vec!["10.0.0.1".parse().unwrap()], vec!["10.0.0.2".parse().unwrap()]);
        let seen = proxies.clone();
        let trusted = || [1, 2, 3].map(|last| seen.trusts([10, 0, 0, last].into()));
        assert_eq!(trusted(), [true, true, false]);
        proxies.list(&["10.0.0.3".parse().unwrap()]);
        assert_eq!(trusted(), [true, false, true]);
    }
}
