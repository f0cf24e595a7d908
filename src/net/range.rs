//! An IPv4 range in CIDR notation.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range such as `10.42.0.0/24`, of at least four addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    network: Ipv4Addr,
    prefix: u8,
}

/// The text is not a usable range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not an IPv4 range like 10.42.0.0/24 with a prefix of at most 30 bits")]
pub struct RangeError {
    text: String,
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if !(1..=30).contains(&prefix) {
            return Err(error());
        }
        let range = Self { network: address, prefix };
        Ok(Self { network: address & range.mask(), prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Range {
    /// Addresses of others, such as `192.0.2.1/32` or `0.0.0.0/0`: any prefix will do.
    ///
    /// # Errors
    /// When the text is not an IPv4 range.
    pub fn block(text: &str) -> Result<Self, RangeError> {
        let parts =
            text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let (address, prefix): (Ipv4Addr, u8) =
            parts.filter(|(_, prefix)| *prefix <= 32).ok_or_else(|| RangeError { text: text.to_owned() })?;
        let range = Self { network: address, prefix };
        Ok(Self { network: address & range.mask(), prefix })
    }

    /// The first address, which names the network.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// The range with this prefix that this one is part of; itself if it is no longer than that.
    pub fn widened(&self, prefix: u8) -> Self {
        if !(1..self.prefix).contains(&prefix) {
            return *self;
        }
        let wide = Self { network: self.network, prefix };
        Self { network: self.network & wide.mask(), prefix }
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network
    }

    /// Whether all its addresses are in another range.
    pub fn is_within(&self, other: &Self) -> bool {
        self.prefix >= other.prefix && other.contains(self.network)
    }

    /// What is left of a range without some others, in ranges.
    pub(crate) fn without(&self, others: &[Self]) -> Vec<Self> {
        let inside: Vec<Self> = others.iter().filter(|other| other.is_within(self)).copied().collect();
        if others.iter().any(|other| self.is_within(other)) {
            return Vec::new();
        }
        if inside.is_empty() {
            return vec![*self];
        }
        // Not one address only, or the others would have it.
        let prefix = self.prefix + 1;
        let half = 1_u32 << (32 - u32::from(prefix));
        let lower = Self { network: self.network, prefix };
        let upper = Self { network: Ipv4Addr::from(u32::from(self.network) + half), prefix };
        [lower, upper].iter().flat_map(|part| part.without(&inside)).collect()
    }

    /// How many bits all addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The network mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// The node's own address in the range: the first after the network's.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Addresses by which a host speaks to itself.
    pub(crate) fn loopback() -> Self {
        Self { network: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 }
    }

    /// Addresses for sandboxes: all but network, gateway and broadcast.
    pub(crate) fn first(&self) -> u32 {
        u32::from(self.network) + 2
    }

    /// See [`Range::first`].
    pub(crate) fn last(&self) -> u32 {
        u32::from(self.network) | !u32::from(self.mask())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_others_is_all_the_rest() {
        let block = |text: &str| Range::block(text).unwrap();
        let without = |others: &[&str]| {
            let others: Vec<Range> = others.iter().map(|text| block(text)).collect();
            block("10.0.0.0/30").without(&others).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without(&[]), "10.0.0.0/30");
        assert_eq!(without(&["10.0.0.2/32"]), "10.0.0.0/31 10.0.0.3/32");
        assert_eq!(without(&["10.0.0.2/32", "10.0.0.2/31", "10.0.1.0/24"]), "10.0.0.0/31");
        assert_eq!(without(&["0.0.0.0/0"]), "");
        assert_eq!(
            block("0.0.0.0/0").without(&[block("128.0.0.0/1"), block("255.255.255.255/32")]),
            [block("0.0.0.0/1")]
        );
    }
}
