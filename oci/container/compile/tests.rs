//! Configurations in `testdata/compile/*.json` become what stands beside them in `*.script`.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::*;
use crate::cgroup::{Controller, Hierarchies, Unified, V1};
use crate::container::Script;

fn host(name: &str) -> HostFacts {
    let v2 = |controllers: &[Controller]| {
        Some(Unified { mount: PathBuf::from("/sys/fs/cgroup"), controllers: controllers.to_vec() })
    };
    let v1 = |label: &str, controllers: &[Controller]| V1 {
        mount: PathBuf::from(format!("/sys/fs/cgroup/{label}")),
        label: label.to_owned(),
        controllers: controllers.to_vec(),
    };
    let hybrid = || Hierarchies {
        v1: vec![
            v1("cpu,cpuacct", &[Controller::Cpu, Controller::Cpuacct]),
            v1("memory", &[Controller::Memory]),
            v1("blkio", &[]),
            v1("name=systemd", &[]),
        ],
        v2: v2(&[]),
    };
    let all = (1 << 41) - 1;
    let unified = Hierarchies { v1: Vec::new(), v2: v2(&[Controller::Cpu, Controller::Memory, Controller::Pids]) };
    match name {
        "hybrid" => HostFacts { cgroups: hybrid(), capabilities: all, can_make_devices: true },
        "confined" => HostFacts { cgroups: unified, capabilities: all & !(1 << 24), can_make_devices: false },
        _ => HostFacts { cgroups: unified, capabilities: all, can_make_devices: true },
    }
}

/// A filter is shown by its length: its meaning is tested where it is made.
fn render(result: &Result<Compiled, CompileError>) -> String {
    use std::fmt::Write as _;
    let compiled = match result {
        Ok(compiled) => compiled,
        Err(error) => return format!("error: {error}\n"),
    };
    let script = &compiled.script;
    let mut text = format!("new namespaces: {:#x}\n", script.new.0);
    for (index, descriptor) in compiled.descriptors.iter().enumerate() {
        writeln!(text, "descriptor {index}: {descriptor:?}").unwrap();
    }
    for (index, path) in compiled.starter_paths.iter().enumerate() {
        writeln!(text, "descriptor {}: of the starter, {path:?}", index + compiled.descriptors.len()).unwrap();
    }
    writeln!(text, "process namespace: {:?}", script.pid_namespace).unwrap();
    writeln!(text, "born in: {:?}, joins: {:?}", script.born_in, script.joins).unwrap();
    for step in &script.steps {
        match step {
            Step::Seccomp { flags, .. } => writeln!(text, "Seccomp {{ flags: {flags} }}").unwrap(),
            step => writeln!(text, "{step:?}").unwrap(),
        }
    }
    writeln!(text, "args: {:?}\nenv: {:?}", script.program.args, script.program.env).unwrap();
    for warning in &compiled.warnings {
        writeln!(text, "warning: {warning}").unwrap();
    }
    text
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/compile")
}

/// The part of a case's name after the last dot before `.json` is the host: `name.host.json`.
fn check(path: &Path) {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let facts = host(stem.rsplit_once('.').map_or("unified", |(_, host)| host));
    let spec: Spec = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let result = if stem.starts_with("exec-") {
        compile_exec(&spec, spec.process().as_ref().unwrap(), &facts)
    } else {
        compile(&spec, &facts)
    };
    let actual = render(&result);
    if let Ok(compiled) = &result {
        let bytes = compiled.script.to_bytes().unwrap();
        assert_eq!(Script::from_bytes(&bytes).as_ref(), Ok(&compiled.script), "{stem} does not survive its journey");
    }
    let file = path.with_extension("script");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &actual).unwrap();
    }
    assert_eq!(actual, fs::read_to_string(&file).unwrap_or_default(), "{} (UPDATE_EXPECT=1 rewrites)", file.display());
}

#[test]
fn configurations_become_scripts() {
    let mut paths: Vec<PathBuf> = fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(paths.len() >= 8, "the cases are gone");
    for path in &paths {
        check(path);
    }
}

#[test]
fn a_script_of_another_version_is_refused() {
    let spec: Spec = serde_json::from_str(&fs::read_to_string(cases().join("usual.json")).unwrap()).unwrap();
    let mut script = compile(&spec, &host("unified")).unwrap().script;
    script.version += 1;
    let bytes = script.to_bytes().unwrap();
    assert!(Script::from_bytes(&bytes).is_err());
}
