use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use runtime::{ContainerId, ContainerSpec, ImageDefaults, ImageId, Seccomp};
use serde_json::{Value, json};

use super::*;

fn pod(container: Value) -> Pod {
    let mut container = container;
    container["name"] = json!("web");
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "shop"}},
        "spec": {"nodeName": "edge", "containers": [container]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn defaults() -> ImageDefaults {
    ImageDefaults {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec!["PATH=/bin".to_owned(), "MODE=image".to_owned()],
        working_dir: "/srv".to_owned(),
        ..ImageDefaults::default()
    }
}

fn context() -> Context {
    let settings = json!({"metadata": {"name": "settings"}, "data": {"COLOR": "blue"}});
    let settings: ConfigMap = serde_json::from_value(settings).expect("a ConfigMap");
    Context {
        pod_ips: vec!["10.42.0.2".parse().expect("an address")],
        node_memory: 8 << 30,
        allocatable: [("cpu", 2000), ("memory", 6 << 30)].map(|(name, own)| (name.to_owned(), own)).into(),
        references: References { config_maps: [("settings".to_owned(), settings)].into(), ..References::default() },
        ..Context::default()
    }
}

fn compiled_from(pod: &Pod, defaults: &ImageDefaults) -> Result<ContainerSpec, ConfigError> {
    let request = Request {
        pod,
        container: &pod.spec.as_ref().expect("a spec").containers[0],
        id: ContainerId("c0".to_owned()),
        attempt: 0,
        image: ImageId("sha256:1".to_owned()),
        defaults,
        mounts: Vec::new(),
        processes_of: None,
        labels: Default::default(),
    };
    compile(request, &context())
}

fn compiled(container: Value) -> Result<ContainerSpec, ConfigError> {
    compiled_from(&pod(container), &defaults())
}

fn variable(spec: &ContainerSpec, name: &str) -> Option<String> {
    spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

#[test]
fn command_and_args_replace_what_the_image_says() {
    let args = |container| compiled(container).expect("a container").args;
    assert_eq!(args(json!({})), ["/entry", "serve"]);
    assert_eq!(args(json!({"args": ["a"]})), ["/entry", "a"]);
    assert_eq!(args(json!({"command": ["/x"]})), ["/x"]);
    assert_eq!(args(json!({"command": ["/x"], "args": ["a"]})), ["/x", "a"]);
    let nothing = compiled_from(&pod(json!({})), &ImageDefaults::default());
    assert_eq!(nothing, Err(ConfigError::NoCommand));
}

#[test]
fn variables_are_expanded_where_they_are_known() {
    let env = [("A".to_owned(), "1".to_owned())];
    assert_eq!(expand("$(A) $(B) $$(A) $A $", &env), "1 $(B) $(A) $A $");
    assert_eq!(expand("$(A", &env), "$(A");
    let spec = compiled(json!({
        "env": [{"name": "HOST", "value": "db"}, {"name": "URL", "value": "http://$(HOST)/$(NONE)"}],
        "command": ["/x", "$(URL)"],
    }));
    assert_eq!(spec.expect("a container").args, ["/x", "http://db/$(NONE)"]);
}

#[test]
fn the_environment_comes_from_image_pod_and_references() {
    let spec = compiled(json!({
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "MY_"}],
        "env": [
            {"name": "MODE", "value": "pod"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOR"}}},
            {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "other", "key": "X", "optional": true}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }))
    .expect("a container");
    let seen = |name| variable(&spec, name);
    assert_eq!(seen("PATH").as_deref(), Some("/bin"));
    assert_eq!(seen("MODE").as_deref(), Some("pod"));
    assert_eq!(seen("MY_COLOR").as_deref(), Some("blue"));
    assert_eq!(seen("IP").as_deref(), Some("10.42.0.2"));
    assert_eq!(seen("APP").as_deref(), Some("shop"));
    assert_eq!(seen("COLOR").as_deref(), Some("blue"));
    assert_eq!(seen("MAYBE"), None);
    assert_eq!(seen("CPU").as_deref(), Some("2"));
}

#[test]
fn what_does_not_exist_is_named_as_upstream_names_it() {
    let message = |container| compiled(container).expect_err("an error").to_string();
    let key = |name, key| json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]});
    assert_eq!(message(key("other", "A")), "configmap \"other\" not found");
    assert_eq!(message(key("settings", "A")), "couldn't find key A in ConfigMap default/settings");
    let secret = json!({"envFrom": [{"secretRef": {"name": "keys"}}]});
    assert_eq!(message(secret), "secret \"keys\" not found");
}

#[test]
fn root_is_refused_where_it_is_forbidden() {
    let spec = |user: &str, context: Value| {
        compiled_from(
            &pod(json!({ "securityContext": context })),
            &ImageDefaults { user: user.to_owned(), ..defaults() },
        )
    };
    let non_root = json!({"runAsNonRoot": true});
    assert!(matches!(spec("", non_root.clone()), Err(ConfigError::ImageRunsAsRoot { .. })));
    assert!(matches!(spec("nobody", non_root.clone()), Err(ConfigError::UserIsName { .. })));
    assert!(matches!(spec("", json!({"runAsNonRoot": true, "runAsUser": 0})), Err(ConfigError::UserIsRoot { .. })));
    assert_eq!(spec("1000:1000", non_root).expect("a container").user.user, "1000:1000");
    assert_eq!(spec("nobody", json!({"runAsUser": 7})).expect("a container").user.user, "7");
}

#[test]
fn the_default_system_call_filter_applies_unless_privileged() {
    let seccomp = |context: Value| compiled(json!({ "securityContext": context })).map(|spec| spec.privileges.seccomp);
    assert_eq!(seccomp(json!({})), Ok(Seccomp::RuntimeDefault));
    assert_eq!(seccomp(json!({"privileged": true})), Ok(Seccomp::Unconfined));
    let outside = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x.json"}});
    assert!(matches!(seccomp(outside), Err(ConfigError::Value { .. })));
}

#[test]
fn requests_and_limits_become_cgroup_settings_by_upstreams_formulas() {
    let resources = |own: Value| compiled(json!({ "resources": own })).expect("a container").resources;
    let none = resources(json!({}));
    assert_eq!(
        (none.cpu_shares, none.cpu_quota, none.memory_limit, none.oom_score_adj),
        (Some(2), None, None, Some(1000))
    );
    let burstable = resources(json!({"requests": {"cpu": "500m", "memory": "4Gi"}, "limits": {"cpu": "1"}}));
    assert_eq!(
        (burstable.cpu_shares, burstable.cpu_quota, burstable.cpu_period),
        (Some(512), Some(100_000), Some(100_000))
    );
    assert_eq!(burstable.oom_score_adj, Some(500));
    let guaranteed = resources(json!({"limits": {"cpu": "100m", "memory": "64Mi"}}));
    assert_eq!((guaranteed.cpu_shares, guaranteed.cpu_quota), (Some(102), Some(10_000)));
    assert_eq!((guaranteed.memory_limit, guaranteed.oom_score_adj), (Some(67_108_864), Some(-997)));
}

#[test]
fn a_pod_is_in_the_cgroup_of_its_class() {
    let path = |own: Value| cgroup(&pod(json!({ "resources": own })), std::path::Path::new("kubepods"));
    assert_eq!(path(json!({})), std::path::Path::new("kubepods/besteffort/podu1"));
    assert_eq!(path(json!({"requests": {"cpu": "1"}})), std::path::Path::new("kubepods/burstable/podu1"));
    assert_eq!(path(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), std::path::Path::new("kubepods/podu1"));
}

#[test]
fn the_resolver_asks_the_cluster_once_there_is_one() {
    let host = ResolvConf::parse("nameserver 192.0.2.1\nsearch example.org\n# comment\n");
    let pod = pod(json!({}));
    assert_eq!(resolv_conf(&pod, &host, &Dns::default()), host);
    let dns = Dns { servers: vec!["10.43.0.10".parse().expect("an address")], domain: "cluster.local".to_owned() };
    let text = resolv_conf(&pod, &host, &dns).render();
    assert!(name_resolution(&pod, &host, &dns).is_empty());
    let expected = "nameserver 10.43.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local example.org\noptions ndots:5\n";
    assert_eq!(text, expected);
}

#[test]
fn the_hosts_file_names_the_pod_and_its_aliases() {
    let mut pod = pod(json!({}));
    let aliases = json!([{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]);
    pod.spec.as_mut().expect("a spec").host_aliases = serde_json::from_value(aliases).expect("aliases");
    let text = hosts_file(&pod, &["10.42.0.2".parse().expect("an address")], None, "cluster.local");
    assert!(text.contains("\n10.42.0.2\tweb\n"), "{text}");
    assert!(text.ends_with("192.0.2.7\ta\tb\n"), "{text}");
}

#[test]
fn host_names_are_short_whole_or_overridden() {
    let named = |own: Value| {
        let mut pod = pod(json!({}));
        let mut spec = serde_json::to_value(pod.spec.take()).expect("a spec");
        spec.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
        pod.spec = serde_json::from_value(spec).expect("a spec");
        pod
    };
    let kernel = |pod: &Pod| kernel_name(pod, "cluster.local").map_err(|error| error.to_string());
    let hosts = |pod: &Pod| hosts_file(pod, &["10.42.0.2".parse().expect("an address")], None, "cluster.local");
    let whole = named(json!({"hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true}));
    assert_eq!(kernel(&whole).as_deref(), Ok("h.sub.default.svc.cluster.local"));
    assert!(hosts(&whole).ends_with("10.42.0.2\th.sub.default.svc.cluster.local\th\n"));
    let short = named(json!({"hostname": "h", "subdomain": "sub"}));
    assert_eq!(kernel(&short).as_deref(), Ok("h"));
    assert_eq!(kernel(&named(json!({"setHostnameAsFQDN": true}))).as_deref(), Ok("web"));
    let overridden = named(json!({"hostnameOverride": "a.b.example.org", "hostname": "h", "subdomain": "sub"}));
    assert_eq!(kernel(&overridden).as_deref(), Ok("a.b.example.org"));
    assert!(hosts(&overridden).ends_with("10.42.0.2\ta.b.example.org\n"));
    let long = named(json!({"hostname": "a".repeat(40), "subdomain": "sub", "setHostnameAsFQDN": true}));
    let expected = format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {}.sub.default.svc.cluster.local is too long \
         (64 characters is the max, 70 characters requested)",
        "a".repeat(40)
    );
    assert_eq!(kernel(&long), Err(expected));
}

#[test]
fn what_the_resolver_library_cannot_take_is_left_out_and_told() {
    let mut pod = pod(json!({}));
    let searches: Vec<String> = (0..40).map(|number| format!("{number}.example.org")).collect();
    let config = json!({
        "nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1", "192.0.2.4"], "searches": searches,
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    });
    let spec = pod.spec.as_mut().expect("a spec");
    spec.dns_policy = Some("None".to_owned());
    spec.dns_config = serde_json::from_value(config).expect("a configuration");
    let (host, dns) = (ResolvConf::parse("nameserver 192.0.2.9\noptions ndots:1 rotate\n"), Dns::default());
    let conf = resolv_conf(&pod, &host, &dns);
    assert_eq!((conf.nameservers.len(), conf.search.len()), (3, 32));
    assert_eq!(conf.options, ["ndots:2", "edns0"]);
    let told = name_resolution(&pod, &host, &dns);
    assert_eq!(told.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), ["DNSConfigForming"; 2]);
    assert!(told[0].1.ends_with("the applied nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3"), "{told:?}");
    let spec = pod.spec.as_mut().expect("a spec");
    spec.dns_policy = Some("Default".to_owned());
    spec.dns_config.as_mut().expect("a configuration").searches = Some(vec!["a".repeat(254), "b.example".to_owned()]);
    let conf = resolv_conf(&pod, &host, &dns);
    assert_eq!((conf.nameservers[0].as_str(), &conf.search[..]), ("192.0.2.9", &["b.example".to_owned()][..]));
    assert_eq!(conf.options, ["rotate", "ndots:2", "edns0"]);
}

#[test]
fn fields_without_effect_are_named() {
    let pod = pod(json!({"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "2001:db8::1"}]}));
    let fields = unsupported_fields(&pod);
    assert_eq!(fields, ["spec.containers[0].ports[0].hostIP"]);
}

#[test]
fn ports_of_the_host_are_those_of_all_containers_that_run_together() {
    let mut pod = pod(json!({"ports": [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 81, "hostPort": 8080, "hostIP": "192.0.2.1", "protocol": "SCTP"},
        {"containerPort": 82},
        {"containerPort": 83, "hostPort": 8080, "hostIP": "0.0.0.0"},
        {"containerPort": 84, "hostPort": 8084, "hostIP": "2001:db8::1"},
    ]}));
    let init = json!([
        {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]},
        {"name": "once", "ports": [{"containerPort": 1, "hostPort": 1}]},
    ]);
    pod.spec.as_mut().expect("a spec").init_containers = serde_json::from_value(init).expect("containers");
    let seen = |pod: &Pod| -> Vec<String> {
        host_ports(pod).iter().map(|port| format!("{port} {}", port.container_port)).collect()
    };
    let expected = ["UDP/0.0.0.0:53 53", "TCP/0.0.0.0:8080 80", "SCTP/192.0.2.1:8080 81", "TCP/[2001:db8::1]:8084 84"];
    assert_eq!(seen(&pod), expected);
    pod.spec.as_mut().expect("a spec").host_network = Some(true);
    assert!(seen(&pod).is_empty());
}

#[test]
fn credentials_are_found_by_registry_and_the_most_specific_come_first() {
    let secret = |config: Value| {
        let text = config.to_string();
        let data =
            json!({ ".dockerconfigjson": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text) });
        serde_json::from_value(json!({ "data": data })).expect("a secret")
    };
    let secrets = [secret(json!({"auths": {
        "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
        "registry.example.org": {"auth": "d2hvOmhlcmU="},
        "registry.example.org/team": {"username": "team", "password": "x"},
        "*.example.net": {"username": "any", "password": "x"},
    }}))];
    let names = |reference| -> Vec<String> {
        pull_credentials(&secrets, reference).into_iter().map(|credentials| credentials.username).collect()
    };
    assert_eq!(names("busybox:1"), ["hub"]);
    assert_eq!(names("registry.example.org/team/app:1"), ["team", "who"]);
    assert_eq!(names("registry.example.org/other/app:1"), ["who"]);
    assert_eq!(names("eu.example.net/app"), ["any"]);
    assert!(names("a.eu.example.net/app").is_empty());
}

#[test]
fn what_a_pod_asks_for_as_a_whole_goes_before_its_containers() {
    let whole = |resources: Value| -> Pod {
        let mut pod = pod(json!({"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}));
        let spec = pod.spec.as_mut().expect("a spec");
        spec.resources = Some(serde_json::from_value(resources).expect("resources"));
        spec.overhead = Some(serde_json::from_value(json!({"memory": "16Mi"})).expect("an overhead"));
        pod
    };
    let equal = whole(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
    assert_eq!(qos(&equal), Qos::Guaranteed);
    let resources = pod_resources(&equal);
    assert_eq!((resources.cpu_shares, resources.cpu_quota), (Some(2048), Some(200_000)));
    assert_eq!(resources.memory_limit, Some((1 << 30) + (16 << 20)));
    let request = whole(json!({"requests": {"cpu": "1"}}));
    assert_eq!(qos(&request), Qos::Burstable);
    let resources = pod_resources(&request);
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.memory_limit), (Some(1024), None, None));
}

#[test]
fn the_older_kind_of_pull_secret_is_read_too() {
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let text = json!({"https://registry.example.org/v1/": {"auth": encode("who:a:b"), "email": "x"}}).to_string();
    let secret =
        serde_json::from_value(json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": encode(&text)}}));
    let found = pull_credentials(&[secret.expect("a secret")], "registry.example.org/app:1");
    let found: Vec<_> = found.iter().map(|one| (one.username.as_str(), one.password.as_str())).collect();
    assert_eq!(found, [("who", "a:b")]);
}
