use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use k8s_openapi::api::core::v1::{ConfigMap, HostPathVolumeSource};
use serde_json::json;

use super::atomic::{self, File, Files, Owner};
use super::*;
use crate::container::{Token, TokenWish};

fn files(entries: &[(&str, &str)]) -> Files {
    let file = |content: &str| File { content: content.as_bytes().to_vec(), mode: 0o640, owner: Owner::default() };
    entries.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
}

#[test]
fn a_version_replaces_the_one_before_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let volume = directory.path().join("volume");
    atomic::write(&volume, &files(&[("a", "1"), ("deep/b", "2")])).expect("written");
    assert_eq!(fs::read_to_string(volume.join("deep/b")).expect("a file"), "2");
    assert_eq!(fs::metadata(volume.join("a")).expect("a file").permissions().mode() & 0o777, 0o640);
    let first = fs::read_link(volume.join("..data")).expect("a link");
    atomic::write(&volume, &files(&[("a", "1"), ("deep/b", "2")])).expect("written");
    assert_eq!(fs::read_link(volume.join("..data")).expect("a link"), first, "an equal version was written anew");
    atomic::write(&volume, &files(&[("a", "3")])).expect("written");
    assert_eq!(fs::read_to_string(volume.join("a")).expect("a file"), "3");
    assert!(!volume.join("deep").exists());
    let mut left: Vec<String> = fs::read_dir(&volume)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["..data", "..version.1", "a"]);
}

#[test]
fn a_path_that_leaves_the_volume_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    for path in ["../a", "/a", ""] {
        assert!(atomic::write(&directory.path().join("volume"), &files(&[(path, "1")])).is_err(), "{path:?}");
    }
}

#[test]
fn host_paths_are_checked_and_made_as_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let check = |name: &str, kind: &str| {
        let path = directory.path().join(name).to_string_lossy().into_owned();
        host_path::check(&HostPathVolumeSource { path, type_: Some(kind.to_owned()) })
    };
    assert!(check("absent", "").is_ok());
    assert!(check("absent", "Directory").is_err());
    assert!(check("made", "DirectoryOrCreate").is_ok());
    assert!(check("made", "Directory").is_ok());
    assert!(check("made", "File").is_err());
    assert!(check("file", "FileOrCreate").is_ok());
    assert!(check("file", "Socket").is_err());
    assert!(matches!(check("file", "Pipe"), Err(Problem::Unsupported { .. })));
}

#[test]
fn a_sub_path_stays_in_its_volume() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = fs::canonicalize(directory.path()).expect("a path").join("volume");
    fs::create_dir(&root).expect("a directory");
    let made = sub_path::resolve(&root, "deep/er", "data").expect("a place");
    assert_eq!(made, root.join("deep/er"));
    symlink("..", root.join("up")).expect("a link");
    symlink("deep", root.join("inside")).expect("a link");
    assert_eq!(sub_path::resolve(&root, "inside/er", "data").expect("a place"), root.join("deep/er"));
    for path in ["up", "up/x", "../x", "/x"] {
        assert!(sub_path::resolve(&root, path, "data").is_err(), "{path} was taken");
    }
}

#[test]
fn config_map_files_have_the_paths_and_modes_of_their_items() {
    let map = json!({"metadata": {"name": "settings"}, "data": {"a": "1", "b": "2"}});
    let map: ConfigMap = serde_json::from_value(map).expect("a ConfigMap");
    let mut context = Context::default();
    context.references.config_maps.insert("settings".to_owned(), map);
    let made = |source| {
        let volume = serde_json::from_value(json!({"name": "v", "configMap": source})).expect("a volume");
        content::files(&Pod::default(), &volume, &context)
    };
    let all = made(json!({"name": "settings"})).expect("files");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(all["a"], File { content: b"1".to_vec(), mode: 0o644, owner: Owner::default() });
    let some = made(json!({"name": "settings", "items": [{"key": "b", "path": "x/y", "mode": 256}]})).expect("files");
    assert_eq!(
        some,
        [("x/y".to_owned(), File { content: b"2".to_vec(), mode: 0o400, owner: Owner::default() })].into()
    );
    assert!(made(json!({"name": "settings", "items": [{"key": "c", "path": "c"}]})).is_err());
    assert!(made(json!({"name": "other"})).is_err());
    assert!(made(json!({"name": "other", "optional": true})).expect("files").is_empty());
}

#[test]
fn an_unsupported_kind_is_named() {
    let volume = serde_json::from_value(json!({"name": "v", "nfs": {"server": "s", "path": "/"}})).expect("a volume");
    assert_eq!(kind_of(&volume), "nfs");
}

#[test]
fn a_token_is_for_the_user_of_the_pod_and_its_group() {
    let mut context = Context::default();
    let wish = TokenWish { audience: String::new(), seconds: 3607 };
    let renew_at = "2026-01-02T03:04:05Z".parse().expect("a time");
    context.references.tokens.insert(wish.clone(), Token { text: "abc".to_owned(), renew_at });
    let volume = json!({"name": "v", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
    ]}});
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    assert_eq!(content::names(&volume).tokens, [wish].into());
    let made = |all: serde_json::Value, one: serde_json::Value, other: serde_json::Value| {
        let containers = json!([{"name": "a", "securityContext": one}, {"name": "b", "securityContext": other}]);
        let pod = json!({"spec": {"securityContext": all, "containers": containers}});
        let pod = serde_json::from_value(pod).expect("a pod");
        let files = content::files(&pod, &volume, &context).expect("files");
        (files["token"].mode, files["token"].owner)
    };
    let owner = |user, group| Owner { user, group };
    let user = |user: i64| json!({"runAsUser": user});
    assert_eq!(made(json!({}), json!({}), json!({})), (0o644, owner(None, None)));
    assert_eq!(made(user(7), json!({}), json!({})), (0o600, owner(Some(7), None)));
    assert_eq!(made(json!({}), user(7), user(7)), (0o600, owner(Some(7), None)));
    assert_eq!(made(user(7), json!({}), user(8)), (0o644, owner(None, None)));
    assert_eq!(made(json!({}), json!({}), user(8)), (0o644, owner(None, None)));
    assert_eq!(made(json!({"fsGroup": 9}), json!({}), json!({})), (0o640, owner(None, Some(9))));
    assert_eq!(made(json!({"fsGroup": 9, "runAsUser": 7}), json!({}), json!({})), (0o640, owner(Some(7), Some(9))));
}
