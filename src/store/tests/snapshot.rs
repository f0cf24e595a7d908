//! Saving all objects and going back to them.

use super::*;

#[tokio::test]
async fn a_restore_is_a_change_of_what_differs_and_watches_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("db"), folder.path().join("saved"));
    let store = open(&path);
    let first = create(&store, "/pods/n/a", "1").await;
    create(&store, "/pods/n/same", "same").await;
    store.put(&key("/leases/n/b"), value("behind"), Expect::Absent, Durability::WriteBehind).await.unwrap();
    let saved = store.save(&file).await.unwrap();
    assert_eq!(saved, store.revision());
    assert!(store.save(&file).await.is_err(), "a file that is there is not overwritten");
    store.put(&key("/pods/n/a"), value("2"), Expect::At(first), Durability::Durable).await.unwrap();
    create(&store, "/pods/n/new", "new").await;
    let gone = store.get(&key("/leases/n/b")).await.unwrap().unwrap();
    store.delete(&gone.key, gone.revision, Durability::Durable).await.unwrap();
    let before = store.revision();
    let mut watch = store.watch("/", before).await.unwrap();
    let restored = store.restore(&file).await.unwrap();
    assert_eq!(restored.0, before.0 + 3);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let Some(Watched::Changed(change)) = watch.next().await else { panic!("the watch ended") };
        seen.push((change.key.0, change.after));
    }
    seen.sort();
    let expected = [("/leases/n/b", Some("behind")), ("/pods/n/a", Some("1")), ("/pods/n/new", None)];
    assert_eq!(seen, expected.map(|(key, after)| (key.to_owned(), after.map(value))));
    drop(store);
    // What was restored was on disk before it was seen.
    for (from, to) in [("db", "crashed"), ("db-wal", "crashed-wal")] {
        if folder.path().join(from).exists() {
            std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
        }
    }
    let crashed = open(&folder.path().join("crashed"));
    assert_eq!(crashed.get(&key("/pods/n/a")).await.unwrap().unwrap().value, value("1"));
    assert_eq!(crashed.get(&key("/pods/n/new")).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_snapshot_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("db"), folder.path().join("saved"));
    let store = open(&path);
    create(&store, "/pods/n/a", &"text ".repeat(1000)).await;
    store.save(&file).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    for wrong in [&b"not a database at all"[..], &whole[..whole.len() / 2], b""] {
        std::fs::write(&file, wrong).unwrap();
        store.restore(&file).await.unwrap_err();
    }
    store.restore(&folder.path().join("absent")).await.unwrap_err();
    assert!(store.get(&key("/pods/n/a")).await.unwrap().is_some());
}
