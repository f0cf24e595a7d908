use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EmptyDirVolumeSource, HostPathVolumeSource, VolumeMount};
use runtime::Propagation;
use serde_json::json;
use task::chain;

use super::atomic::{self, File, Files, Owner};
use super::make::{make_empty, memory_size};
use super::mounts::{one_mount, sub_path};
use super::*;
use crate::container::{Context, Token, TokenWish};

fn files(entries: &[(&str, &str)]) -> Files {
    let file = |content: &str| File { content: content.as_bytes().to_vec(), mode: 0o640, owner: Owner::default() };
    entries.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
}

#[test]
fn a_version_replaces_the_one_before_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let volume = directory.path().join("volume");
    atomic::write(&volume, &files(&[("a", "1"), ("deep/b", "2")]), None).expect("written");
    assert_eq!(fs::read_to_string(volume.join("deep/b")).expect("a file"), "2");
    assert_eq!(fs::metadata(volume.join("a")).expect("a file").permissions().mode() & 0o777, 0o640);
    let first = fs::read_link(volume.join("..data")).expect("a link");
    atomic::write(&volume, &files(&[("a", "1"), ("deep/b", "2")]), None).expect("written");
    assert_eq!(fs::read_link(volume.join("..data")).expect("a link"), first, "an equal version was written anew");
    atomic::write(&volume, &files(&[("a", "3")]), None).expect("written");
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
        assert!(atomic::write(&directory.path().join("volume"), &files(&[(path, "1")]), None).is_err(), "{path:?}");
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

/// Readers never see files of two versions, nor half of one.
#[test]
fn a_reader_sees_one_version_or_the_other() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().expect("a directory");
    let volume = directory.path().join("volume");
    let version = |number: usize| {
        let text = format!("{number}:").repeat(5000);
        files(&[("a", &text), ("b", &text)])
    };
    atomic::write(&volume, &version(0), None).expect("written");
    let (going, mut seen) = (AtomicBool::new(true), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..300 {
                atomic::write(&volume, &version(number), None).expect("written");
            }
            going.store(false, Ordering::Relaxed);
        });
        while going.load(Ordering::Relaxed) {
            let Ok(current) = fs::canonicalize(volume.join("..data")) else { continue };
            // The version may have gone since; what is read then is nothing, never a part.
            let read = |name: &str| fs::read_to_string(current.join(name)).ok();
            if let (Some(one), Some(other)) = (read("a"), read("b")) {
                seen += 1;
                assert!(one == other && one.len() > 5000, "torn: {} and {} bytes", one.len(), other.len());
            }
            if let Ok(text) = fs::read_to_string(volume.join("a")) {
                let first = text.split_once(':').map(|(first, _)| first.len() + 1).unwrap_or_default();
                assert_eq!(text.len(), first * 5000, "half a file");
            }
        }
    });
    assert!(seen > 0, "nothing was read");
}

#[test]
fn directories_and_files_of_a_volume_are_given_to_the_group_of_the_pod() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP directories_and_files_of_a_volume_are_given_to_the_group_of_the_pod: not root");
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().expect("a directory");
    let volume = directory.path().join("volume");
    let pod = json!({"spec": {"securityContext": {"fsGroup": 2000}, "containers": []}});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let own = json!({"name": "v", "downwardAPI": {"defaultMode": 256, "items": [
        {"path": "deep/name", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    let own = serde_json::from_value(own).expect("a volume");
    let made = content::files(&pod, &own, &Context::default()).expect("files");
    atomic::write(&volume, &made, Some(2000)).expect("written");
    let of = |path: &str| {
        let about = fs::metadata(volume.join(path)).expect("a file");
        (about.gid(), about.mode() & 0o7777)
    };
    assert_eq!(of("deep/name"), (2000, 0o440));
    assert_eq!(of("deep"), (2000, 0o2755));
    assert_eq!(of("."), (2000, 0o2777));
    let before = fs::read_link(volume.join("..data")).expect("a link");
    atomic::write(&volume, &made, Some(2000)).expect("written");
    assert_eq!(fs::read_link(volume.join("..data")).expect("a link"), before, "an equal version was written anew");
}

#[test]
fn an_empty_directory_is_made_once_and_belongs_to_the_group() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP an_empty_directory_is_made_once_and_belongs_to_the_group: not root");
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().expect("a directory");
    let of = |path: &Path| {
        let about = fs::metadata(path).expect("a directory");
        (about.gid(), about.mode() & 0o7777)
    };
    let volume = directory.path().join("volumes/data");
    // What an agent has left that died half-way.
    fs::create_dir_all(directory.path().join("volumes/..data")).expect("a directory");
    make_empty(&volume, Some(Group { id: 2000, on_root_mismatch: false })).expect("made");
    assert_eq!(of(&volume), (2000, 0o2777));
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).expect("a mode");
    make_empty(&volume, None).expect("made");
    assert_eq!(of(&volume).1, 0o700, "what a container has changed stays");
    make_empty(&directory.path().join("volumes/other"), None).expect("made");
    assert_eq!(of(&directory.path().join("volumes/other")).1, 0o777);
}

#[test]
fn memory_of_an_empty_directory_is_bounded_by_node_pod_and_volume() {
    let size = |limit: Option<&str>, pod: Option<&str>| {
        let source = EmptyDirVolumeSource {
            size_limit: limit.map(|limit| k8s_openapi::apimachinery::pkg::api::resource::Quantity(limit.to_owned())),
            ..EmptyDirVolumeSource::default()
        };
        let resources = pod.map(|limit| json!({"limits": {"memory": limit}})).unwrap_or_default();
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let context = Context { allocatable: [("memory".to_owned(), 8 << 30)].into(), ..Context::default() };
        memory_size(&pod, &source, &context).map(|size| size >> 20)
    };
    assert_eq!(size(None, None), Some(8192));
    assert_eq!(size(Some("64Mi"), None), Some(64));
    assert_eq!(size(Some("0"), Some("32Mi")), Some(32));
    assert_eq!(size(Some("64Mi"), Some("32Mi")), Some(32));
    assert_eq!(size(Some("16Mi"), Some("32Mi")), Some(16));
}

#[test]
fn a_sub_path_is_relative_and_leads_nowhere_else() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web"}})).expect("a pod");
    let own = json!({"name": "c", "env": [{"name": "NAME", "value": "a"}, {"name": "BAD", "value": "../x"}]});
    let own: Container = serde_json::from_value(own).expect("a container");
    let part = |plain: &str, expression: &str| {
        let mount = json!({"name": "v", "mountPath": "/v", "subPath": plain, "subPathExpr": expression});
        let mount: VolumeMount = serde_json::from_value(mount).expect("a mount");
        sub_path(&pod, &own, &Context::default(), &mount).map_err(|error| error.to_string())
    };
    assert_eq!(part("", ""), Ok(None));
    assert_eq!(part("x/y", ""), Ok(Some("x/y".into())));
    assert_eq!(part("", "logs/$(NAME)"), Ok(Some("logs/a".into())));
    assert_eq!(part("", "/$(NAME)"), Err("error SubPath `/a` must not be an absolute path".to_owned()));
    assert_eq!(part("", "$(BAD)"), Err("unable to provision SubPath `../x`: must not contain '..'".to_owned()));
    assert!(part("../x", "").is_err());
    assert_eq!(part("", "a/$(WHO)"), Err("missing value for \"WHO\"".to_owned()));
    assert_eq!(part("", "a/$$(WHO)"), Ok(Some("a/$(WHO)".into())));
}

#[test]
fn errors_are_worded_by_how_far_a_volume_came() {
    let text = |source| chain(&VolumeError { volume: "data".to_owned(), source });
    let claim = Problem::Claim {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        message: "PVC is not bound".to_owned(),
    };
    let words = "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process \
                 volumes=[data]: error processing PVC default/web: PVC is not bound";
    assert_eq!(text(claim), words);
    let words = "MountVolume.NewMounter initialization failed for volume \"data\" : path \"/x\" does not exist";
    assert_eq!(text(Problem::NoPath { path: "/x".to_owned() }), words);
    let words = "MountVolume.SetUp failed for volume \"data\" : hostPath type check failed: /x is not a directory";
    assert_eq!(text(Problem::HostPath { path: "/x".to_owned(), wanted: "directory" }), words);
}

#[test]
fn bidirectional_mounts_are_for_privileged_containers() {
    let config = json!({"name": "v", "mountPath": "data", "mountPropagation": "Bidirectional"});
    let mount: VolumeMount = serde_json::from_value(config).expect("a mount");
    let found = Found {
        source: Source::HostPath(HostPathVolumeSource { path: "/srv".to_owned(), type_: None }),
        read_only: false,
        name: "v".to_owned(),
    };
    let dirs = PodDirs { root: "/a".into(), run: "/b".into(), logs: "/c".into() };
    let made = |privileged: bool| {
        let own = json!({"name": "c", "securityContext": {"privileged": privileged}});
        one_mount(&serde_json::from_value(own).expect("a container"), &dirs, &mount, &found, None)
    };
    assert!(made(false).is_err());
    let mount = made(true).expect("a mount");
    assert_eq!((mount.propagation, mount.destination), (Propagation::Bidirectional, "/data".into()));
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
    let volume = serde_json::from_value(json!({"name": "v", "iscsi": {"targetPortal": "s", "iqn": "i", "lun": 0}}))
        .expect("a volume");
    assert_eq!(kind_of(&volume), "iscsi");
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
