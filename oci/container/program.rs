//! Where the program is. Nothing here allocates or locks.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, openat2};
use rustix::io::Errno;

use super::Program;
use super::child::joined;

/// Searched when the environment has no `PATH`: what containerd gives a container.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The place of a program, once it is found.
pub(super) struct Found {
    path: [u8; 4096],
    is_found: bool,
}

impl Found {
    pub(super) const fn new() -> Self {
        Self { path: [0; 4096], is_found: false }
    }

    /// What to hand to execve(2).
    pub(super) fn path<'a>(&'a self, program: &'a Program) -> &'a CStr {
        let found = CStr::from_bytes_until_nul(&self.path).unwrap_or_default();
        match program.args.first() {
            Some(name) if !self.is_found => name,
            _ => found,
        }
    }

    /// Looks for the program: a name with a slash is a path, any other is searched in `PATH`. As execvp(3): EACCES if
    /// something was there that cannot be executed, else ENOENT.
    pub(super) fn search(&mut self, root: BorrowedFd<'_>, program: &Program) -> Result<(), Errno> {
        let name = program.args.first().ok_or(Errno::INVAL)?;
        if name.to_bytes().contains(&b'/') {
            joined(&mut self.path, &[name])?;
            return self.check(root);
        }
        if name.is_empty() {
            return Err(Errno::NOENT);
        }
        let path = program.env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
        let mut verdict = Errno::NOENT;
        for directory in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
            // An empty element means the working directory, which runc refuses as well: what is found must not depend
            // on where a container happens to start.
            if directory.first() != Some(&b'/') || self.put(directory, name).is_err() {
                continue;
            }
            match self.check(root) {
                Ok(()) => return Ok(()),
                Err(Errno::ACCESS) => verdict = Errno::ACCESS,
                Err(_) => {}
            }
        }
        Err(verdict)
    }

    fn put(&mut self, directory: &[u8], name: &CStr) -> Result<(), Errno> {
        let room = self.path.get_mut(..directory.len()).ok_or(Errno::NAMETOOLONG)?;
        room.copy_from_slice(directory);
        joined(&mut self.path[directory.len()..], &[c"/", name]).map(drop)
    }

    /// Whether the path is a file that may be executed. The magic links of procfs are refused: `/proc/self/exe` would
    /// be this very program of the host (CVE-2019-5736).
    fn check(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let path = CStr::from_bytes_until_nul(&self.path).map_err(|_| Errno::INVAL)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = if path.to_bytes().first() == Some(&b'/') {
            openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?
        } else {
            openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?
        };
        if FileType::from_raw_mode(fstat(file.as_fd())?.st_mode) != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
        self.is_found = true;
        Ok(())
    }
}
