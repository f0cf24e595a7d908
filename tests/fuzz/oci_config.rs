//! Configurations of containers: what compiles is a script that the interpreter and the kernel can take.
//!
//! The input is a `config.json` of the OCI runtime specification, compiled for three kinds of hosts.

use std::path::PathBuf;

use oci::cgroup::{Controller, Hierarchies, Unified, V1};
use oci::container::compile::{CompileError, Compiled, HostFacts, compile, compile_exec, device_rules, limits};
use oci::container::{Fd, Instruction, Namespaces, Script, Step};
use oci::protocol::MAX_DESCRIPTORS;
use oci_spec::runtime::Spec;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\"namespaces\":",
    "{\"type\":\"pid\"}",
    "{\"type\":\"mount\"}",
    "{\"type\":\"cgroup\",\"path\":\"/x\"}",
    "\"path\":\"/proc/1/ns/net\"",
    "\"mounts\":",
    "\"options\":[\"rbind\",\"ro\"]",
    "\"x-starter\"",
    "\"type\":\"bind\"",
    "\"type\":\"cgroup\"",
    "\"rlimits\":",
    "\"capabilities\":",
    "\"CAP_SYS_ADMIN\"",
    "\"seccomp\":",
    "\"SCMP_CMP_MASKED_EQ\"",
    "\"SCMP_ACT_ERRNO\"",
    "\"sysctl\":",
    "\"net.ipv4.ip_forward\"",
    "\"kernel/domainname\"",
    "\"linux\":",
    "\"terminal\":true",
    "\"noNewPrivileges\":true",
    "\"oomScoreAdj\":-1000",
    "\\u0000",
    "../",
    "null",
    "-1",
    "4294967295",
    "18446744073709551615",
    "[]",
    "{}",
];

/// Typed configurations are large, and a seccomp profile for one call becomes a search among all of them.
const BOUND: Bound = Bound { base: 1 << 20, held: 256, ever: 2048 };
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;
/// `BPF_MAXINSNS` of the kernel.
const FILTER: usize = 4096;

pub(crate) fn check(data: &[u8]) {
    let Ok(spec) = bounded(data.len(), BOUND, || serde_json::from_slice::<Spec>(data)) else { return };
    // Maps of another reading are in another order, which must not show.
    let text = serde_json::to_vec(&spec).expect("what was read can be written");
    let again: Spec = serde_json::from_slice(&text).expect("what was written can be read");
    for host in hosts() {
        let compiled = bounded(data.len(), BOUND, || compile(&spec, &host));
        assert_eq!(compiled, compile(&again, &host), "compiling depends on more than the configuration");
        if let Some(compiled) = explained(compiled) {
            sound(&compiled, &host);
            let roots = compiled.script.steps.iter().filter(|step| matches!(step, Step::Root { .. } | Step::Pivot));
            assert_eq!(roots.count(), 2, "a container gets one root and nothing outside of it");
            assert!(makes(&compiled.script).contains(Namespaces::MOUNT));
        }
        let Some(process) = spec.process() else { continue };
        if let Some(compiled) = explained(bounded(data.len(), BOUND, || compile_exec(&spec, process, &host))) {
            sound(&compiled, &host);
        }
    }
    if let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
        explained(limits(resources));
        explained(device_rules(resources));
    }
}

fn explained<T>(result: Result<T, CompileError>) -> Option<T> {
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
    }
    result.ok()
}

fn sound(compiled: &Compiled, host: &HostFacts) {
    let script = &compiled.script;
    let bytes = script.to_bytes().expect("a script can be written");
    assert_eq!(Script::from_bytes(&bytes).as_ref(), Ok(script), "a script does not survive its journey");
    let given = compiled.descriptors.len() + compiled.starter_paths.len();
    assert!(given <= MAX_DESCRIPTORS, "{given} descriptors cannot travel with one message");
    let mut used: Vec<u16> = places(script).map(|place| place.0).collect();
    used.sort_unstable();
    let expected: Vec<u16> = (0..=u16::MAX).take(given).collect();
    assert_eq!(used, expected, "each descriptor has one place in the script");
    assert!(!script.program.args.is_empty());
    // Inside a user namespace of its own a process may hold capabilities that the host's root lacks.
    let owns_users = script.steps.iter().any(|step| match step {
        Step::Join { kind: kinds, .. } | Step::JoinTarget { kinds } => kinds.contains(Namespaces::USER),
        _ => false,
    });
    let available = if owns_users { ALL_CAPABILITIES } else { host.capabilities };
    for step in &script.steps {
        step_is_sound(step, available);
    }
}

/// The namespaces that are made, at once or behind a user namespace.
fn makes(script: &Script) -> Namespaces {
    script.steps.iter().fold(script.new, |all, step| match step {
        Step::Fork { new } => all.with(*new),
        Step::NewNamespaces { kinds } => all.with(*kinds),
        _ => all,
    })
}

fn places(script: &Script) -> impl Iterator<Item = Fd> {
    let of_steps = script.steps.iter().filter_map(|step| match step {
        Step::Join { namespace, .. } => Some(*namespace),
        Step::Root { mount } | Step::Attach { mount, .. } => Some(*mount),
        Step::AwaitStart { fifo } => Some(*fifo),
        _ => None,
    });
    script.pid_namespace.into_iter().chain(script.born_in).chain(script.joins.iter().copied()).chain(of_steps)
}

fn step_is_sound(step: &Step, available: u64) {
    assert!(!step.name().is_empty());
    match step {
        Step::Mount { target: path, .. }
        | Step::Attach { target: path, .. }
        | Step::Directory { path, .. }
        | Step::Device { path, .. }
        | Step::Symlink { path, .. }
        | Step::Mask { path }
        | Step::ReadOnly { path }
        | Step::Seal { path }
        | Step::WorkingDirectory { path } => assert!(path.to_bytes().starts_with(b"/"), "{step:?} is relative"),
        Step::Sysctl { path, .. } => {
            let mut parts = path.to_bytes().split(|&byte| byte == b'/');
            assert!(parts.all(|part| !matches!(part, b"" | b"..")), "{step:?} leaves /proc/sys");
        }
        Step::BoundingSet { keep } => assert_eq!(keep & !available, 0),
        Step::Capabilities(sets) => {
            let all = sets.effective | sets.permitted | sets.inheritable | sets.ambient;
            assert_eq!(all & !available, 0, "more is given than the host has");
            assert_eq!(sets.effective & !sets.permitted, 0);
            assert_eq!(sets.ambient & !(sets.permitted & sets.inheritable), 0);
        }
        Step::Seccomp { program, .. } => filter_is_sound(program),
        _ => {}
    }
}

/// What the kernel demands of a filter (`bpf_check_classic`, `seccomp_check_filter`).
fn filter_is_sound(program: &[Instruction]) {
    assert!((1..=FILTER).contains(&program.len()), "the kernel takes no filter of {} instructions", program.len());
    for (index, instruction) in program.iter().enumerate() {
        let reaches = |distance: u32| index + 1 + usize::try_from(distance).unwrap_or(usize::MAX / 2) < program.len();
        match instruction.code {
            0x06 | 0x54 => {}
            0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0, "{instruction:?} loads from elsewhere"),
            0x05 => assert!(reaches(instruction.k), "{instruction:?} at {index} jumps out of the filter"),
            0x15 | 0x25 | 0x35 => {
                let inside = reaches(instruction.jt.into()) && reaches(instruction.jf.into());
                assert!(inside, "{instruction:?} at {index} jumps out of the filter");
            }
            other => panic!("{other:#x} is no instruction of filters"),
        }
    }
    assert!(program.last().is_some_and(|last| last.code == 0x06), "a filter ends without a verdict");
}

fn hosts() -> [HostFacts; 3] {
    let v2 = |controllers: &[Controller]| {
        Some(Unified { mount: PathBuf::from("/sys/fs/cgroup"), controllers: controllers.to_vec() })
    };
    let v1 = |label: &str, controllers: &[Controller]| V1 {
        mount: PathBuf::from(format!("/sys/fs/cgroup/{label}")),
        label: label.to_owned(),
        controllers: controllers.to_vec(),
    };
    let of_cpu = v1("cpu,cpuacct", &[Controller::Cpu, Controller::Cpuacct]);
    let hybrid = vec![of_cpu, v1("memory", &[Controller::Memory]), v1("blkio", &[]), v1("name=systemd", &[])];
    let hybrid = Hierarchies { v1: hybrid, v2: v2(&[]) };
    let unified = Hierarchies { v1: Vec::new(), v2: v2(&[Controller::Cpu, Controller::Memory, Controller::Pids]) };
    let capabilities = ALL_CAPABILITIES;
    [
        HostFacts { cgroups: unified.clone(), capabilities, can_make_devices: true },
        HostFacts { cgroups: hybrid, capabilities, can_make_devices: true },
        HostFacts { cgroups: unified, capabilities: capabilities & !(1 << 24), can_make_devices: false },
    ]
}
