//! The conformance suite that every store passes, and what only the durable one must do.

mod damage;
mod kill;
mod layout;
mod snapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use task::{SharedClock, SystemClock};

use crate::*;

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn key(text: &str) -> Key {
    Key(text.to_owned())
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, SqliteOptions::default(), clock()).unwrap()
}

async fn create(store: &dyn Store, name: &str, text: &str) -> Revision {
    store.put(&key(name), value(text), Expect::Absent, Durability::Durable).await.unwrap()
}

fn all(prefix: &str) -> Range {
    Range { prefix: prefix.to_owned(), after: None, limit: None, at: None }
}

/// Runs a check against a fresh store of each kind.
async fn on_every_store<F: AsyncFn(&dyn Store)>(check: F) {
    check(&MemoryStore::new(clock(), HistoryLimits::default())).await;
    let folder = tempfile::tempdir().unwrap();
    check(&open(&folder.path().join("db"))).await;
    check(&open_sealed(folder.path(), "/").unwrap()).await;
}

/// A store that seals what is below a prefix.
fn open_sealed(folder: &Path, prefix: &str) -> Result<SqliteStore, StoreError> {
    let seal = Seal::open(&folder.join("keys"), prefix).unwrap();
    SqliteStore::open_sealed(&folder.join("sealed"), SqliteOptions::default(), clock(), seal)
}

/// Whether any file of a store holds a text.
fn on_disk(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut stores = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("sealed"));
    stores.any(|path| std::fs::read(path).unwrap().windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test]
async fn what_is_sealed_never_reaches_the_disk_in_plain() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    let first = create(&store, "/secrets/a/x", "correct horse battery staple").await;
    create(&store, "/configmaps/a/x", "plain as day").await;
    let text = value("correct horse, changed");
    store.put(&key("/secrets/a/x"), text, Expect::At(first), Durability::Durable).await.unwrap();
    assert!(!on_disk(folder.path(), "correct horse") && on_disk(folder.path(), "plain as day"));
    store.close().await.unwrap();
    assert!(!on_disk(folder.path(), "correct horse"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.path().join("keys")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    let read = store.get(&key("/secrets/a/x")).await.unwrap().unwrap();
    assert_eq!(read.value, value("correct horse, changed"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn plain_values_are_sealed_at_the_next_start_and_nothing_of_them_stays() {
    let folder = tempfile::tempdir().unwrap();
    let plain = open(&folder.path().join("sealed"));
    create(&plain, "/secrets/a/x", "correct horse battery staple").await;
    plain.close().await.unwrap();
    assert!(on_disk(folder.path(), "correct horse"));
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    assert!(!on_disk(folder.path(), "correct horse"));
    let read = store.get(&key("/secrets/a/x")).await.unwrap().unwrap();
    assert_eq!(read.value, value("correct horse battery staple"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn keys_are_changed_by_a_line_before_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, name) = (folder.path().join("keys"), key("/secrets/a/x"));
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    let revision = create(&store, &name.0, "correct horse").await;
    store.close().await.unwrap();
    let old = std::fs::read_to_string(&keys).unwrap();
    std::fs::remove_file(&keys).unwrap();
    drop(Seal::open(&keys, "/secrets/").unwrap());
    let new = std::fs::read_to_string(&keys).unwrap();
    let error = open_sealed(folder.path(), "/secrets/").err().unwrap();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("restore the file of keys"), "{error:?}");
    std::fs::write(&keys, format!("{new}{old}")).unwrap();
    open_sealed(folder.path(), "/secrets/").unwrap().close().await.unwrap();
    // Everything is of the new key now, so the old one can go.
    std::fs::write(&keys, new).unwrap();
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    let read = store.get(&name).await.unwrap().unwrap();
    assert_eq!((read.revision, read.value), (revision, value("correct horse")));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_sealed_value_in_another_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_sealed(folder.path(), "/secrets/").unwrap();
    create(&store, "/secrets/a/x", "one").await;
    create(&store, "/secrets/a/y", "other").await;
    store.close().await.unwrap();
    let database = rusqlite::Connection::open(folder.path().join("sealed")).unwrap();
    // A row without a checksum is as good as one of an earlier version.
    let swap = "UPDATE objects SET checksum = NULL, value = (SELECT value FROM objects WHERE key = '/secrets/a/y')
                WHERE key = '/secrets/a/x'";
    assert_eq!(database.execute(swap, []).unwrap(), 1);
    drop(database);
    assert!(open_sealed(folder.path(), "/secrets/").is_err());
}

#[tokio::test]
async fn a_write_happens_only_if_what_it_expects_holds() {
    on_every_store(async |store| {
        let first = create(store, "/pods/a/x", "1").await;
        let again = store.put(&key("/pods/a/x"), value("2"), Expect::Absent, Durability::Durable).await;
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        let second = store.put(&key("/pods/a/x"), value("2"), Expect::At(first), Durability::Durable).await.unwrap();
        assert!(second > first);
        let stale = store.put(&key("/pods/a/x"), value("3"), Expect::At(first), Durability::Durable).await;
        let Err(StoreError::Conflict { current: Some(current), .. }) = stale else { panic!("{stale:?}") };
        assert_eq!((current.revision, current.value), (second, value("2")));
        assert!(store.delete(&key("/pods/a/x"), first, Durability::Durable).await.is_err());
        let third = store.delete(&key("/pods/a/x"), second, Durability::Durable).await.unwrap();
        assert!(third > second);
        assert_eq!(store.get(&key("/pods/a/x")).await.unwrap(), None);
        assert_eq!(store.revision(), third);
    })
    .await;
}

#[tokio::test]
async fn a_listing_that_continues_sees_one_moment() {
    on_every_store(async |store| {
        for name in ["a", "b", "c", "d"] {
            create(store, &format!("/pods/n/{name}"), name).await;
        }
        create(store, "/podsx/n/z", "z").await;
        let first = store.list(Range { limit: Some(2), ..all("/pods/") }).await.unwrap();
        assert_eq!((first.entries.len(), first.remaining), (2, 2));
        let c = store.get(&key("/pods/n/c")).await.unwrap().unwrap();
        store.delete(&c.key, c.revision, Durability::Durable).await.unwrap();
        create(store, "/pods/n/cc", "cc").await;
        let last = first.entries.last().map(|entry| entry.key.clone());
        let rest = Range { after: last, limit: Some(5), at: Some(first.revision), ..all("/pods/") };
        let second = store.list(rest).await.unwrap();
        let names: Vec<_> = second.entries.iter().map(|entry| entry.value.clone()).collect();
        assert_eq!(names, [value("c"), value("d")]);
        assert_eq!((second.revision, second.remaining), (first.revision, 0));
        let future = store.list(Range { at: Some(Revision(1 << 40)), ..all("/pods/") }).await;
        assert!(matches!(future, Err(StoreError::Future { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_every_change_of_its_prefix_in_order() {
    on_every_store(async |store| {
        create(store, "/pods/n/old", "0").await;
        let start = store.revision();
        let mut watch = store.watch("/pods/n/", start).await.unwrap();
        let first = create(store, "/pods/n/a", "1").await;
        create(store, "/pods/m/other", "x").await;
        store.put(&key("/pods/n/a"), value("2"), Expect::At(first), Durability::WriteBehind).await.unwrap();
        let second = store.get(&key("/pods/n/a")).await.unwrap().unwrap().revision;
        store.delete(&key("/pods/n/a"), second, Durability::Durable).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let Some(Watched::Changed(change)) = watch.next().await else { panic!("watch ended") };
            seen.push((change.before, change.after));
        }
        let (one, two) = (Some(value("1")), Some(value("2")));
        assert_eq!(seen, [(None, one.clone()), (one, two.clone()), (two, None)]);
        let last = create(store, "/configmaps/n/c", "x").await;
        assert_eq!(watch.progress(), last);
    })
    .await;
}

#[tokio::test]
async fn a_watch_behind_the_kept_history_is_told_so() {
    let limits = HistoryLimits { bytes: 2000, age: Duration::from_secs(3600) };
    let store = MemoryStore::new(clock(), limits);
    let start = create(&store, "/pods/n/0", "0").await;
    let mut watch = store.watch("/pods/", start).await.unwrap();
    for index in 1..100 {
        create(&store, &format!("/pods/n/{index}"), "0123456789").await;
    }
    assert!(matches!(watch.next().await, Some(Watched::Overrun)));
    assert!(matches!(store.watch("/pods/", start).await, Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_revisions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    create(&store, "/pods/n/a", "1").await;
    let seen = store.put(&key("/leases/n/b"), value("2"), Expect::Absent, Durability::WriteBehind).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(store.get(&key("/pods/n/a")).await.unwrap().unwrap().value, value("1"));
    assert_eq!(store.get(&key("/leases/n/b")).await.unwrap().unwrap().value, value("2"));
    assert!(store.revision() >= seen);
    assert!(create(&store, "/pods/n/c", "3").await > seen);
}

/// A copy of the files while the store is open is what a crash of the machine leaves.
#[tokio::test]
async fn a_crash_never_takes_back_a_revision_that_a_watcher_saw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    create(&store, "/pods/n/a", "1").await;
    let seen = store.put(&key("/leases/n/b"), value("2"), Expect::Absent, Durability::WriteBehind).await.unwrap();
    for (from, to) in [("db", "crashed"), ("db-wal", "crashed-wal")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    let crashed = open(&folder.path().join("crashed"));
    assert!(crashed.get(&key("/pods/n/a")).await.unwrap().is_some());
    assert_eq!(crashed.get(&key("/leases/n/b")).await.unwrap(), None);
    assert!(crashed.revision() > seen);
    assert!(create(&crashed, "/pods/n/b", "1").await > seen);
}

#[tokio::test]
async fn the_database_is_private_and_open_only_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    create(&store, "/pods/n/a", "1").await;
    for name in ["db", "db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(SqliteStore::open(&path, SqliteOptions::default(), clock()).is_err());
}

#[tokio::test]
async fn a_damaged_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    std::fs::write(&path, [7_u8; 8192]).unwrap();
    let Err(error) = SqliteStore::open(&path, SqliteOptions::default(), clock()) else { panic!("opened") };
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source, Some(path.display().to_string()));
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_store_equals_a_map(steps in proptest::collection::vec(
        prop_oneof![(0_u8..6, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)), (0_u8..6).prop_map(Step::Delete)], 0..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(on_every_store(async |store| {
            let mut model: BTreeMap<Key, Bytes> = BTreeMap::new();
            for step in &steps {
                match *step {
                    Step::Put(k, v) => {
                        let key = key(&format!("/t/n/{k}"));
                        let present = store.get(&key).await.unwrap();
                        let expect = present.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
                        let bytes = Bytes::copy_from_slice(&[v]);
                        store.put(&key, bytes.clone(), expect, Durability::WriteBehind).await.unwrap();
                        model.insert(key, bytes);
                    }
                    Step::Delete(k) => {
                        let key = key(&format!("/t/n/{k}"));
                        if let Some(entry) = store.get(&key).await.unwrap() {
                            store.delete(&key, entry.revision, Durability::WriteBehind).await.unwrap();
                        }
                        model.remove(&key);
                    }
                }
            }
            let listed = store.list(all("/t/")).await.unwrap();
            let listed: BTreeMap<Key, Bytes> = listed.entries.into_iter().map(|e| (e.key, e.value)).collect();
            assert_eq!(listed, model);
        }));
    }
}
