//! Mounting what an NFS server exports, by the kernel's client alone.
//!
//! Does what mount.nfs(8) does around mount(2) as far as volumes need it: the server's name becomes an address, the newest
//! version of NFS 4 is taken that both sides speak, options for the program itself are left out. What needs daemons on
//! this host (locks of NFS 3 across clients, Kerberos) is for whoever runs these; NFS 3 is used only if asked for.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::failed;
use crate::RuntimeError;

/// nfs(5), `port`.
const PORT: u16 = 2049;
/// Tried in this order if no version is asked for.
const VERSIONS: [&str; 3] = ["4.2", "4.1", "4.0"];

/// What the options of a mount mean.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    attributes: MountAttrFlags,
    /// Names, with values if they have any.
    rest: Vec<(String, Option<String>)>,
    says_version: bool,
}

impl Options {
    /// Each text may have several, separated by commas.
    fn parse(texts: &[String]) -> Self {
        let mut options = Self { attributes: MountAttrFlags::empty(), rest: Vec::new(), says_version: false };
        for option in texts.iter().flat_map(|text| text.split(',')).filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            options.add(name, value);
        }
        options
    }

    fn add(&mut self, name: &str, value: Option<String>) {
        let attribute = match name {
            "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
            "strictatime" => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            // The usual thing, and what is for mount(8), mount.nfs(8) and systemd alone.
            "defaults" | "suid" | "dev" | "exec" | "atime" | "relatime" | "diratime" | "auto" | "noauto" | "nofail"
            | "_netdev" | "user" | "nouser" | "users" | "bg" | "fg" | "retry" => return,
            name if name.starts_with("x-") => return,
            _ => {
                self.says_version |= matches!(name, "vers" | "nfsvers" | "v2" | "v3" | "v4" | "v4.0" | "v4.1" | "v4.2");
                self.rest.push((name.to_owned(), value));
                return;
            }
        };
        self.attributes |= attribute;
    }
}

/// Mounts an export, attached nowhere.
pub(super) fn mount(server: &str, path: &str, options: &[String]) -> Result<OwnedFd, RuntimeError> {
    let address = resolve(server)?;
    let options = Options::parse(options);
    let source = source(server, path);
    let refused = |errno| failed(format!("mount {source} (NFS)"), explained(errno));
    if options.says_version {
        return with_version(&source, address, &options, None).map_err(refused);
    }
    let mut last = Errno::PROTONOSUPPORT;
    for version in VERSIONS {
        match with_version(&source, address, &options, Some(version)) {
            // The server, or this kernel, does not speak it.
            Err(errno @ (Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL)) => last = errno,
            result => return result.map_err(refused),
        }
    }
    Err(refused(last))
}

/// The kernel asks for its module by itself; where that is not to be had, it only says that there is no such device.
fn explained(errno: Errno) -> std::io::Error {
    match errno {
        Errno::NODEV => std::io::Error::new(std::io::ErrorKind::Unsupported, "this kernel has no NFS client"),
        errno => errno.into(),
    }
}

fn resolve(server: &str) -> Result<IpAddr, RuntimeError> {
    let server = server.trim_start_matches('[').trim_end_matches(']');
    let mut found = (server, PORT).to_socket_addrs().map_err(|error| failed(format!("resolve {server}"), error))?;
    let none = || failed(format!("resolve {server}"), std::io::Error::from(std::io::ErrorKind::NotFound));
    found.next().map(|address| address.ip()).ok_or_else(none)
}

/// An address with colons stands in brackets.
fn source(server: &str, path: &str) -> String {
    let bare = server.contains(':') && !server.starts_with('[');
    if bare { format!("[{server}]:{path}") } else { format!("{server}:{path}") }
}

fn with_version(source: &str, address: IpAddr, options: &Options, version: Option<&str>) -> Result<OwnedFd, Errno> {
    let context = fsopen("nfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    for (name, value) in &options.rest {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), name.as_str(), value.as_str())?,
            None => fsconfig_set_flag(context.as_fd(), name.as_str())?,
        }
    }
    if let Some(version) = version {
        fsconfig_set_string(context.as_fd(), "vers", version)?;
    }
    if !options.rest.iter().any(|(name, _)| name == "addr") {
        fsconfig_set_string(context.as_fd(), "addr", address.to_string())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_for_the_kernel_are_told_from_those_of_the_mount_and_of_programs() {
        let texts =
            ["hard,nfsvers=4.1".to_owned(), "noatime".to_owned(), "_netdev".to_owned(), "x-systemd.a=b".to_owned()];
        let options = Options::parse(&texts);
        assert!(options.says_version);
        assert_eq!(options.attributes, MountAttrFlags::MOUNT_ATTR_NOATIME);
        let rest = [("hard".to_owned(), None), ("nfsvers".to_owned(), Some("4.1".to_owned()))];
        assert_eq!(options.rest, rest);
        assert!(!Options::parse(&["soft".to_owned()]).says_version);
    }

    #[test]
    fn a_kernel_without_a_client_is_told_from_a_server_that_refuses() {
        assert_eq!(explained(Errno::NODEV).to_string(), "this kernel has no NFS client");
        assert_eq!(explained(Errno::ACCESS).kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn an_address_with_colons_stands_in_brackets() {
        assert_eq!(source("2001:db8::1", "/data"), "[2001:db8::1]:/data");
        assert_eq!(source("[2001:db8::1]", "/data"), "[2001:db8::1]:/data");
        assert_eq!(source("files", "/data"), "files:/data");
    }
}
