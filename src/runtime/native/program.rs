//! The per-pod program: installed once as a file, started once per sandbox.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci::container::sealed::Sealed;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use sha2::{Digest, Sha256};

use super::descriptors;
use super::layout::make_private;

/// A shim that has just been started and knows nothing yet.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: OwnedFd,
}

/// Writes the program under a name that its content gives, unless it is there. It is a file so that all sandboxes share
/// its pages, and older releases' programs stay as long as something runs them.
pub(super) fn install(libexec: &Path, program: &[u8]) -> io::Result<PathBuf> {
    make_private(libexec)?;
    let digest = Sha256::digest(program);
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = libexec.join(format!("coracle-shim-{name}"));
    if fs::read(&path).is_ok_and(|present| present == program) {
        return Ok(path);
    }
    let new = libexec.join(format!("coracle-shim-{name}.new"));
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o700).open(&new)?;
    file.write_all(program)?;
    drop(file);
    fs::rename(&new, &path)?;
    Ok(path)
}

/// Starts a shim with one end of a socket pair as its standard input. Without `pre_exec` the standard library uses
/// posix_spawn(3), so that a big agent is not copied. It is executed sealed, because containers can get hold of the
/// file through `/proc/<pid>/exe` (CVE-2019-5736).
#[expect(clippy::disallowed_methods, reason = "the native runtime is where programs are started")]
pub(super) fn spawn(program: &Path, directory: &Path) -> io::Result<Spawned> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join("shim.log"))?;
    let sealed = Sealed::new(program)?;
    let child = Command::new(sealed.path())
        .arg0(program)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    // It does nothing before it is told to.
    descriptors::restore(pid)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    Ok(Spawned { pid: child.id(), pidfd, socket: ours })
}

/// Connects to the control socket in `directory`, whose whole path may be longer than an address; the id is that of
/// the process that listens.
pub(super) fn connect(directory: &Path) -> io::Result<(OwnedFd, Pid)> {
    use rustix::fs::{Mode, OFlags};
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{number}/control.sock"))?;
    rustix::net::connect(&socket, &address)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    if !peer.uid.is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok((socket, peer.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_limit_of_open_files_that_the_agent_was_started_with() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum }).unwrap();
        assert_eq!(descriptors::raise_open_files().unwrap(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
        let directory = tempfile::tempdir().unwrap();
        // It waits for its standard input to end.
        let child = spawn(Path::new("/bin/cat"), directory.path()).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.pid)).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some("1000"), "{line}");
    }

    #[test]
    fn the_program_is_written_once_and_repaired_when_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = install(directory.path(), b"program").unwrap();
        fs::write(&path, b"torn").unwrap();
        assert_eq!(install(directory.path(), b"program").unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"program");
        assert_ne!(install(directory.path(), b"other").unwrap(), path);
    }
}
