//! The process that kernel tests run inside a container: it does what its arguments say and reports what it sees.
//!
//! Several commands may be given, separated by `--`. Each prints lines; a refusal prints `error <number>`.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for command in arguments.split(|argument| argument == "--") {
        if let Err(error) = run(command) {
            say(&format!("error {}", error.raw_os_error().unwrap_or(-1)));
        }
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading any more.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn run(command: &[String]) -> io::Result<()> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["who"] => who(),
        ["cat", path] => fs::read_to_string(path).map(|text| say(text.trim_end())),
        ["write", path, text] => {
            fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())?;
            say("written");
            Ok(())
        }
        ["create", path] => fs::File::create(path).map(|_| say("created")),
        ["list", path] => {
            let mut names = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            say(&format!("[{}]", names.join(" ")));
            Ok(())
        }
        ["unshare"] => {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).map_err(io::Error::from)?;
            say("unshared");
            Ok(())
        }
        ["eat", mebibytes] => {
            let count: usize = mebibytes.parse().map_err(io::Error::other)?;
            say(&format!("ate {}", vec![1_u8; count << 20].iter().filter(|byte| **byte == 1).count()));
            Ok(())
        }
        ["nested", rest @ ..] => nested(rest),
        ["read-line"] => io::stdin().read_line(&mut String::new()).map(drop),
        ["look"] => look(),
        ["kill-others"] => kill_others(),
        ["fork", count] => fork(count.parse().map_err(io::Error::other)?),
        ["terminal"] => {
            say(&format!("terminal {}", io::stdin().is_terminal() && io::stdout().is_terminal()));
            let name = fs::read_link("/proc/self/fd/0")?;
            say(&name.display().to_string());
            Ok(())
        }
        ["wait"] => {
            say("ready");
            io::stdin().read_to_end(&mut Vec::new()).map(drop)
        }
        words => change(words),
    }
}

/// Commands that change files and mounts.
fn change(words: &[&str]) -> io::Result<()> {
    match words {
        ["owner", path] => {
            use std::os::unix::fs::MetadataExt as _;
            let found = fs::symlink_metadata(path)?;
            say(&format!("{}:{}", found.uid(), found.gid()));
            Ok(())
        }
        ["chown", path, owner] => {
            std::os::unix::fs::lchown(path, Some(owner.parse().map_err(io::Error::other)?), None)?;
            say("changed");
            Ok(())
        }
        ["device", path] => {
            use rustix::fs as f;
            let mode = f::Mode::from_raw_mode(0o666);
            f::mknodat(f::CWD, *path, f::FileType::CharacterDevice, mode, f::makedev(1, 3))?;
            say("made");
            Ok(())
        }
        ["mount", path] => {
            use rustix::mount::{MountFlags, mount};
            mount("tmpfs", *path, "tmpfs", MountFlags::empty(), None)?;
            say("mounted");
            Ok(())
        }
        ["chmod", path] => {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            say("changed");
            Ok(())
        }
        ["unmount", path] => {
            rustix::mount::unmount(*path, rustix::mount::UnmountFlags::DETACH)?;
            say("unmounted");
            Ok(())
        }
        ["writable", path] => {
            use rustix::mount::{MountFlags, mount_remount};
            mount_remount(*path, MountFlags::BIND, "")?;
            say("made writable");
            Ok(())
        }
        ["new", kind, path] => {
            fs::create_dir_all(path)?;
            rustix::mount::mount(*kind, *path, *kind, rustix::mount::MountFlags::empty(), None)?;
            say("mounted");
            Ok(())
        }
        ["bind", source, path] => {
            rustix::mount::mount_bind(*source, *path)?;
            say("bound");
            Ok(())
        }
        ["unlink", path] => {
            fs::remove_file(path)?;
            say("removed");
            Ok(())
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Runs commands as root of namespaces of this process's own.
#[expect(clippy::disallowed_methods, reason = "a process namespace is entered by children only")]
fn nested(commands: &[&str]) -> io::Result<()> {
    use nix::sched::CloneFlags;
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let uid = rustix::process::getuid().as_raw();
    nix::sched::unshare(flags).map_err(io::Error::from)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    say("nested");
    // Two words stand for the separator, which this program's own arguments are split at.
    let commands = commands.iter().map(|word| if *word == "then" { "--" } else { word });
    std::process::Command::new("/bin/payload").args(commands).status().map(drop)
}

/// Other processes that can be seen, but for the first.
fn others() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.collect::<io::Result<Vec<_>>>()?;
    let pids = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| *pid != 1 && *pid != std::process::id()).collect())
}

/// Tries to look into all other processes.
fn look() -> io::Result<()> {
    let verdict = |result: io::Result<String>| match result {
        Ok(seen) => seen,
        Err(error) => format!("error {}", error.raw_os_error().unwrap_or(-1)),
    };
    for pid in others()? {
        for link in ["exe", "root", "cwd", "fd/0", "ns/mnt"] {
            let seen = fs::read_link(format!("/proc/{pid}/{link}")).map(|path| path.display().to_string());
            say(&format!("{link} {}", verdict(seen)));
        }
        for file in ["environ", "maps", "mem"] {
            let opened = fs::File::open(format!("/proc/{pid}/{file}")).map(|_| "opened".to_owned());
            say(&format!("{file} {}", verdict(opened)));
        }
    }
    say("looked");
    Ok(())
}

fn kill_others() -> io::Result<()> {
    for pid in others()? {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    say("killed");
    Ok(())
}

fn who() -> io::Result<()> {
    use rustix::process as p;
    say(&format!("uid {} gid {}", p::getuid().as_raw(), p::getgid().as_raw()));
    let groups: Vec<String> = p::getgroups()?.iter().map(|group| group.as_raw().to_string()).collect();
    say(&format!("groups {}", groups.join(" ")));
    say(&format!("cwd {}", std::env::current_dir()?.display()));
    say(&format!("pid {} session {}", p::getpid().as_raw_nonzero(), p::getsid(None)?.as_raw_nonzero()));
    let status = fs::read_to_string("/proc/self/status")?;
    for field in
        ["Umask", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn"]
    {
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
        say(&format!("{field} {}", value.trim()));
    }
    let limit = p::getrlimit(p::Resource::Nofile);
    say(&format!("nofile {:?} {:?}", limit.current, limit.maximum));
    say(&format!("oom {}", fs::read_to_string("/proc/self/oom_score_adj")?.trim()));
    say(&format!("death {}", p::parent_process_death_signal()?.map_or(0, p::Signal::as_raw)));
    let mut open: Vec<String> = fs::read_dir("/proc/self/fd")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    open.sort();
    say(&format!("fds {}", open.join(" ")));
    for (name, value) in std::env::vars() {
        say(&format!("env {name}={value}"));
    }
    Ok(())
}

/// Forks children until there are `count` of them or one is refused.
fn fork(count: u32) -> io::Result<()> {
    let started: Vec<_> = (0..count).map_while(|_| std::thread::Builder::new().spawn(std::thread::park).ok()).collect();
    say(&format!("threads {}", started.len()));
    Ok(())
}
