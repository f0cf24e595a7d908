//! How late watchers learn of changes: many watches of one kind, each with a connection of its own, and one writer at a
//! steady rate. usage: watchers KUBECONFIG WATCHERS UPDATES_PER_SECOND SECONDS [own]
//!
//! Each update carries the time at which it was sent. Prints how many events arrived and the quantiles of the time from
//! sending the update to having the event in this process. With `own`, every watcher selects one object by its name, as
//! kubelets and controllers of single objects do; without, all see all.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no other use")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{HttpsTransport, Kubeconfig, Transport};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use task::Tasks;
use tokio::task::JoinSet;

const OBJECTS: &str = "/api/v1/namespaces/default/configmaps";
const MARK: &[u8] = b"\"at\":\"";

fn request(method: Method, path: &str, body: String) -> Request<Bytes> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    Request::builder().method(method).uri(path).header("content-type", kind).body(Bytes::from(body)).unwrap()
}

async fn ask(transport: &HttpsTransport, method: Method, path: &str, body: String) -> Bytes {
    let response = transport.send(request(method, path, body)).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success() || status == 409, "{status}: {}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Reads events until told to end; the lateness of each that carries a time, in microseconds.
async fn watch(
    transport: HttpsTransport,
    path: String,
    origin: Instant,
    ready: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
) -> Vec<u32> {
    let response = transport.send(request(Method::GET, &path, String::new())).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    ready.fetch_add(1, Ordering::Relaxed);
    let (mut body, mut late, mut rest) = (response.into_body(), Vec::new(), Vec::new());
    while !end.load(Ordering::Relaxed) {
        let Ok(frame) = tokio::time::timeout(Duration::from_millis(200), body.frame()).await else { continue };
        let now = origin.elapsed();
        let Some(Ok(frame)) = frame else { break };
        rest.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        while let Some(line) = rest.iter().position(|byte| *byte == b'\n') {
            let event: Vec<u8> = rest.drain(..=line).collect();
            let Some(at) = event.windows(MARK.len()).position(|window| window == MARK) else { continue };
            let digits = event[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let sent = digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
            if sent > 0 {
                let lateness = now.saturating_sub(Duration::from_micros(sent));
                late.push(u32::try_from(lateness.as_micros()).unwrap_or(u32::MAX));
            }
        }
    }
    late
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kubeconfig, watchers, rate, seconds, mode @ ..] = &arguments[..] else { panic!("see the usage") };
    let (watchers, rate, seconds): (usize, u64, u64) =
        (watchers.parse().unwrap(), rate.parse().unwrap(), seconds.parse().unwrap());
    let own = mode.first().is_some_and(|mode| mode == "own");
    let config = Kubeconfig::load(Path::new(kubeconfig)).unwrap().current().unwrap();
    let tasks = Tasks::new();
    let connect = || HttpsTransport::new(config.clone(), &tasks).unwrap();
    let writer = connect();
    let objects = if own { watchers as u64 } else { 10 };
    for index in 0..objects {
        let body = format!(r#"{{"metadata":{{"name":"watched-{index}"}},"data":{{"at":"0"}}}}"#);
        ask(&writer, Method::POST, OBJECTS, body).await;
    }
    let list: serde_json::Value =
        serde_json::from_slice(&ask(&writer, Method::GET, &format!("{OBJECTS}?limit=1"), String::new()).await).unwrap();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let origin = Instant::now();
    let (ready, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for index in 0..watchers {
        let select = if own { format!("&fieldSelector=metadata.name%3Dwatched-{index}") } else { String::new() };
        let path = format!("{OBJECTS}?watch=1&resourceVersion={revision}{select}");
        running.spawn(watch(connect(), path, origin, ready.clone(), end.clone()));
    }
    while ready.load(Ordering::Relaxed) < watchers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    let began = Instant::now();
    for number in 0..rate * seconds {
        tick.tick().await;
        let path = format!("{OBJECTS}/watched-{}", number * 7 % objects);
        let at = origin.elapsed().as_micros();
        ask(&writer, Method::PATCH, &path, format!(r#"{{"data":{{"at":"{at}"}}}}"#)).await;
    }
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    end.store(true, Ordering::Relaxed);
    let mut late: Vec<u32> = running.join_all().await.into_iter().flatten().collect();
    late.sort_unstable();
    let quantile = |percent: usize| late.get(late.len() * percent / 100).map_or(0.0, |late| f64::from(*late) / 1e3);
    println!(
        "{} updates in {took:.1} s, {} events to {watchers} watchers: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        rate * seconds,
        late.len(),
        quantile(50),
        quantile(99),
        f64::from(late.last().copied().unwrap_or_default()) / 1e3
    );
    tasks.shutdown().await;
}
