use std::collections::BTreeSet;

use super::*;
use crate::image::Defaults;
use crate::image::tests::{contents, store};

fn layer(store: &Store, text: &str) -> LayerRecord {
    let diff_id = Digest::of(text.as_bytes());
    let workspace = store.workspace().unwrap();
    fs::write(workspace.path().join("file"), text).unwrap();
    store.publish(workspace, &diff_id).unwrap();
    LayerRecord { diff_id, size: text.len() as u64 }
}

fn image(store: &Store, config: &str, tags: &[&str], layers: &[&str]) -> Record {
    let layers = layers.iter().map(|text| layer(store, text)).collect();
    let record = Record {
        id: Digest::of(config.as_bytes()),
        manifest: Digest::of(b"manifest"),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        digests: BTreeSet::new(),
        layers,
        defaults: Defaults::default(),
        pinned: false,
    };
    store.commit(NewImage { record, manifest: b"manifest".to_vec(), config: config.as_bytes().to_vec() }).unwrap()
}

#[test]
fn an_image_is_found_by_each_of_its_names() {
    let (_root, store) = store();
    let record = image(&store, "a", &["docker.io/library/app:latest"], &["one"]);
    let hex = record.id.hex();
    for name in
        ["app", "docker.io/app:latest", hex, &hex[..12], &format!("sha256:{hex}"), &format!("sha256:{}", &hex[..8])]
    {
        assert_eq!(store.find(name).unwrap().as_ref(), Some(&record), "{name}");
    }
    for name in ["other", "app:v2", "", "no name at all", &hex[..3]] {
        assert_eq!(store.find(name).unwrap(), None, "{name}");
    }
}

#[test]
fn an_image_of_another_opening_is_seen_at_once() {
    let (root, store) = store();
    let other = Store::open(root.path()).unwrap();
    assert_eq!(other.list().unwrap(), []);
    let record = image(&store, "a", &["r.io/a:1"], &["one"]);
    assert_eq!(other.find("r.io/a:1").unwrap(), Some(record.clone()));
    other.remove(&record.id).unwrap();
    assert_eq!(store.find("r.io/a:1").unwrap(), None);
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

#[test]
fn what_a_killed_process_left_is_removed_when_the_next_one_opens_the_store() {
    let (root, store) = store();
    let kept = image(&store, "a", &["r.io/a:1"], &["one"]);
    // As a process leaves it that is killed between publishing a layer and recording the image.
    layer(&store, "half");
    let session = root.path().join("images/temp/1-0");
    fs::create_dir_all(session.join("work-0/deep")).unwrap();
    fs::write(session.join(format!("want-{}", Digest::of(b"half").hex())), b"").unwrap();
    fs::write(root.path().join("images/index.new"), b"{").unwrap();
    drop(store);

    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.list().unwrap(), [kept]);
    assert!(!session.exists());
    assert_eq!(contents(root.path()).len(), 3, "{:?}", contents(root.path()));
}

#[test]
fn a_leased_layer_is_not_collected_by_another_process_until_the_lease_ends() {
    let (root, store) = store();
    let diff_id = Digest::of(b"wanted");
    let (lease, present) = store.lease(std::slice::from_ref(&diff_id)).unwrap();
    let (second, _) = store.lease(std::slice::from_ref(&diff_id)).unwrap();
    assert!(present.is_empty());
    layer(&store, "wanted");
    let other = Store::open(root.path()).unwrap();
    other.collect().unwrap();
    drop(lease);
    other.collect().unwrap();
    assert!(store.layer_path(&diff_id).exists());
    drop(second);
    other.collect().unwrap();
    assert!(!store.layer_path(&diff_id).exists());
}

#[test]
fn layers_of_an_interrupted_pull_wait_for_the_next_one() {
    let (root, store) = store();
    let complete = layer(&store, "complete");
    layer(&store, "unknown");
    store.keep(vec![complete.clone()]).unwrap();
    let store = {
        drop(store);
        Store::open(root.path()).unwrap()
    };
    let (_lease, present) = store.lease(std::slice::from_ref(&complete.diff_id)).unwrap();
    assert_eq!(present.get(&complete.diff_id), Some(&complete.size));
    assert!(!store.layer_path(&Digest::of(b"unknown")).exists());
    drop(_lease);
    store.collect().unwrap();
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

#[test]
fn a_name_is_taken_off_and_the_image_goes_with_its_last() {
    let (_root, store) = store();
    let record = image(&store, "a", &["r.io/a:1", "r.io/a:2"], &["one"]);
    assert!(store.untag(&"r.io/a:1".parse().unwrap()).unwrap());
    assert_eq!(store.find("r.io/a:2").unwrap().unwrap().id, record.id);
    assert!(!store.untag(&"r.io/a:1".parse().unwrap()).unwrap());
    assert!(store.untag(&"r.io/a:2".parse().unwrap()).unwrap());
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn an_image_without_its_layers_is_not_recorded() {
    let (_root, store) = store();
    let record = image(&store, "a", &[], &["one"]);
    let mut lacking = record.clone();
    lacking.id = Digest::of(b"b");
    lacking.layers.push(LayerRecord { diff_id: Digest::of(b"absent"), size: 0 });
    let image = NewImage { record: lacking, manifest: b"manifest".to_vec(), config: b"b".to_vec() };
    assert!(store.commit(image).is_err());
    assert_eq!(store.list().unwrap(), [record]);
}

#[test]
fn a_damaged_index_is_an_error_and_not_an_empty_store() {
    let (root, store) = store();
    image(&store, "a", &[], &["one"]);
    fs::write(root.path().join("images/index.json"), b"{\"images\":[{}]}").unwrap();
    let error = store.list().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(Store::open(root.path()).is_err());
}

#[test]
fn nothing_of_the_store_can_be_reached_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let (root, store) = store();
    image(&store, "a", &[], &["one"]);
    let mode = |path: &str| fs::metadata(root.path().join("images").join(path)).unwrap().permissions().mode() & 0o777;
    for path in ["", "layers", "blobs", "temp"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    for path in ["lock", "index.json", &format!("blobs/sha256/{}", Digest::of(b"a").hex())] {
        assert_eq!(mode(path), 0o600, "{path}");
    }
}
