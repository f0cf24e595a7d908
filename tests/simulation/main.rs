//! A whole cluster under faults, in one process and in virtual time, driven by a seed.
//!
//! The real API server over the memory store, the real controllers and scheduler, and two real kubelets over the
//! simulators of the runtime and network seams. A seed decides which pods are created, what their programs do, what is
//! deleted, and which faults strike: kubelets, the API server and the controllers are dropped and started again, shims
//! die, watches break, requests and answers are lost, operations of the seams fail before or after their effect. Then
//! the faults stop, and within a bounded time the cluster must be as the pods' programs say, with nothing left over.
//!
//! ```text
//! seed ─► storm ─► admin ─► API server ◄─ wire (loses, delays, breaks) ◄─ kubelets ─► witness ─► simulated runtime
//!           │                   │                                                       │
//!           └─ faults           └► historian: no phase, restart count … goes back       └► no two operations at once
//! ```
//!
//! `CORACLE_SEED=n` runs one seed and prints what the parts log; `PROPTEST_CASES=640` runs ten times as many seeds.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admin;
mod cluster;
mod expectation;
mod historian;
mod node;
mod random;
mod scenarios;
mod storm;
mod verdict;
mod wire;
mod witness;
mod workload;

/// Seeds of an ordinary run.
const SEEDS: u64 = 20;

#[test]
fn a_cluster_recovers_from_faults_even_seeds() {
    run_each(|seed| seed % 2 == 0);
}

#[test]
fn a_cluster_recovers_from_faults_odd_seeds() {
    run_each(|seed| seed % 2 == 1);
}

fn run_each(is_mine: impl Fn(u64) -> bool) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("CORACLE_SEED") {
        if is_mine(seed) {
            print_logs();
            run(seed);
        }
        return;
    }
    let seeds = if number("PROPTEST_CASES").is_some_and(|cases| cases >= 640) { SEEDS * 10 } else { SEEDS };
    (0..seeds).filter(|seed| is_mine(*seed)).for_each(run);
}

/// Has all parts say what they log.
fn print_logs() {
    let logs = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
    // Another test may have asked for it already.
    let _ = logs.without_time().with_ansi(false).try_init();
}

/// Says which seed it was when its run fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} fails; CORACLE_SEED={0} cargo test --test simulation runs it alone", self.0);
        }
    }
}

fn run(seed: u64) {
    let _announce = Announce(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(Box::pin(storm::run(seed)));
}
