//! Who a process is inside and what it holds.

use serde_json::json;

use crate::stage::{GIVEN, NONE, Stage};

pub(crate) fn line<'t>(report: &'t str, name: &str) -> &'t str {
    report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn a_process_is_what_its_configuration_says() {
    let Some(stage) = Stage::new("a_process_is_what_its_configuration_says") else { return };
    let mut config = stage.config(&["who"]);
    let process = &mut config["process"];
    process["user"] = json!({"uid": 1234, "gid": 567, "additionalGids": [8, 9], "umask": 0o27});
    process["cwd"] = json!("/srv/made/for/it");
    process["env"] = json!(["PATH=/bin", "COLOUR=blue"]);
    process["noNewPrivileges"] = json!(true);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    process["oomScoreAdj"] = json!(500);
    let report = stage.run(&config);
    assert_eq!(line(&report, "uid"), "1234 gid 567");
    assert_eq!(line(&report, "groups"), "8 9");
    assert_eq!(line(&report, "cwd"), "/srv/made/for/it");
    assert_eq!(line(&report, "pid"), "1 session 1");
    assert_eq!(line(&report, "Umask"), "0027");
    assert_eq!(line(&report, "NoNewPrivs"), "1");
    assert_eq!(line(&report, "nofile"), "Some(100) Some(200)");
    assert_eq!(line(&report, "oom"), "500");
    assert_eq!(line(&report, "death"), "9");
    assert_eq!(line(&report, "SigBlk"), "0000000000000000");
    let env: Vec<&str> = report.lines().filter(|line| line.starts_with("env ")).collect();
    assert_eq!(env, ["env PATH=/bin", "env COLOUR=blue"]);
}

#[test]
fn no_descriptor_but_the_standard_streams_gets_inside() {
    let Some(stage) = Stage::new("no_descriptor_but_the_standard_streams_gets_inside") else { return };
    let leaky = std::fs::File::open(stage.path("layer")).unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let report = stage.run(&stage.config(&["who"]));
    // The fourth is the directory that is being listed.
    assert_eq!(line(&report, "fds"), "0 1 2 3");
}

#[test]
fn root_has_the_capabilities_that_it_was_given_and_no_others() {
    let Some(stage) = Stage::new("root_has_the_capabilities_that_it_was_given_and_no_others") else { return };
    let report = stage.run(&stage.config(&["who"]));
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(line(&report, set), GIVEN, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(line(&report, set), NONE, "{set}");
    }
}

#[test]
fn another_user_has_ambient_capabilities_only() {
    let Some(stage) = Stage::new("another_user_has_ambient_capabilities_only") else { return };
    let mut config = stage.config(&["who"]);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let report = stage.run(&config);
    assert_eq!(line(&report, "CapEff"), NONE);
    assert_eq!(line(&report, "CapBnd"), GIVEN);
    config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    let report = stage.run(&config);
    assert_eq!(line(&report, "CapEff"), "0000000000000020");
    assert_eq!(line(&report, "CapAmb"), "0000000000000020");
}

#[test]
fn the_default_filter_refuses_with_and_without_no_new_privileges() {
    let Some(stage) = Stage::new("the_default_filter_refuses_with_and_without_no_new_privileges") else { return };
    let profile = oci::seccomp::default_profile(&[], oci::seccomp::Architecture::native());
    let mut config = stage.config(&["unshare", "--", "who"]);
    assert!(stage.run(&config).starts_with("unshared\n"), "CAP_SYS_ADMIN permits it without a filter");
    config["linux"]["seccomp"] = serde_json::to_value(&profile).unwrap();
    for no_new_privileges in [false, true] {
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let report = stage.run(&config);
        assert!(report.starts_with("error 1\n"), "{report}");
        assert_eq!(line(&report, "Seccomp"), "2");
    }
}

#[test]
fn a_limit_beyond_what_the_host_gives_is_clamped_with_a_warning() {
    let Some(stage) = Stage::new("a_limit_beyond_what_the_host_gives_is_clamped_with_a_warning") else { return };
    if stage.host.capabilities & (1 << 24) != 0 {
        eprintln!("SKIP a_limit_beyond_what_the_host_gives_is_clamped_with_a_warning: CAP_SYS_RESOURCE is held");
        return;
    }
    let present = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap();
    let mut config = stage.config(&["who"]);
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": present + 5, "hard": present + 5}]);
    config["process"]["oomScoreAdj"] = json!(-999);
    let running = stage.start(&config).unwrap();
    let warnings: Vec<i32> = running.started.warnings.iter().map(|warning| warning.errno).collect();
    assert_eq!(warnings, [libc::EACCES, libc::EPERM], "oom_score_adj first, then the limit");
    let report = running.output();
    assert_eq!(line(&report, "nofile"), format!("Some({present}) Some({present})"));
}
