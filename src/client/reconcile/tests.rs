use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("as the test wants")]
struct Wanted;

const STEP: Duration = Duration::from_secs(1);

fn queue() -> Queue<String> {
    Queue::new(Backoff { first: STEP, longest: 8 * STEP })
}

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_keys_come_in_order() {
    let queue = queue();
    for key in ["a", "b", "a"] {
        queue.add(key.to_owned());
    }
    assert_eq!(queue.next().await, "a");
    assert_eq!(queue.next().await, "b");
    queue.done(&"a".to_owned());
    queue.done(&"b".to_owned());
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_marked_while_worked_on_comes_again_after_the_work() {
    let queue = queue();
    queue.add("a".to_owned());
    let key = queue.next().await;
    queue.add("a".to_owned());
    queue.add("b".to_owned());
    assert_eq!(queue.next().await, "b", "no second worker gets a key that is being worked on");
    queue.done(&key);
    assert_eq!(queue.next().await, "a");
}

#[tokio::test(start_paused = true)]
async fn back_off_doubles_per_key_up_to_the_longest_and_is_forgotten_after_success() {
    let queue = queue();
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let waits: Vec<_> = (0..5).map(|_| queue.retry(a.clone()).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 8]);
    assert_eq!(queue.retry(b), STEP);
    queue.forget(&a);
    assert_eq!(queue.retry(a), STEP);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_two_delays_holds_and_an_immediate_add_replaces_both() {
    let queue = queue();
    let start = Instant::now();
    queue.add_after("a".to_owned(), 5 * STEP);
    queue.add_after("a".to_owned(), 2 * STEP);
    queue.add_after("a".to_owned(), 9 * STEP);
    assert_eq!(queue.next().await, "a");
    assert_eq!(start.elapsed().as_secs(), 2);
    queue.done(&"a".to_owned());
    assert!(queue.is_empty());
    queue.add_after("a".to_owned(), STEP);
    queue.add("a".to_owned());
    assert_eq!(queue.next().await, "a");
    queue.done(&"a".to_owned());
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_key_reaches_some_worker_when_many_wait() {
    let queue = queue();
    let (report, mut reports) = mpsc::channel(16);
    let workers = run(queue.clone(), 4, move |key: String| {
        let report = report.clone();
        async move {
            report.send(key).await.expect("the test listens");
            Ok::<_, Wanted>(Outcome::Done)
        }
    });
    let driver = async {
        for key in ["a", "b", "c", "d", "e", "f"] {
            queue.add(key.to_owned());
        }
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(reports.recv().await.expect("workers run"));
        }
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b", "c", "d", "e", "f"]);
    };
    tokio::select! { () = workers => unreachable!("workers never end"), () = driver => {} }
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_come_back_and_hold_up_no_other_key() {
    let queue = queue();
    let log = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let seen = Arc::clone(&log);
    let workers = run(queue.clone(), 1, move |key: String| {
        let seen = Arc::clone(&seen);
        async move {
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seen.push((key.clone(), start.elapsed().as_secs()));
            let visits = seen.iter().filter(|(other, _)| *other == key).count();
            drop(seen);
            match (key.as_str(), visits) {
                ("fails", 1) => Err(Wanted),
                ("panics", 1) => panic!("as the test wants"),
                ("again", 1) => Ok(Outcome::Again(3 * STEP)),
                _ => Ok(Outcome::Done),
            }
        }
    });
    for key in ["fails", "panics", "again", "fine"] {
        queue.add(key.to_owned());
    }
    let _ = tokio::time::timeout(60 * STEP, workers).await;
    let mut log = log.lock().unwrap().clone();
    log.sort_unstable();
    let expected = [("again", 0), ("again", 3), ("fails", 0), ("fails", 1), ("fine", 0), ("panics", 0), ("panics", 1)];
    assert_eq!(log, expected.map(|(key, second)| (key.to_owned(), second)));
}
