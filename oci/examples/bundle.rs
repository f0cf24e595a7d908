//! What `scripts/bench runtime` starts: the configuration of a container that asks for nothing special, as a bundle for
//! OCI runtimes and as tables for the C program beside which they are measured, both of the same data.
//!
//! usage: bundle FOLDER CGROUP. Writes `config.json`, `process.json` and `bundle.h` there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use oci::cgroup::DeviceRule;
use oci::container::compile::defaults::{CAPABILITIES, MASKED_PATHS, READONLY_PATHS, mounts};
use oci::seccomp::{Architecture, Filter, compile, default_profile};
use serde_json::{Value, json};

const MEMORY: u64 = 256 << 20;
const SHARES: u64 = 1024;
const QUOTA: u64 = 100_000;
const PERIOD: u64 = 100_000;
const PIDS: u64 = 128;

/// Options of mounts that are flags of mount(2), by their numbers there; `relatime` is what the kernel does anyway.
const FLAGS: [(&str, u64); 6] =
    [("ro", 1), ("nosuid", 2), ("nodev", 4), ("noexec", 8), ("relatime", 0), ("strictatime", 1 << 24)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, cgroup] = arguments.as_slice() else { return Err("usage: bundle FOLDER CGROUP".into()) };
    let folder = Path::new(folder);
    let profile = default_profile(&CAPABILITIES, Architecture::native());
    let filter = compile(&profile, Architecture::native())?;
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": process(),
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "bench",
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": MEMORY },
                "cpu": { "shares": SHARES, "quota": QUOTA, "period": PERIOD },
                "pids": { "limit": PIDS },
            },
            "seccomp": profile,
        },
    });
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    fs::write(folder.join("process.json"), serde_json::to_vec_pretty(&process())?)?;
    fs::write(folder.join("bundle.h"), tables(&filter)?)?;
    Ok(())
}

fn process() -> Value {
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/true"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"],
        "cwd": "/",
        "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
        "noNewPrivileges": true,
    })
}

/// The same for a program that reads no JSON.
fn tables(filter: &Filter) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    let numbers = CAPABILITIES.iter().map(|name| name.parse::<caps::Capability>());
    let bits = numbers.collect::<Result<Vec<_>, _>>()?.iter().fold(0, |bits, capability| bits | capability.bitmask());
    writeln!(text, "static const unsigned long long capabilities = {bits:#x}ULL;")?;
    writeln!(text, "static const unsigned filter_flags = {};", filter.flags)?;
    table(&mut text, "const char *const masked_paths[]", MASKED_PATHS.map(|path| format!("{path:?}")))?;
    table(&mut text, "const char *const read_only_paths[]", READONLY_PATHS.map(|path| format!("{path:?}")))?;
    let rules = DeviceRule::defaults();
    let lines = rules.iter().flat_map(|rule| rule.v1().into_iter().map(|line| (rule.allow, line)));
    let rules = lines.map(|(allow, line)| format!("{{{}, \"{line}\"}}", u8::from(allow)));
    table(&mut text, "const struct device_rule device_rules[]", rules)?;
    let v1 = [
        ("cpu.shares", SHARES),
        ("cpu.cfs_period_us", PERIOD),
        ("cpu.cfs_quota_us", QUOTA),
        ("memory.limit_in_bytes", MEMORY),
        ("pids.max", PIDS),
    ];
    table(&mut text, "const struct limit limits_v1[]", v1.map(|(file, value)| format!("{{{file:?}, \"{value}\"}}")))?;
    let v2 = [
        ("cpu.weight", "39".to_owned()),
        ("cpu.max", format!("{QUOTA} {PERIOD}")),
        ("memory.max", MEMORY.to_string()),
        ("pids.max", PIDS.to_string()),
    ];
    table(&mut text, "const struct limit limits_v2[]", v2.map(|(file, value)| format!("{{{file:?}, {value:?}}}")))?;
    let list = mounts();
    let rows = list.iter().filter(|mount| mount.typ().as_deref() != Some("cgroup")).map(|mount| {
        let (mut flags, mut data) = (0, Vec::new());
        for option in mount.options().iter().flatten() {
            match FLAGS.iter().find(|(name, _)| name == option) {
                Some((_, flag)) => flags |= flag,
                None => data.push(option.as_str()),
            }
        }
        let kind = mount.typ().as_deref().unwrap_or_default();
        format!("{{\"{}\", {kind:?}, {flags:#x}, {:?}}}", mount.destination().display(), data.join(","))
    });
    table(&mut text, "const struct mount mounts[]", rows)?;
    let program = filter.program.iter();
    let program = program.map(|op| format!("{{{:#x}, {}, {}, {:#x}}}", op.code, op.jt, op.jf, op.k));
    table(&mut text, "struct sock_filter filter[]", program)?;
    Ok(text)
}

fn table(text: &mut String, name: &str, rows: impl IntoIterator<Item = String>) -> std::fmt::Result {
    writeln!(text, "static {name} = {{")?;
    for row in rows {
        writeln!(text, "    {row},")?;
    }
    writeln!(text, "}};")
}
