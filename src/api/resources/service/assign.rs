//! Addresses and ports of Services: who gets which.
//!
//! Nothing is written down beside the Services themselves: what is taken is what they say, so there is nothing that could
//! be wrong after a crash. The server must not store another Service between the look at all of them and the write of the
//! one that was given something. Follows `pkg/registry/core/service/storage/alloc.go`; the lowest addresses and ports are
//! given out last, so that those who choose themselves find some there (KEP-3070, KEP-3668). One range after the other is
//! filled ([`super::ranges`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Value, json};

use super::{check, is_external_name, is_headless, needs_health_port, needs_node_ports};
use crate::resources::path::{Path, ensure_object, items, number, text};
use crate::status::{ApiError, FieldError};

/// Where the addresses and ports of Services come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    v4: Block,
    v6: Option<Block>,
    ports: RangeInclusive<u16>,
}

/// No range of addresses for Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a range of IPv4 addresses with at least 2 usable ones, such as 10.43.0.0/16, and perhaps one of IPv6 addresses \
     after a comma, such as fd00:43::/112"
)]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (v4, v6) = text.split_once(',').map_or((text, None), |(v4, v6)| (v4, Some(v6)));
        let block = |text: &str, family: Family| text.parse::<Block>().ok().filter(|block| block.family == family);
        let v4 = block(v4, Family::V4).ok_or(NetworkError)?;
        let v6 = v6.map(|text| block(text, Family::V6).ok_or(NetworkError)).transpose()?;
        Ok(Self { v4, v6, ports: 30_000..=32_767 })
    }
}

impl Default for Network {
    /// 10.43.0.0/16 and ports 30000 to 32767.
    fn default() -> Self {
        let base = u128::from(Ipv4Addr::new(10, 43, 0, 0).to_bits());
        Self { v4: Block { family: Family::V4, base, bits: 16 }, v6: None, ports: 30_000..=32_767 }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.fmt(f)?;
        self.v6.iter().try_for_each(|v6| write!(f, ",{v6}"))
    }
}

impl Network {
    /// The first address, which is that of the API itself.
    pub fn first(&self) -> IpAddr {
        self.v4.at(1)
    }

    /// The ranges, that of the primary family first.
    pub fn ranges(&self) -> Vec<String> {
        self.blocks().map(|block| block.to_string()).collect()
    }

    /// As [`Self::ranges`].
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> {
        [Some(self.v4), self.v6].into_iter().flatten()
    }

    fn block(&self, family: Family) -> Option<&Block> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// A kind of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// By its name in the API.
    fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    family: Family,
    base: u128,
    /// How many of the last bits differ.
    bits: u8,
}

impl FromStr for Block {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let block = Self::any(text).ok_or(NetworkError)?;
        // Larger ranges than upstream has are of no use.
        let bits = if block.family == Family::V4 { 2..=24 } else { 2..=64 };
        if bits.contains(&block.bits) { Ok(block) } else { Err(NetworkError) }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.family == Family::V4 { 32 } else { 128 };
        write!(f, "{}/{}", self.at(0), width - self.bits)
    }
}

impl Block {
    /// One that somebody has chosen: of whatever size, and one that is too small for any address has none.
    pub fn any(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let (family, width, number) = match address {
            IpAddr::V4(own) => (Family::V4, 32_u8, u128::from(own.to_bits())),
            IpAddr::V6(own) => (Family::V6, 128, own.to_bits()),
        };
        let bits = width.checked_sub(prefix)?;
        let mask = u128::MAX.checked_shl(u32::from(bits)).unwrap_or(0);
        Some(Self { family, base: number & mask, bits })
    }

    fn at(&self, offset: u64) -> IpAddr {
        let number = self.base + u128::from(offset);
        match (self.family, u32::try_from(number)) {
            (Family::V4, Ok(number)) => Ipv4Addr::from_bits(number).into(),
            _ => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// How many addresses can be given out: not the first of the range, and not the last, as that is a broadcast address
    /// with IPv4.
    fn size(&self) -> u64 {
        (1_u64 << self.bits.min(63)).saturating_sub(2)
    }

    /// Whether an address of it could be given out.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = match address {
            IpAddr::V4(own) => u128::from(own.to_bits()),
            IpAddr::V6(own) => own.to_bits(),
        };
        let (offset, last) =
            (number.wrapping_sub(self.base), u128::MAX.checked_shr(128 - u32::from(self.bits)).unwrap_or(0));
        Family::of(address) == self.family && (1..last).contains(&offset)
    }
}

/// What other Services have.
#[derive(Debug, Default)]
pub struct Taken {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Taken {
    /// Counts an address that is something else's.
    pub fn reserve(&mut self, address: IpAddr) {
        self.addresses.insert(address);
    }

    /// Counts what one more Service has.
    pub fn add(&mut self, service: &Value) {
        let spec = &service["spec"];
        let addresses = items(spec, "clusterIPs").iter().filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
        self.addresses.extend(addresses);
        let ports = items(spec, "ports").iter().map(|port| number(port, "nodePort"));
        let ports = ports.chain([number(spec, "healthCheckNodePort")]).filter(|port| *port != 0);
        self.ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
    }
}

/// What is there to be given out.
#[derive(Debug, Clone, Copy)]
pub struct Stock<'s> {
    /// All that there is.
    pub network: &'s Network,
    /// From where addresses may be given now.
    pub blocks: &'s [Block],
    /// What other Services have of it.
    pub taken: &'s Taken,
    /// Where the search starts.
    pub random: u64,
}

/// Gives a Service the addresses and ports that it lacks, and checks those that it chose itself.
pub fn assign(service: &mut Value, old: Option<&Value>, stock: Stock<'_>) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    // What is no address, or not of its family, is for validation to say.
    if !is_external_name(service) && check::are_addresses_readable(service) {
        errors = families::settle(service, old, stock.network);
        if errors.is_empty() && !is_headless(service) {
            addresses(service, old, stock, &mut errors)?;
        }
    }
    if errors.is_empty() {
        Ports { stock, given: BTreeSet::new() }.assign(service, &mut errors)?;
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("", "Service", text(&service["metadata"], "name"), &errors))
}

/// One address of each family.
fn addresses(
    service: &mut Value,
    old: Option<&Value>,
    stock: Stock<'_>,
    errors: &mut Vec<FieldError>,
) -> Result<(), ApiError> {
    let spec = ensure_object(service, "spec");
    let texts = |spec: &Value, field: &str| -> Vec<String> {
        items(spec, field).iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
    };
    let before = old.map(|old| texts(&old["spec"], "clusterIPs")).unwrap_or_default();
    let mut own = texts(spec, "clusterIPs");
    for (index, family) in texts(spec, "ipFamilies").iter().enumerate() {
        // Whether a family is there has been settled, unless nothing was changed that depends on it.
        let family = Family::named(family).filter(|family| stock.network.block(*family).is_some());
        let Some(family) = family else { continue };
        match own.get(index) {
            None => own.push(next_address(family, stock)?.to_string()),
            Some(kept) if before.get(index) == Some(kept) => {}
            Some(chosen) => {
                if let Some(reason) = cannot_be_chosen(chosen, stock) {
                    let detail = format!("failed to allocate IP {chosen}: {reason}");
                    errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], &detail));
                }
            }
        }
    }
    if let Some(first) = own.first().cloned() {
        spec["clusterIP"] = first.into();
        spec["clusterIPs"] = json!(own);
    }
    Ok(())
}

fn cannot_be_chosen(chosen: &str, stock: Stock<'_>) -> Option<&'static str> {
    let address: IpAddr = chosen.parse().ok()?;
    if !stock.blocks.iter().any(|block| block.contains(address)) {
        return Some("the provided network does not match the current range");
    }
    stock.taken.addresses.contains(&address).then_some("provided IP is already allocated")
}

fn next_address(family: Family, stock: Stock<'_>) -> Result<IpAddr, ApiError> {
    let mut of_family = stock.blocks.iter().filter(|block| block.family == family);
    let found = of_family.find_map(|block| {
        let free = |offset: u64| Some(block.at(1 + offset)).filter(|address| !stock.taken.addresses.contains(address));
        let size = block.size();
        search(size, (size / 16).clamp(16, 256), stock.random, free)
    });
    found.ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
}

/// The first free place from a random one on, above the reserved ones; then among those.
fn search<T>(size: u64, reserved: u64, random: u64, free: impl Fn(u64) -> Option<T>) -> Option<T> {
    let reserved = if reserved < size { reserved } else { 0 };
    let start = random % (size - reserved).max(1);
    let usual = (start..size - reserved).chain(0..start).map(|place| reserved + place);
    usual.chain(0..reserved).find_map(free)
}

/// Gives out ports on the nodes.
struct Ports<'a> {
    stock: Stock<'a>,
    given: BTreeSet<u16>,
}

impl Ports<'_> {
    fn assign(&mut self, service: &mut Value, errors: &mut Vec<FieldError>) -> Result<(), ApiError> {
        if needs_node_ports(service) {
            self.check_chosen(service, errors);
            if errors.is_empty() {
                self.fill(ensure_object(service, "spec"))?;
            }
        }
        if needs_health_port(service) && errors.is_empty() {
            let spec = ensure_object(service, "spec");
            match number(spec, "healthCheckNodePort") {
                0 => spec["healthCheckNodePort"] = self.next()?.into(),
                chosen => {
                    errors.extend(self.check(chosen, &Path::new("spec").child("healthCheckNodePort")));
                }
            }
        }
        Ok(())
    }

    fn check_chosen(&mut self, service: &Value, errors: &mut Vec<FieldError>) {
        for (index, port) in items(&service["spec"], "ports").iter().enumerate() {
            let chosen = number(port, "nodePort");
            if chosen == 0 {
                continue;
            }
            let path = Path::new("spec").child("ports").index(index).child("nodePort");
            errors.extend(self.check(chosen, &path));
            self.given.extend(u16::try_from(chosen));
        }
    }

    fn check(&self, chosen: i64, path: &Path) -> Option<FieldError> {
        let range = &self.stock.network.ports;
        let detail = match u16::try_from(chosen) {
            Ok(port) if self.stock.taken.ports.contains(&port) => "provided port is already allocated".to_owned(),
            Ok(port) if range.contains(&port) => return None,
            _ => format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ),
        };
        Some(FieldError::invalid(path, &chosen.into(), &detail))
    }

    /// Equal ports of different protocols get the same port on the nodes.
    fn fill(&mut self, spec: &mut Value) -> Result<(), ApiError> {
        for index in 0..items(spec, "ports").len() {
            let ports = items(spec, "ports");
            let port = &ports[index];
            if number(port, "nodePort") != 0 {
                continue;
            }
            let is_twin = |other: &&Value| {
                other["port"] == port["port"]
                    && other["protocol"] != port["protocol"]
                    && number(other, "nodePort") != 0
                    && ports
                        .iter()
                        .all(|third| third["nodePort"] != other["nodePort"] || third["protocol"] != port["protocol"])
            };
            let given = match ports.iter().find(is_twin) {
                Some(twin) => twin["nodePort"].clone(),
                None => self.next()?.into(),
            };
            spec["ports"][index]["nodePort"] = given;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<u16, ApiError> {
        let Stock { network, taken, random, .. } = self.stock;
        let (first, last) = (*network.ports.start(), *network.ports.end());
        let size = u64::from(last - first) + 1;
        let free = |offset: u64| {
            let port = first + u16::try_from(offset).unwrap_or(0);
            (!taken.ports.contains(&port) && !self.given.contains(&port)).then_some(port)
        };
        let found = search(size, (size / 32).clamp(16, 128), random, free);
        let found = found.ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
        self.given.insert(found);
        Ok(found)
    }
}

mod families;

#[cfg(test)]
mod tests;
