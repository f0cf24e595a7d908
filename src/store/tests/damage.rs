//! Files that are cut, flipped, or not databases at all.

use std::fs;
use std::path::PathBuf;

use proptest::test_runner::{Config, RngAlgorithm, TestRng};
use tempfile::TempDir;

use super::*;

/// A database with objects of several pages, closed: all of it is in the one file.
async fn written(count: u32) -> (TempDir, PathBuf, BTreeMap<Key, Bytes>, Revision) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    let mut model = BTreeMap::new();
    for index in 0..count {
        let (name, text) = (format!("/pods/n/{index:04}"), format!("{index} ").repeat(300));
        create(&store, &name, &text).await;
        model.insert(key(&name), value(&text));
    }
    let newest = store.revision();
    store.close().await.unwrap();
    (folder, path, model, newest)
}

async fn contents(store: &dyn Store) -> BTreeMap<Key, Bytes> {
    let page = store.list(all("")).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

fn copies(folder: &TempDir) -> usize {
    let names = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().contains(".damaged-")).count()
}

#[tokio::test]
async fn a_row_that_was_changed_on_disk_is_lost_and_all_others_are_kept() {
    let (folder, path, mut model, newest) = written(50).await;
    let mut bytes = fs::read(&path).unwrap();
    let text = b"/pods/n/0017";
    // Pages that are not in use any more have older copies.
    let places = bytes.windows(text.len()).enumerate().filter(|(_, window)| window == text);
    for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
        bytes[at + 40] ^= 0x10;
    }
    fs::write(&path, &bytes).unwrap();
    let store = open(&path);
    model.remove(&key("/pods/n/0017"));
    assert!(contents(&store).await == model);
    assert!(store.revision() >= newest);
    assert_eq!(copies(&folder), 1);
    create(&store, "/pods/n/0017", "again").await;
    store.close().await.unwrap();
    let store = open(&path);
    assert_eq!(contents(&store).await.len(), 50);
    assert_eq!(copies(&folder), 1, "what was mended is whole");
}

/// Every flip is harmless, or costs rows that are then named; nothing that is served differs from what was written.
#[tokio::test]
async fn flipped_bits_never_change_what_is_served_and_revisions_do_not_go_back() {
    let (folder, path, model, newest) = written(120).await;
    let original = fs::read(&path).unwrap();
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (mut refused, mut lost) = (0, 0);
    for _ in 0..Config::default().cases {
        let mut bytes = original.clone();
        for _ in 0..1 + random.next_u32() % 3 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] ^= 1 << (random.next_u32() % 8);
        }
        fs::write(&path, &bytes).unwrap();
        match SqliteStore::open(&path, SqliteOptions::default(), clock()) {
            Ok(store) => {
                let found = contents(&store).await;
                assert!(found.iter().all(|(key, value)| model.get(key) == Some(value)));
                lost += model.len() - found.len();
                assert!(store.revision() >= newest);
                store.close().await.unwrap();
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                assert_eq!(source, Some(path.display().to_string()));
                refused += 1;
            }
        }
        for entry in fs::read_dir(folder.path()).unwrap().flatten() {
            if entry.file_name() != "db-reserved" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    eprintln!("{refused} refused, {lost} rows lost");
}

#[tokio::test]
async fn a_file_that_was_cut_keeps_what_is_left_or_is_refused_by_name() {
    let (folder, path, model, newest) = written(120).await;
    let original = fs::read(&path).unwrap();
    let mut kept_some = false;
    for eighth in 0..8 {
        fs::write(&path, &original[..original.len() * eighth / 8]).unwrap();
        match SqliteStore::open(&path, SqliteOptions::default(), clock()) {
            Ok(store) => {
                let found = contents(&store).await;
                kept_some |= !found.is_empty();
                assert!(found.iter().all(|(key, value)| model.get(key) == Some(value)));
                assert!(store.revision() >= newest, "{eighth} eighths");
                store.close().await.unwrap();
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                assert_eq!(source, Some(path.display().to_string()));
            }
        }
        for entry in fs::read_dir(folder.path()).unwrap().flatten() {
            if entry.file_name() != "db-reserved" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    assert!(kept_some);
}

/// What a power failure leaves of the log: any prefix of it. All that fits in the prefix is there.
#[tokio::test]
async fn a_log_that_was_cut_takes_no_revision_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    for index in 0..20 {
        create(&store, &format!("/pods/n/{index}"), "text").await;
    }
    let newest = store.revision();
    let log = fs::read(folder.path().join("db-wal")).unwrap();
    let mut seen = Vec::new();
    for part in 0..=16 {
        let other = tempfile::tempdir().unwrap();
        let copy = other.path().join("db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(folder.path().join("db-reserved"), other.path().join("db-reserved")).unwrap();
        fs::write(other.path().join("db-wal"), &log[..log.len() * part / 16]).unwrap();
        let cut = open(&copy);
        seen.push(contents(&cut).await.len());
        assert!(cut.revision() >= newest);
    }
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&20), "{seen:?}");
}

#[tokio::test]
async fn a_log_that_is_damaged_in_its_middle_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    for index in 0..20 {
        create(&store, &format!("/pods/n/{index}"), "text").await;
    }
    let newest = store.revision();
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("db");
    for suffix in ["", "-wal"] {
        fs::copy(folder.path().join(format!("db{suffix}")), other.path().join(format!("db{suffix}"))).unwrap();
    }
    let mut log = fs::read(other.path().join("db-wal")).unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 1;
    fs::write(other.path().join("db-wal"), &log).unwrap();
    let damaged = open(&copy);
    let found = contents(&damaged).await.len();
    assert!(found > 0 && found < 20, "{found}");
    assert_eq!(copies(&other), 2, "the database and its log are kept");
    assert!(damaged.revision() > newest, "nobody knows which revisions were issued");
}
