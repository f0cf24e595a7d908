//! Whether the host routes between its links. The former setting is on record before it is changed, and restored by reset.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::{NativeNetworkConfig, kernel, record};
use crate::NetworkError;
use crate::range::Family;

/// Settings of IPv6 for links that come.
const DISABLED: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
/// `RTF_ADDRCONF` of linux/ipv6_route.h: a route that a router has advertised.
const ADVERTISED: u32 = 0x0004_0000;

/// The kernel's switch.
fn switch(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

fn former(state: &Path, family: Family) -> PathBuf {
    state.join(match family {
        Family::V4 => "former-ip_forward",
        Family::V6 => "former-ipv6-forwarding",
    })
}

/// Turns it on for the families of a network.
pub(super) fn turn_on(config: &NativeNetworkConfig) -> Result<(), NetworkError> {
    if let Some(range) = config.pods.v6 {
        let is_there = fs::read_to_string(DISABLED).is_ok_and(|text| text.trim() == "0");
        if !is_there {
            return Err(NetworkError::NoIpv6 { range });
        }
    }
    for range in config.pods.iter() {
        let family = range.family();
        let before = fs::read_to_string(switch(family)).map_err(kernel("reading of the host's forwarding"))?;
        if before.trim() == "1" {
            continue;
        }
        if family == Family::V6 {
            keep_way_out()?;
        }
        let path = former(&config.state, family);
        fs::write(&path, &before).map_err(|source| record::failed(&path, source))?;
        fs::write(switch(family), "1").map_err(kernel("setting of the host's forwarding"))?;
    }
    Ok(())
}

/// A host that forwards listens to routers only where `accept_ra` is 2 (the kernel's ip-sysctl.rst), and forgets at once what
/// it has heard from others (`__rt6_purge_dflt_routers` of its net/ipv6/route.c).
fn keep_way_out() -> Result<(), NetworkError> {
    let routes =
        fs::read_to_string("/proc/thread-self/net/ipv6_route").map_err(kernel("reading of the routes of IPv6"))?;
    for link in advertised(&routes) {
        let accepts = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra")).unwrap_or_default();
        if accepts.trim() != "2" {
            return Err(NetworkError::WayOutLost { link: link.to_owned() });
        }
    }
    Ok(())
}

/// Links by which advertised default routes go, from the lines of the kernel's `net/ipv6_route`.
fn advertised(routes: &str) -> Vec<&str> {
    let link = |line: &'_ str| -> Option<usize> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, prefix, .., flags, _] = fields.as_slice() else { return None };
        let is_default =
            u128::from_str_radix(destination, 16).ok()? == Ipv6Addr::UNSPECIFIED.to_bits() && *prefix == "00";
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (is_default && flags & ADVERTISED != 0).then_some(fields.len() - 1)
    };
    routes.lines().filter_map(|line| line.split_ascii_whitespace().nth(link(line)?)).collect()
}

/// Restores what is on record.
pub(super) fn restore(config: &NativeNetworkConfig, family: Family) -> io::Result<()> {
    let path = former(&config.state, family);
    let before = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    fs::write(switch(family), before)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::advertised;

    #[test]
    fn default_routes_of_routers_are_told_from_others() {
        let none = "00000000000000000000000000000000";
        let routes = format!(
            "{none} 00 {none} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0\n\
             {none} 00 {none} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
             fd000000000000000000000000000000 40 {none} 00 {none} 00000100 00000001 00000000 00040001     eth2\n\
             {none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\nnonsense\n"
        );
        assert_eq!(advertised(&routes), ["eth0"]);
    }
}
