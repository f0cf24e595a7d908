//! The ranges from which Services get addresses, and the objects that tell of those addresses (KEP-1880).
//!
//! A ServiceCIDR may go once no Service has an address that is in no other range; until then its condition says why it
//! stays, and no Service gets a further address from it. Follows `pkg/controller/servicecidrs` and
//! `pkg/registry/core/service/ipallocator`, with one difference: what is taken is what Services say, and an IPAddress only
//! tells of it, so that nothing has to be repaired after a crash that somebody else might have been given meanwhile.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::assign::{Block, Network};
use crate::resources::path::{items, text};

/// Keeps a range until it is not used any more.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The range of the settings.
pub const DEFAULT: &str = "kubernetes";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// The blocks from which addresses may be given now, those of the settings first.
pub fn usable(network: &Network, ranges: &[Value]) -> Vec<Block> {
    let (ready, other): (Vec<&Value>, Vec<&Value>) = ranges.iter().partition(|range| is_usable(range));
    let withdrawn: Vec<Block> =
        other.into_iter().filter(|range| range["metadata"]["name"] == DEFAULT).flat_map(blocks).collect();
    let own = network.blocks().filter(|block| !withdrawn.contains(block));
    let mut all: Vec<Block> = own.collect();
    for block in ready.into_iter().flat_map(blocks) {
        if !all.contains(&block) {
            all.push(block);
        }
    }
    all
}

/// One that nobody has judged yet is ready.
fn is_usable(range: &Value) -> bool {
    let conditions = items(&range["status"], "conditions");
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    !is_going(range) && ready.is_none_or(|condition| condition["status"] == "True")
}

fn is_going(range: &Value) -> bool {
    !range["metadata"]["deletionTimestamp"].is_null()
}

fn blocks(range: &Value) -> Vec<Block> {
    items(&range["spec"], "cidrs").iter().filter_map(|cidr| Block::any(cidr.as_str()?)).collect()
}

/// What is to be done to a range.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It is as it should be.
    Nothing,
    /// Its metadata is to be this.
    Metadata(Value),
    /// Its conditions are to be these.
    Conditions(Value),
}

/// The next step for one of all ranges, when Services have these addresses.
pub fn next(range: &Value, all: &[Value], used: &[IpAddr], now: &str) -> Step {
    let finalizers = items(&range["metadata"], "finalizers");
    let is_held = finalizers.iter().any(|name| name == FINALIZER);
    if !is_going(range) {
        if !is_held {
            return with_finalizers(range, finalizers.iter().cloned().chain([FINALIZER.into()]).collect());
        }
        return condition(range, ["True", "", "Kubernetes Service CIDR is ready"], now);
    }
    if !is_held {
        return Step::Nothing;
    }
    if is_needed(range, all, used) {
        let message =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        return condition(range, ["False", "Terminating", message], now);
    }
    with_finalizers(range, finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect())
}

/// Whether some address would be in no range without this one. Those that go as well do not count.
fn is_needed(range: &Value, all: &[Value], used: &[IpAddr]) -> bool {
    let is_other = |other: &&Value| other["metadata"]["name"] != range["metadata"]["name"] && !is_going(other);
    let (own, others) = (blocks(range), all.iter().filter(is_other).flat_map(blocks).collect::<Vec<_>>());
    let is_in = |blocks: &[Block], address: IpAddr| blocks.iter().any(|block| block.contains(address));
    used.iter().any(|address| is_in(&own, *address) && !is_in(&others, *address))
}

fn with_finalizers(range: &Value, finalizers: Vec<Value>) -> Step {
    let mut metadata = range["metadata"].clone();
    metadata["finalizers"] = finalizers.into();
    Step::Metadata(metadata)
}

/// The default range has words of its own when it is ready, which are as good.
fn condition(range: &Value, [status, reason, message]: [&str; 3], now: &str) -> Step {
    let mut conditions = items(&range["status"], "conditions").to_vec();
    if conditions.iter().any(|own| own["type"] == "Ready" && own["status"] == status) {
        return Step::Nothing;
    }
    conditions.retain(|own| own["type"] != "Ready");
    conditions.push(json!({
        "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    }));
    Step::Conditions(conditions.into())
}

/// The addresses of a Service as names of objects.
pub fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    items(&service["spec"], "clusterIPs").iter().filter_map(|address| address.as_str()?.parse().ok())
}

/// The object that tells of an address of a Service.
pub fn told(address: IpAddr, service: &Value) -> Value {
    let metadata = &service["metadata"];
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {
                MANAGED_BY.0: MANAGED_BY.1,
                FAMILY: if address.is_ipv4() { "IPv4" } else { "IPv6" },
            },
        },
        "spec": { "parentRef": {
            "group": "", "resource": "services",
            "namespace": text(metadata, "namespace"), "name": text(metadata, "name"),
        } },
    })
}

/// The Service of which an IPAddress tells: its namespace and name.
pub fn parent(address: &Value) -> Option<(&str, &str)> {
    let parent = &address["spec"]["parentRef"];
    let is_service = text(parent, "group").is_empty() && text(parent, "resource") == "services";
    is_service.then(|| (text(parent, "namespace"), text(parent, "name")))
}

/// Whether an IPAddress was made here; those of others keep an address from Services.
pub fn is_own(address: &Value) -> bool {
    address["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1 && parent(address).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, cidrs: &[&str], going: bool) -> Value {
        let mut range = json!({
            "metadata": { "name": name, "finalizers": [FINALIZER] }, "spec": { "cidrs": cidrs },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        if going {
            range["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        range
    }

    fn step(range: &Value, others: &[&Value], used: &[&str]) -> String {
        let all: Vec<Value> = others.iter().copied().chain([range]).cloned().collect();
        let used: Vec<IpAddr> = used.iter().map(|address| address.parse().unwrap()).collect();
        match next(range, &all, &used, "now") {
            Step::Nothing => "nothing".to_owned(),
            Step::Metadata(metadata) => format!("finalizers {}", metadata["finalizers"]),
            Step::Conditions(all) => format!("{} {}", all[0]["status"], all[0]["reason"]),
        }
    }

    #[test]
    fn a_range_is_held_and_ready_until_it_goes_and_goes_once_no_address_needs_it() {
        let mut new = range("a", &["10.96.0.0/24"], false);
        new["metadata"] = json!({ "name": "a" });
        new["status"] = json!({});
        assert_eq!(step(&new, &[], &[]), format!("finalizers [\"{FINALIZER}\"]"));
        new["metadata"] = json!({ "name": "a", "finalizers": [FINALIZER] });
        assert_eq!(step(&new, &[], &[]), "\"True\" \"\"");
        assert_eq!(step(&range("a", &["10.96.0.0/24"], false), &[], &["10.96.0.9"]), "nothing");

        let going = range("a", &["10.96.0.0/24", "fd00:96::/112"], true);
        for used in ["10.96.0.9", "fd00:96::9"] {
            assert_eq!(step(&going, &[], &[used]), "\"False\" \"Terminating\"");
        }
        assert_eq!(step(&going, &[], &["10.97.0.9", "10.96.0.0"]), "finalizers []");
        // Another one has the address as well, unless it goes too.
        let (larger, leaving) = (range("b", &["10.96.0.0/16"], false), range("c", &["10.96.0.0/16"], true));
        assert_eq!(step(&going, &[&larger], &["10.96.0.9"]), "finalizers []");
        assert_eq!(step(&going, &[&leaving], &["10.96.0.9"]), "\"False\" \"Terminating\"");
        let mut told = going.clone();
        told["status"]["conditions"][0]["status"] = json!("False");
        assert_eq!(step(&told, &[], &["10.96.0.9"]), "nothing");
    }

    #[test]
    fn addresses_are_given_from_the_settings_and_from_ranges_that_are_ready_and_stay() {
        let shown = |ranges: &[Value]| -> Vec<String> {
            usable(&Network::default(), ranges).iter().map(ToString::to_string).collect()
        };
        let own = range(DEFAULT, &["10.43.0.0/16"], false);
        let mut unready = range("u", &["10.98.0.0/24"], false);
        unready["status"]["conditions"][0]["status"] = json!("False");
        let mut unjudged = range("n", &["10.99.0.0/24", "fd00:99::/64"], false);
        unjudged["status"] = json!({});
        let all = [own, range("g", &["10.97.0.0/24"], true), unready, unjudged];
        assert_eq!(shown(&all), ["10.43.0.0/16", "10.99.0.0/24", "fd00:99::/64"]);
        assert_eq!(shown(&[]), ["10.43.0.0/16"]);
        assert!(shown(&[range(DEFAULT, &["10.43.0.0/16"], true)]).is_empty());
        // Of an earlier setting, whose Services are still there.
        let before = range(DEFAULT, &["10.44.0.0/16"], false);
        assert_eq!(shown(&[before]), ["10.43.0.0/16", "10.44.0.0/16"]);
    }
}
