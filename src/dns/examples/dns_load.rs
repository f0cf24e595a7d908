//! Load for measuring the cluster's DNS. usage: `dns_load serve ADDRESS SERVICES`, `dns_load echo ADDRESS` or
//! `dns_load ask ADDRESS SECONDS CLIENTS NAME…`
//!
//! `serve` answers for that many Services `s<n>.default`; `echo` sends every datagram back, which is the least that any
//! server over these sockets costs. `ask` has clients that ask one question after another and prints one line of
//! `name value` pairs: questions in a second, and how long an answer took, in microseconds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool for measuring stops at the first error, prints, and is about time"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use dns::{Config, ResolvConf, Sockets};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;
use task::Tasks;
use tokio::net::UdpSocket;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let address: SocketAddr = words[1].parse().unwrap();
    match words[0].as_str() {
        "serve" => serve(address, words[2].parse().unwrap()).await,
        "echo" => echo(address).await,
        "ask" => ask(address, words[2].parse().unwrap(), words[3].parse().unwrap(), &words[4..]).await,
        other => panic!("no {other}"),
    }
}

async fn serve(listen: SocketAddr, services: u32) {
    let config = Config {
        domain: "cluster.local".to_owned(),
        listen: vec![listen],
        told: Vec::new(),
        resolv_conf: ResolvConf::of_host(),
    };
    let mut zone = dns::zone(&config).unwrap();
    let all = (0..services).map(|number| {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 43, 1, 0)) + number);
        let metadata = json!({ "namespace": "default", "name": format!("s{number}") });
        let ports = json!([{ "name": "http", "port": 80 }]);
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "clusterIP": address, "ports": ports } }))
            .unwrap()
    });
    zone.replace_services(all.collect());
    zone.replace_slices(Vec::new());
    let tasks = Tasks::new();
    dns::serve(Sockets::bind(listen).await.unwrap(), Arc::new(RwLock::new(zone)), config, &tasks);
    println!("ready");
    std::future::pending().await
}

async fn echo(listen: SocketAddr) {
    let socket = UdpSocket::bind(listen).await.unwrap();
    println!("ready");
    let mut buffer = [0; 4096];
    loop {
        let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..count], from).await.unwrap();
    }
}

async fn ask(server: SocketAddr, seconds: u64, clients: u16, names: &[String]) {
    let tasks = Tasks::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let questions: Arc<Vec<Vec<u8>>> = Arc::new(names.iter().map(|name| question(name)).collect());
    let asking = (0..clients).map(|number| {
        let questions = Arc::clone(&questions);
        tasks.spawn("client", async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.connect(server).await.unwrap();
            let (mut took, mut buffer) = (Vec::new(), [0; 4096]);
            for turn in usize::from(number).. {
                let begun = Instant::now();
                if begun >= end {
                    break;
                }
                socket.send(&questions[turn % questions.len()]).await.unwrap();
                let count = socket.recv(&mut buffer).await.unwrap();
                took.push(begun.elapsed());
                // The number alone is looked at while it counts; one in a thousand answers is read.
                if turn % 1000 == 0 {
                    let answer = Message::from_vec(&buffer[..count]).unwrap();
                    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                }
            }
            took
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut took = Vec::new();
    for client in asking {
        took.extend(client.await.unwrap().unwrap());
    }
    took.sort();
    let rank = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)].as_micros();
    let rate = u64::try_from(took.len()).unwrap() / seconds;
    println!("per_second {rate} p50_us {} p99_us {} p999_us {}", rank(500), rank(990), rank(999));
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}
