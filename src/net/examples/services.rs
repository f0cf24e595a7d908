//! How long one change of the table of Services takes: an endpoint comes or goes, of 10,000. For `scripts/bench network`.
//! Works in a network namespace of its own. usage: services [ENDPOINTS [ROUNDS]]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use net::services::{Frontend, Pool, Senders, Services};
use net::{NativeNetwork, NativeNetworkConfig, Protocol, ServiceTable};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u32>());
    let (endpoints, rounds) = (arguments.next().unwrap_or(Ok(10_000))?, arguments.next().unwrap_or(Ok(100))?);
    // Before there are other threads, so that all are inside.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let state = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for per_service in [5, endpoints] {
        let mut times = runtime.block_on(changes(state.path(), endpoints, per_service, rounds))?;
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1000.0;
        println!(
            "{endpoints} endpoints, {per_service} of each Service: one change p50 {:.2} ms, p99 {:.2} ms",
            at(50),
            at(99)
        );
    }
    Ok(())
}

async fn changes(
    state: &std::path::Path,
    endpoints: u32,
    per_service: u32,
    rounds: u32,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let config = NativeNetworkConfig {
        instance: "bench".to_owned(),
        pods: "10.92.0.0/16".parse()?,
        cluster: "10.92.0.0/16".parse()?,
        state: state.to_owned(),
        mtu: 1500,
        api: None,
    };
    let table = ServiceTable::all(&config, &"10.93.0.0/16".parse()?).remove(0);
    let _network = NativeNetwork::start(config).await?;
    let mut all = Services::default();
    for service in 0..endpoints / per_service {
        let name = format!("service-{service}");
        let address = Some(IpAddr::V4(Ipv4Addr::from(0x0a5d_0100 + service)));
        let frontend = Frontend { address, protocol: Protocol::Tcp, port: 80, senders: Senders::All };
        all.frontends.insert(frontend, name.clone());
        let own = (0..per_service).map(|own| endpoint(service * per_service + own)).collect();
        all.pools.insert(name, Pool { endpoints: own, ..Pool::default() });
    }
    table.apply(all.clone()).await?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let changed = all.pools.entry("service-0".to_owned()).or_default();
        let other = endpoint(endpoints + round / 2);
        if round % 2 == 0 {
            changed.endpoints.insert(other)
        } else {
            changed.endpoints.remove(&other)
        };
        let wanted = all.clone();
        let began = Instant::now();
        table.apply(wanted).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

fn endpoint(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a5c_0100 + number), 8080))
}
