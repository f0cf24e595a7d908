//! Who a container runs as, by the image's own files.
//!
//! The files are read through the mounted root file system with every path confined to it, and parsed here; the host's
//! users and libc's name service have no say. Semantics are those of containerd (pkg/oci/spec_opts.go) and, for the
//! home directory, of runc (libcontainer/init_linux.go).

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{GroupFiles, RuntimeError, User};

/// Bytes of the longest user database that is read.
const LONGEST: u64 = 8 << 20;

/// Numbers instead of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary groups, the primary one among them, without duplicates.
    pub(super) groups: Vec<u32>,
    /// For `HOME`.
    pub(super) home: String,
}

/// The user databases of an image.
#[derive(Debug, Default)]
pub(super) struct Databases {
    passwd: String,
    group: String,
}

impl Databases {
    /// Reads them below `root`; an absent one is empty.
    pub(super) fn read(root: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { passwd: read(root, "etc/passwd")?, group: read(root, "etc/group")? })
    }

    /// Who `user` is.
    pub(super) fn resolve(&self, user: &User) -> Result<Identity, RuntimeError> {
        let unknown = || RuntimeError::UnknownUser { user: user.user.clone() };
        let (name, group) = match user.user.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (user.user.as_str(), None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        let entry = self.users().find(|entry| match number {
            Some(number) => entry.uid == number,
            None => entry.name == name,
        });
        let uid = entry.as_ref().map(|entry| entry.uid).or(number).ok_or_else(unknown)?;
        let named_group = match group {
            Some(group) => Some(self.group_id(group).ok_or_else(unknown)?),
            None => None,
        };
        let gid = user.gid.or(named_group).or(entry.as_ref().map(|entry| entry.gid)).unwrap_or(0);
        let mut groups: Vec<u32> = match user.group_files {
            GroupFiles::Merged => entry.iter().flat_map(|entry| self.groups_of(entry.name)).collect(),
            GroupFiles::Ignored => Vec::new(),
        };
        groups.extend(&user.additional_gids);
        // Else a program could give its primary group up and with it what that group is denied (CVE-2022-2989).
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
        Ok(Identity { uid, gid, groups, home })
    }

    fn users(&self) -> impl Iterator<Item = UserEntry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default();
            Some(UserEntry { name, uid, gid, home })
        })
    }

    fn group_id(&self, group: &str) -> Option<u32> {
        let number = group.parse().ok();
        number.or_else(|| self.groups().find(|entry| entry.name == group).map(|entry| entry.gid))
    }

    fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        let is_member = move |entry: &GroupEntry<'_>| entry.members.split(',').any(|member| member == user);
        self.groups().filter(is_member).map(|entry| entry.gid)
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

struct UserEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn read(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Not blocking: an image may hold a pipe in place of the file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        Databases {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/srv:/bin/false\nbroken\n".to_owned(),
            group: "root:x:0:\nwww:x:34:\nlogs:x:50:web,other\nadmin:x:60:web\n".to_owned(),
        }
    }

    fn user(text: &str) -> User {
        User { user: text.to_owned(), ..User::default() }
    }

    #[track_caller]
    fn check(text: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
        assert_eq!(databases().resolve(&user(text)).unwrap(), expected);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", 0, 0, &[0], "/root");
        check("web", 33, 34, &[34, 50, 60], "/srv");
        check("33", 33, 34, &[34, 50, 60], "/srv");
        check("web:logs", 33, 50, &[50, 60], "/srv");
        check("web:7", 33, 7, &[7, 50, 60], "/srv");
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        check("1234", 1234, 0, &[0], "/");
        check("1234:5", 1234, 5, &[5], "/");
        assert!(matches!(databases().resolve(&user("nobody")), Err(RuntimeError::UnknownUser { .. })));
        assert!(matches!(databases().resolve(&user("web:nogroup")), Err(RuntimeError::UnknownUser { .. })));
    }

    #[test]
    fn an_override_wins_over_the_image_and_further_groups_are_added_once() {
        let wanted = User { user: "web".to_owned(), gid: Some(99), additional_gids: vec![50, 70], ..User::default() };
        let identity = databases().resolve(&wanted).unwrap();
        assert_eq!((identity.gid, identity.groups), (99, vec![50, 60, 70, 99]));
    }

    #[test]
    fn what_the_image_says_of_groups_can_be_left_out() {
        let additional_gids = vec![70];
        let wanted = User { user: "web".to_owned(), gid: None, additional_gids, group_files: GroupFiles::Ignored };
        let identity = databases().resolve(&wanted).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (33, 34, vec![34, 70]));
    }

    #[test]
    fn a_link_out_of_the_image_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(directory.path().join("secret"), "evil:x:66:66::/:\n").unwrap();
        std::os::unix::fs::symlink(directory.path().join("secret"), root.join("etc/passwd")).unwrap();
        let root = std::fs::File::open(root).unwrap();
        let databases = Databases::read(std::os::fd::AsFd::as_fd(&root)).unwrap();
        assert!(databases.resolve(&user("evil")).is_err());
    }
}
