//! What the file holds: one row for each key, whatever way it came, and what earlier versions have written.

use rusqlite::Connection;

use super::*;

/// Rows of the file of a closed store.
fn rows(path: &Path) -> usize {
    let database = Connection::open(path).unwrap();
    database.query_row("SELECT count(*) FROM objects", [], |row| row.get(0)).unwrap()
}

async fn contents(store: &dyn Store) -> BTreeMap<Key, (Revision, Bytes)> {
    let page = store.list(all("")).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.key, (entry.revision, entry.value))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_key_has_one_row_whether_it_was_written_behind_or_not(
        steps in proptest::collection::vec((0_u8..4, any::<Option<u8>>(), any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("db");
            let store = open(&path);
            for (name, text, durable) in steps {
                let name = key(&format!("/t/n/{name}"));
                let how = if durable { Durability::Durable } else { Durability::WriteBehind };
                let present = store.get(&name).await.unwrap().map(|entry| entry.revision);
                match (text, present) {
                    (Some(text), None) => drop(store.put(&name, value(&text.to_string()), Expect::Absent, how).await.unwrap()),
                    (Some(text), Some(at)) => drop(store.put(&name, value(&text.to_string()), Expect::At(at), how).await.unwrap()),
                    (None, Some(at)) => drop(store.delete(&name, at, how).await.unwrap()),
                    (None, None) => {}
                }
            }
            let before = contents(&store).await;
            store.close().await.unwrap();
            assert_eq!(rows(&path), before.len());
            assert_eq!(contents(&open(&path)).await, before);
        });
    }
}

/// A file as version 1 or 2 of the layout has it, with two objects.
fn write_old(path: &Path, layout: u8) {
    let (checksum, absent) = if layout == 2 { (", checksum INTEGER", ", NULL") } else { ("", "") };
    let old = Connection::open(path).unwrap();
    old.execute_batch(&format!(
        "CREATE TABLE objects (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL{checksum}) WITHOUT ROWID;
         CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO objects VALUES ('/pods/n/a', 9, CAST('the ninth' AS BLOB){absent}),
             ('/pods/n/b', 4, CAST('the fourth' AS BLOB){absent});
         INSERT INTO meta VALUES ('reserved', 70);
         PRAGMA user_version = {layout};"
    ))
    .unwrap();
}

#[tokio::test]
async fn a_file_of_an_earlier_layout_is_brought_to_this_one() {
    for layout in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        write_old(&path, layout);
        let expected = [("/pods/n/a", 9, "the ninth"), ("/pods/n/b", 4, "the fourth")];
        let expected = expected.map(|(name, at, text)| (key(name), (Revision(at), value(text)))).into();
        let store = open(&path);
        assert_eq!(contents(&store).await, expected, "{layout}");
        let next = store.put(&key("/pods/n/b"), value("new"), Expect::At(Revision(4)), Durability::Durable).await;
        assert!(next.unwrap() > Revision(70));
        store.close().await.unwrap();
        assert_eq!(rows(&path), 2);
        assert_eq!(open(&path).get(&key("/pods/n/b")).await.unwrap().unwrap().value, value("new"));
    }
}

#[tokio::test]
async fn nothing_plain_of_an_earlier_layout_stays_once_values_are_sealed() {
    let folder = tempfile::tempdir().unwrap();
    write_old(&folder.path().join("sealed"), 2);
    assert!(on_disk(folder.path(), "the ninth"));
    let store = open_sealed(folder.path(), "/pods/").unwrap();
    assert!(!on_disk(folder.path(), "the ninth"));
    assert_eq!(store.get(&key("/pods/n/a")).await.unwrap().unwrap().value, value("the ninth"));
}

#[tokio::test]
async fn of_two_rows_of_a_key_the_newer_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = open(&path);
    let old = create(&store, "/pods/n/a", "old").await;
    store.close().await.unwrap();
    let kept = std::fs::read(&path).unwrap();
    let store = open(&path);
    store.put(&key("/pods/n/a"), value("new"), Expect::At(old), Durability::Durable).await.unwrap();
    store.close().await.unwrap();
    std::fs::write(folder.path().join("kept"), kept).unwrap();
    let database = Connection::open(&path).unwrap();
    let from = folder.path().join("kept");
    database.execute("ATTACH ?1 AS kept", [from.to_str().unwrap()]).unwrap();
    assert_eq!(database.execute("INSERT INTO objects SELECT * FROM kept.objects", []).unwrap(), 1);
    drop(database);
    let store = open(&path);
    assert_eq!(store.get(&key("/pods/n/a")).await.unwrap().unwrap().value, value("new"));
}
