//! SIGKILL at random moments: what was acknowledged stays, and revisions do not go back.
//!
//! The writer is this test program once more, told by a variable of its environment to be it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use proptest::test_runner::{Config, RngAlgorithm, TestRng};

use super::*;

const DATABASE: &str = "CORACLE_TEST_STORE_TO_WRITE";
const WRITERS: usize = 8;

/// Writes for ever and says each acknowledged write, if asked to by [`DATABASE`].
#[test]
fn a_writer_that_is_killed() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(Path::new(&path)));
        println!("open {}", store.revision());
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            async move {
                for round in 0_u64.. {
                    let name = key(&format!("/pods/{writer}/{}", round % 5));
                    let text = format!("{writer}-{round}");
                    let how = if round % 4 == 3 { Durability::WriteBehind } else { Durability::Durable };
                    let present = store.get(&name).await.unwrap();
                    let (revision, said) = match present {
                        Some(entry) if round % 7 == 6 => (store.delete(&name, entry.revision, how).await, "-"),
                        Some(entry) => (store.put(&name, value(&text), Expect::At(entry.revision), how).await, &*text),
                        None => (store.put(&name, value(&text), Expect::Absent, how).await, &*text),
                    };
                    let kind = if how == Durability::Durable { "durable" } else { "behind" };
                    let line = format!("{kind} {} {said} {}\n", name.0, revision.unwrap());
                    // One write of less than a pipe's atom: nothing is torn.
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            }
        });
        futures_util::future::join_all(writers).await;
    });
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it starts itself, to be killed")]
async fn kills_at_random_moments_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    // What must be there: for each key the last durable write, or what was written behind after it.
    let mut known: HashMap<String, Vec<(Option<String>, u64)>> = HashMap::new();
    let mut highest = 0_u64;
    for kill in 0..Config::default().cases {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "tests::kill::a_writer_that_is_killed"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let at: u32 = random.next_u32() % 60;
        let mut count = 0;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["open", revision] => assert!(revision.parse::<u64>().unwrap() >= highest, "{kill}: {line} {highest}"),
                [kind @ ("durable" | "behind"), key, text, revision] => {
                    let revision = revision.parse().unwrap();
                    let state = (text != "-").then(|| text.to_owned());
                    let states = known.entry(key.to_owned()).or_insert_with(|| vec![(None, 0)]);
                    if kind == "durable" {
                        states.clear();
                    }
                    states.push((state, revision));
                    highest = highest.max(revision);
                    count += 1;
                }
                _ => {}
            }
            if count >= at && child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = open(&path);
        assert!(store.revision().0 >= highest, "{kill}");
        for (name, states) in &mut known {
            let found = store.get(&key(name)).await.unwrap();
            let text = found.as_ref().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
            // A write that was not acknowledged any more may have happened as well; it has a revision of its own.
            let newer = found.is_some_and(|entry| entry.revision.0 > states.iter().map(|(_, at)| *at).max().unwrap());
            let vanished = text.is_none();
            assert!(
                newer || vanished || states.iter().any(|(state, _)| *state == text),
                "{kill}: {name} {text:?} {states:?}"
            );
            if vanished {
                // Deleted by a write whose acknowledgement was cut off, or before its key was written behind.
                assert!(may_have_vanished(states), "{kill}: {name} is gone: {states:?}");
            }
            *states = vec![(text, store.revision().0)];
        }
        highest = store.revision().0;
        store.close().await.unwrap();
    }
}

/// A key is deleted in every seventh round only, and its next write is asked for at once: whether that was the one whose
/// acknowledgement was cut off is told by its last round.
fn may_have_vanished(states: &[(Option<String>, u64)]) -> bool {
    states.iter().any(|(state, _)| match state {
        None => true,
        Some(text) => {
            let round: u64 = text.split('-').nth(1).unwrap().parse().unwrap();
            // The next round of this key is five later.
            (round + 5) % 7 == 6
        }
    })
}
