//! What a cluster's names are answered with, as data; and what the zone and messages keep true whatever comes.

mod golden;
mod laws;
mod sockets;

use std::net::IpAddr;

use hickory_proto::rr::Name;
use serde::Deserialize;
use serde_json::Value;

use crate::objects::{EndpointSlice, Namespace, Service};
use crate::zone::Zone;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The zone `cluster.local` of nobody.
fn empty_zone() -> Zone {
    Zone::new(name("Cluster.Local."), vec!["10.43.0.10".parse::<IpAddr>().unwrap()])
}

fn read<T: for<'a> Deserialize<'a>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The zone with these objects, which are all.
fn zone_of(objects: &[Value]) -> Zone {
    fn of<T: for<'a> Deserialize<'a>>(objects: &[Value], kind: &str) -> Vec<T> {
        objects.iter().filter(|object| object["kind"] == kind).map(read).collect()
    }
    let mut zone = empty_zone();
    zone.replace_services(of::<Service>(objects, "Service"));
    zone.replace_slices(of::<EndpointSlice>(objects, "EndpointSlice"));
    zone.replace_namespaces(of::<Namespace>(objects, "Namespace"));
    zone
}
