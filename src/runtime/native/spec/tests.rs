use super::*;
use crate::{ContainerId, ImageId, PidSharing, Resources, SandboxId, User};

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new("uid", 0),
        pod_uid: "uid".to_owned(),
        attempt: 0,
        namespace: "default".to_owned(),
        name: "pod".to_owned(),
        hostname: "pod".to_owned(),
        network: Sharing::Sandbox,
        ipc: Sharing::Sandbox,
        pid: PidSharing::Container,
        cgroup: "kubepods/poduid".into(),
        resources: Resources::default(),
        log_directory: "logs".into(),
        sysctls: Default::default(),
        user_namespace: None,
        handler: None,
    }
}

fn request() -> ContainerSpec {
    ContainerSpec {
        id: ContainerId("id".to_owned()),
        name: "main".to_owned(),
        attempt: 0,
        image: ImageId("sha256:0".to_owned()),
        image_reference: "image".to_owned(),
        args: vec!["/serve".to_owned()],
        env: vec![("HOME".to_owned(), "/given".to_owned())],
        cwd: "".into(),
        user: User::default(),
        privileges: Privileges::default(),
        mounts: Vec::new(),
        resources: Resources::default(),
        tty: false,
        stdin: false,
        processes_of: None,
        labels: Default::default(),
    }
}

fn all() -> Vec<String> {
    ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"].map(str::to_owned).to_vec()
}

fn config(request: &ContainerSpec, sandbox: &SandboxSpec) -> Value {
    let identity = Identity { uid: 5, gid: 6, groups: vec![7], home: "/home".to_owned() };
    let around = Surroundings {
        sandbox,
        identity: &identity,
        host_name: "host",
        cgroup: Path::new("kubepods/poduid/id"),
        all_capabilities: &all(),
        filter: Filter::Nothing,
        devices: Vec::new(),
        processes: request.processes_of.as_ref().map(|other| format!("/proc/{other}/ns/pid").into()),
    };
    serde_json::to_value(runtime_spec(request, &around).unwrap()).unwrap()
}

#[track_caller]
fn check_capabilities(privileges: Privileges, has: &[&str], lacks: &[&str]) {
    let kept = capabilities(&privileges, &all());
    for name in has {
        assert!(kept.iter().any(|kept| kept == name), "{name} is missing in {kept:?}");
    }
    for name in lacks {
        assert!(!kept.iter().any(|kept| kept == name), "{name} is in {kept:?}");
    }
}

#[test]
fn capabilities_are_added_to_and_dropped_from_the_default() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let privileges = |add, drop| Privileges {
        add_capabilities: names(add),
        drop_capabilities: names(drop),
        ..Privileges::default()
    };
    check_capabilities(privileges(&[], &[]), &["CAP_CHOWN", "CAP_KILL"], &["CAP_SYS_ADMIN"]);
    check_capabilities(privileges(&["net_admin"], &["CHOWN"]), &["CAP_NET_ADMIN"], &["CAP_CHOWN"]);
    check_capabilities(privileges(&["CAP_CHOWN"], &["ALL"]), &["CAP_CHOWN"], &["CAP_KILL"]);
    check_capabilities(privileges(&["ALL"], &["SYS_ADMIN"]), &["CAP_NET_ADMIN"], &["CAP_SYS_ADMIN"]);
    let privileged = Privileges { privileged: true, ..Privileges::default() };
    check_capabilities(privileged, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"], &[]);
}

#[test]
fn given_variables_win_over_defaults() {
    let config = config(&request(), &sandbox());
    let env = config["process"]["env"].as_array().unwrap();
    assert_eq!(env.last().unwrap(), "HOME=/given");
    assert_eq!(env.iter().filter(|variable| variable.as_str().unwrap().starts_with("HOME=")).count(), 1);
    assert!(env.contains(&json!("HOSTNAME=pod")));
    assert_eq!(config["process"]["cwd"], "/");
    assert_eq!(config["process"]["user"], json!({ "uid": 5, "gid": 6, "additionalGids": [7] }));
}

#[test]
fn privileged_containers_have_nothing_hidden() {
    let hidden = config(&request(), &sandbox());
    assert!(hidden["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    let mut request = request();
    request.privileges.privileged = true;
    let open = config(&request, &sandbox());
    assert!(open["linux"].get("maskedPaths").is_none_or(Value::is_null));
}

#[test]
fn a_mount_replaces_the_standard_one_of_the_same_place_and_deeper_ones_come_later() {
    let mount = |destination: &str| Mount {
        destination: destination.into(),
        source: MountSource::HostPath("/host".into()),
        sub_path: None,
        read_only: true,
        recursive_read_only: false,
        propagation: Propagation::HostToContainer,
    };
    let mut request = request();
    request.mounts = vec![mount("/a/b"), mount("/dev/shm"), mount("/a")];
    let config = config(&request, &sandbox());
    let mounts = config["mounts"].as_array().unwrap();
    let place = |path: &str| mounts.iter().position(|mount| mount["destination"] == path).unwrap();
    assert!(place("/a") < place("/a/b"));
    assert_eq!(mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").count(), 1);
    assert_eq!(mounts[place("/a")]["options"], json!(["ro", "rbind", "rslave"]));
}

#[test]
fn namespaces_that_the_sandbox_shares_are_not_the_container_s_own() {
    let kinds = |pid| {
        let config = config(&request(), &SandboxSpec { pid, ..sandbox() });
        let namespaces = config["linux"]["namespaces"].as_array().unwrap().clone();
        namespaces.into_iter().map(|namespace| namespace["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(PidSharing::Container), ["mount", "cgroup", "pid"]);
    assert_eq!(kinds(PidSharing::Host), ["mount", "cgroup"]);
}

#[test]
fn the_processes_of_another_container_are_joined_by_their_namespace() {
    let request = ContainerSpec { processes_of: Some(ContainerId("7".to_owned())), ..request() };
    let joined = config(&request, &sandbox())["linux"]["namespaces"][2].clone();
    assert_eq!(joined, json!({"type": "pid", "path": "/proc/7/ns/pid"}));
    let host = config(&request, &SandboxSpec { pid: PidSharing::Host, ..sandbox() });
    assert_eq!(host["linux"]["namespaces"].as_array().unwrap().len(), 2);
}

#[test]
fn files_of_the_host_have_the_ids_of_a_user_namespace_inside() {
    let mut request = request();
    request.mounts = vec![
        Mount {
            destination: "/a".into(),
            source: MountSource::HostPath("/host".into()),
            sub_path: None,
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
        },
        Mount {
            destination: "/b".into(),
            source: MountSource::Tmpfs { size: None, mode: 0o755 },
            sub_path: None,
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
        },
    ];
    let range = crate::UserRange { first: 65536, count: 65536 };
    let config = config(&request, &SandboxSpec { user_namespace: Some(range), ..sandbox() });
    let options = |path: &str| {
        let mounts = config["mounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["destination"] == path).unwrap()["options"].clone()
    };
    assert_eq!(options("/a"), json!(["rw", "rbind", "rprivate", "idmap"]));
    assert_eq!(options("/b"), json!(["rw", "nosuid", "nodev", "mode=755"]));
    assert_eq!(options("/dev/shm"), json!(["bind", "nosuid", "noexec", "nodev"]), "it is the sandbox's own");
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    assert_eq!(namespaces.last().unwrap(), &json!({"type": "user", "path": user_namespace::PATH}));
}

#[test]
fn a_relative_destination_is_refused() {
    let mount = Mount {
        destination: "etc".into(),
        source: MountSource::Tmpfs { size: None, mode: 0o755 },
        sub_path: None,
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    };
    assert!(matches!(asked_mount(0, &mount, false), Err(RuntimeError::Invalid { .. })));
}
