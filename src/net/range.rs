//! Ranges of addresses in CIDR notation, of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A kind of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Length of its addresses in bits.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address that is a number, which is within its bits.
    fn address(self, number: u128) -> IpAddr {
        match (self, u32::try_from(number)) {
            (Self::V4, Ok(number)) => Ipv4Addr::from_bits(number).into(),
            _ => Ipv6Addr::from_bits(number).into(),
        }
    }
}

/// As it is called in the API.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(own) => own.to_bits().into(),
        IpAddr::V6(own) => own.to_bits(),
    }
}

/// A range such as `10.42.0.0/24` or `fd00:42::/64`, of at least four addresses unless it is a [`Range::block`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    network: IpAddr,
    prefix: u8,
}

/// The text is not a usable range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a range like 10.42.0.0/24 or fd00:42::/64 with at least two bits for addresses")]
pub struct RangeError {
    text: String,
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let range = Self::block(text)?;
        let usable = 1..=range.family().bits() - 2;
        if usable.contains(&range.prefix) { Ok(range) } else { Err(RangeError { text: text.to_owned() }) }
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
    /// When the text is not a range.
    pub fn block(text: &str) -> Result<Self, RangeError> {
        let parts = text
            .split_once('/')
            .and_then(|(address, prefix)| Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?)));
        let fits = |parts: &(IpAddr, u8)| parts.1 <= Family::of(parts.0).bits();
        let (network, prefix) = parts.filter(fits).ok_or_else(|| RangeError { text: text.to_owned() })?;
        Ok(Self { network, prefix }.aligned())
    }

    /// One address alone.
    pub fn single(address: IpAddr) -> Self {
        Self { network: address, prefix: Family::of(address).bits() }
    }

    /// The same with the first address of the range as its network.
    fn aligned(self) -> Self {
        Self { network: self.family().address(number(self.network) & number(self.mask())), ..self }
    }

    /// The kind of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.network)
    }

    /// The first address, which names the network.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// The range with this prefix that this one is part of; itself if it is no longer than that.
    pub fn widened(&self, prefix: u8) -> Self {
        if !(1..self.prefix).contains(&prefix) {
            return *self;
        }
        Self { network: self.network, prefix }.aligned()
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && number(address) & number(self.mask()) == number(self.network)
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
        let half = 1_u128 << (self.family().bits() - prefix);
        let lower = Self { network: self.network, prefix };
        let upper = Self { network: self.family().address(number(self.network) + half), prefix };
        [lower, upper].iter().flat_map(|part| part.without(&inside)).collect()
    }

    /// How many bits all addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The network mask.
    pub fn mask(&self) -> IpAddr {
        let bits = self.family().bits();
        let all = u128::MAX >> (128 - bits);
        self.family().address(all & all.checked_shl(u32::from(bits - self.prefix)).unwrap_or(0))
    }

    /// The address at a place, if it is in the range.
    pub fn at(&self, place: u128) -> Option<IpAddr> {
        let host = !number(self.mask()) & (u128::MAX >> (128 - self.family().bits()));
        (place <= host).then(|| self.family().address(number(self.network) + place))
    }

    /// The place of an address that is in the range.
    pub(crate) fn place_of(&self, address: IpAddr) -> u128 {
        number(address).wrapping_sub(number(self.network))
    }

    /// The node's own address in the range: the first after the network's.
    pub fn gateway(&self) -> IpAddr {
        self.family().address(number(self.network) + 1)
    }

    /// Addresses by which a host speaks to itself.
    pub(crate) fn loopback(family: Family) -> Self {
        match family {
            Family::V4 => Self { network: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 },
            Family::V6 => Self { network: Ipv6Addr::LOCALHOST.into(), prefix: 128 },
        }
    }

    /// Places for sandboxes: all but network and gateway, up to the broadcast address.
    pub(crate) fn places(&self) -> std::ops::Range<u128> {
        2..(1_u128 << (self.family().bits() - self.prefix).min(127)) - 1
    }
}

/// A range of IPv4 addresses, and one of IPv6 addresses where the network has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges {
    /// Those that everything has.
    pub v4: Range,
    /// Those that it has beside.
    pub v6: Option<Range>,
}

/// The text names no such ranges.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangesError {
    /// One of them cannot be read.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// They are not of these families.
    #[error("{text:?} is not a range of IPv4 addresses, perhaps with one of IPv6 addresses after a comma")]
    Families {
        /// What was said.
        text: String,
    },
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let all = text.split(',').map(|one| one.trim().parse::<Range>()).collect::<Result<Vec<_>, _>>()?;
        let (v4, v6) = match all.as_slice() {
            [v4] => (*v4, None),
            [v4, v6] => (*v4, Some(*v6)),
            _ => return Err(RangesError::Families { text: text.to_owned() }),
        };
        if v4.family() == Family::V4 && v6.is_none_or(|v6| v6.family() == Family::V6) {
            Ok(Self { v4, v6 })
        } else {
            Err(RangesError::Families { text: text.to_owned() })
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.fmt(f)?;
        self.v6.iter().try_for_each(|v6| write!(f, ",{v6}"))
    }
}

impl Ranges {
    /// Both, or the one that there is.
    pub fn iter(&self) -> impl Iterator<Item = Range> + use<> {
        [Some(self.v4), self.v6].into_iter().flatten()
    }

    /// That of a family.
    pub fn of(&self, family: Family) -> Option<Range> {
        match family {
            Family::V4 => Some(self.v4),
            Family::V6 => self.v6,
        }
    }

    /// Whether all addresses are in other ranges.
    pub fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|own| other.of(own.family()).is_some_and(|other| own.is_within(&other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_others_is_all_the_rest() {
        let block = |text: &str| Range::block(text).unwrap();
        let left = |whole: &str, others: &[&str]| {
            let others: Vec<Range> = others.iter().map(|text| block(text)).collect();
            block(whole).without(&others).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let without = |others: &[&str]| left("10.0.0.0/30", others);
        assert_eq!(without(&[]), "10.0.0.0/30");
        assert_eq!(without(&["10.0.0.2/32"]), "10.0.0.0/31 10.0.0.3/32");
        assert_eq!(without(&["10.0.0.2/32", "10.0.0.2/31", "10.0.1.0/24"]), "10.0.0.0/31");
        assert_eq!(without(&["0.0.0.0/0"]), "");
        assert_eq!(without(&["::/0"]), "10.0.0.0/30", "another family is nowhere");
        assert_eq!(
            block("0.0.0.0/0").without(&[block("128.0.0.0/1"), block("255.255.255.255/32")]),
            [block("0.0.0.0/1")]
        );
        assert_eq!(left("::/0", &["8000::/1", "::/2"]), "4000::/2");
        assert_eq!(left("fd00::/127", &["fd00::1/128"]), "fd00::/128");
    }

    #[test]
    fn places_are_counted_from_the_network() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        let small = range("10.1.2.99/29");
        assert_eq!((small.to_string(), small.places()), ("10.1.2.96/29".to_owned(), 2..7));
        assert_eq!((small.gateway(), small.at(7)), ("10.1.2.97".parse().unwrap(), "10.1.2.103".parse().ok()));
        assert_eq!(small.at(8), None);
        let large = range("fd00:42:0:1::9/64");
        assert_eq!((large.to_string(), large.places().end), ("fd00:42:0:1::/64".to_owned(), (1 << 64) - 1));
        assert_eq!(large.at(0x1234), "fd00:42:0:1::1234".parse().ok());
        assert_eq!(large.place_of("fd00:42:0:1::1234".parse().unwrap()), 0x1234);
        assert_eq!(large.widened(48).to_string(), "fd00:42::/48");
        assert_eq!(range("fd00::/1").mask(), "8000::".parse::<IpAddr>().unwrap());
        assert_eq!(Range::block("::/0").unwrap().mask(), "::".parse::<IpAddr>().unwrap());
        for wrong in ["10.0.0.0/31", "10.0.0.0/0", "10.0.0.0", "fd00::/127", "fd00::/129", "x/8"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_ranges_are_one_of_each_family_ipv4_first() {
        let ranges = |text: &str| text.parse::<Ranges>();
        for good in ["10.42.0.0/16", "10.42.0.0/16,fd00:42::/56"] {
            assert_eq!(ranges(good).unwrap().to_string(), good);
        }
        for wrong in [
            "fd00:42::/56",
            "fd00::/56,10.42.0.0/16",
            "10.0.0.0/8,11.0.0.0/8",
            "10.0.0.0/8,fd00::/8,fd00::/9",
            "10.0.0.0/8,",
        ] {
            assert!(ranges(wrong).is_err(), "{wrong}");
        }
        let (all, part) =
            (ranges("10.42.0.0/16,fd00:42::/56").unwrap(), ranges("10.42.1.0/24,fd00:42:0:1::/64").unwrap());
        assert!(part.is_within(&all) && !all.is_within(&part));
        assert!(!part.is_within(&ranges("10.42.0.0/16").unwrap()), "there is no second range");
    }
}
