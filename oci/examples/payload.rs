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
        ["unshare"] => {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).map_err(io::Error::from)?;
            say("unshared");
            Ok(())
        }
        ["mount", path] => {
            use rustix::mount::{MountFlags, mount};
            mount("tmpfs", *path, "tmpfs", MountFlags::empty(), None)?;
            say("mounted");
            Ok(())
        }
        ["eat", mebibytes] => {
            let count: usize = mebibytes.parse().map_err(io::Error::other)?;
            say(&format!("ate {}", vec![1_u8; count << 20].iter().filter(|byte| **byte == 1).count()));
            Ok(())
        }
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
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
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
