//! Addresses and ports of Services: who gets which.
//!
//! Nothing is written down beside the Services themselves: what is taken is what they say, so there is nothing that could
//! be wrong after a crash. The server must not store another Service between the look at all of them and the write of the
//! one that was given something. Follows `pkg/registry/core/service/storage/alloc.go`; the lowest addresses and ports are
//! given out last, so that those who choose themselves find some there (KEP-3070, KEP-3668).

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Value, json};

use super::{is_external_name, is_headless, needs_health_port, needs_node_ports};
use crate::resources::path::{Path, ensure_object, items, number, object_len, present, text};
use crate::status::{ApiError, FieldError};

/// Where the addresses and ports of Services come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    base: u32,
    bits: u8,
    ports: RangeInclusive<u16>,
}

/// No range of addresses for Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a range of IPv4 addresses with at least 2 usable ones, such as 10.43.0.0/16")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').ok_or(NetworkError)?;
        let address: Ipv4Addr = address.parse().map_err(|_| NetworkError)?;
        let bits: u8 = bits.parse().map_err(|_| NetworkError)?;
        // A range that is larger than upstream's largest would only cost memory.
        if !(8..=30).contains(&bits) {
            return Err(NetworkError);
        }
        let base = address.to_bits() & (u32::MAX << (32 - bits));
        Ok(Self { base, bits, ports: 30_000..=32_767 })
    }
}

impl Default for Network {
    /// 10.43.0.0/16 and ports 30000 to 32767.
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 43, 0, 0).to_bits(), bits: 16, ports: 30_000..=32_767 }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.bits)
    }
}

impl Network {
    /// The first address, which is that of the API itself.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// How many addresses can be given out: not the first of the range and not the last.
    fn size(&self) -> u32 {
        (1 << (32 - u32::from(self.bits))) - 2
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.base);
        (1..=self.size()).contains(&offset)
    }
}

/// What other Services have.
#[derive(Debug, Default)]
pub struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

impl Taken {
    /// Counts what one more Service has.
    pub fn add(&mut self, service: &Value) {
        let spec = &service["spec"];
        let addresses =
            items(spec, "clusterIPs").iter().filter_map(|address| address.as_str()?.parse::<Ipv4Addr>().ok());
        self.addresses.extend(addresses);
        let ports = items(spec, "ports").iter().map(|port| number(port, "nodePort"));
        let ports = ports.chain([number(spec, "healthCheckNodePort")]).filter(|port| *port != 0);
        self.ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
    }
}

/// Gives a Service the addresses and ports that it lacks, and checks those that it chose itself. `random` decides where the
/// search starts.
pub fn assign(service: &mut Value, taken: &Taken, network: &Network, random: u64) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    if !is_external_name(service) {
        families(service, &mut errors);
        if errors.is_empty() && !is_headless(service) {
            address(service, taken, network, random, &mut errors)?;
        }
    }
    if errors.is_empty() {
        Ports { taken, network, given: BTreeSet::new(), random }.assign(service, &mut errors)?;
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("", "Service", text(&service["metadata"], "name"), &errors))
}

/// There are IPv4 addresses only. A Service without an address and without pods of its own may nevertheless have both
/// families: its endpoints are somebody else's.
fn families(service: &mut Value, errors: &mut Vec<FieldError>) {
    let is_free = is_headless(service) && object_len(&service["spec"], "selector") == 0;
    let path = Path::new("spec");
    let spec = ensure_object(service, "spec");
    if is_free {
        if !present(spec, "ipFamilyPolicy") {
            spec["ipFamilyPolicy"] = "RequireDualStack".into();
        }
        let first = spec["ipFamilies"][0].as_str().unwrap_or("IPv4").to_owned();
        let second = if first == "IPv4" { "IPv6" } else { "IPv4" };
        if spec["ipFamilyPolicy"] == "SingleStack" {
            spec["ipFamilies"] = json!([first]);
        } else if items(spec, "ipFamilies").len() < 2 {
            spec["ipFamilies"] = json!([first, second]);
        }
        return;
    }
    let asks_for_both = items(spec, "ipFamilies").len() > 1 || items(spec, "clusterIPs").len() > 1;
    if spec["ipFamilyPolicy"] == "RequireDualStack" || (asks_for_both && !present(spec, "ipFamilyPolicy")) {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(path.child("ipFamilyPolicy"), &"RequireDualStack".into(), detail));
        return;
    }
    for (index, family) in items(spec, "ipFamilies").iter().enumerate().filter(|(_, family)| *family == "IPv6") {
        let path = path.child("ipFamilies").index(index);
        errors.push(FieldError::invalid(path, family, "not configured on this cluster"));
    }
    if !present(spec, "ipFamilyPolicy") {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    if items(spec, "ipFamilies").is_empty() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
}

fn address(
    service: &mut Value,
    taken: &Taken,
    network: &Network,
    random: u64,
    errors: &mut Vec<FieldError>,
) -> Result<(), ApiError> {
    let spec = ensure_object(service, "spec");
    let chosen = items(spec, "clusterIPs").first().and_then(|address| address.as_str()).unwrap_or_default();
    if chosen.is_empty() && text(spec, "clusterIP").is_empty() {
        let free = |offset: u32| {
            let address = Ipv4Addr::from_bits(network.base + 1 + offset);
            (!taken.addresses.contains(&address)).then_some(address)
        };
        let size = network.size();
        let found = search(size, (size / 16).clamp(16, 256), random, free);
        let found = found.ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?;
        spec["clusterIP"] = found.to_string().into();
        spec["clusterIPs"] = json!([found.to_string()]);
        return Ok(());
    }
    // Whether it can be read at all is for validation to say.
    let Ok(address) = chosen.parse::<Ipv4Addr>() else { return Ok(()) };
    let reason = if !network.contains(address) {
        format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {network}")
    } else if taken.addresses.contains(&address) {
        "provided IP is already allocated".to_owned()
    } else {
        return Ok(());
    };
    let detail = format!("failed to allocate IP {address}: {reason}");
    errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], &detail));
    Ok(())
}

/// The first free place from a random one on, above the reserved ones; then among those.
fn search<T>(size: u32, reserved: u32, random: u64, free: impl Fn(u32) -> Option<T>) -> Option<T> {
    let reserved = if reserved < size { reserved } else { 0 };
    let usual = u64::from(size - reserved);
    let start = u32::try_from(random % usual.max(1)).unwrap_or(0);
    let usual = (0..size - reserved).map(|step| reserved + (start + step) % (size - reserved));
    usual.chain(0..reserved).find_map(free)
}

/// Gives out ports on the nodes.
struct Ports<'a> {
    taken: &'a Taken,
    network: &'a Network,
    given: BTreeSet<u16>,
    random: u64,
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
        let range = &self.network.ports;
        let detail = match u16::try_from(chosen) {
            Ok(port) if self.taken.ports.contains(&port) => "provided port is already allocated".to_owned(),
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
        let (first, last) = (*self.network.ports.start(), *self.network.ports.end());
        let size = u32::from(last - first) + 1;
        let free = |offset: u32| {
            let port = first + u16::try_from(offset).unwrap_or(0);
            (!self.taken.ports.contains(&port) && !self.given.contains(&port)).then_some(port)
        };
        let found = search(size, (size / 32).clamp(16, 128), self.random, free);
        let found = found.ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
        self.given.insert(found);
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
