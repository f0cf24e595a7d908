//! Which devices a group may use: the allow list of the v1 controller or, where that is not mounted, an eBPF program on
//! the v2 group.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::io::Errno;

use super::{CgroupError, Controller, Group, Warning, program};
use crate::sys::bpf::Program;

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// One rule; later ones override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it permits or forbids.
    pub allow: bool,
    /// Kind of the devices.
    pub kind: DeviceKind,
    /// Major number; none for all.
    pub major: Option<u32>,
    /// Minor number; none for all.
    pub minor: Option<u32>,
    /// Of `r` (read), `w` (write), `m` (make a node).
    pub access: String,
}

impl DeviceRule {
    /// What is written on v1. The kernel takes an `a` for all accesses to all devices, whatever follows it (devices.c,
    /// `devcgroup_update_access`); a rule for both kinds that says less is two rules.
    #[must_use]
    pub fn v1(&self) -> Vec<String> {
        let is_everything = self.major.is_none()
            && self.minor.is_none()
            && ['r', 'w', 'm'].into_iter().all(|access| self.access.contains(access));
        let kinds: &[char] = match self.kind {
            DeviceKind::All if is_everything => return vec!["a".to_owned()],
            DeviceKind::All => &['b', 'c'],
            DeviceKind::Block => &['b'],
            DeviceKind::Character => &['c'],
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        kinds.iter().map(|kind| format!("{kind} {major}:{minor} {}", self.access)).collect()
    }
}

impl DeviceRule {
    /// What every container may use (runc, `AllowedDevices`): making any node, using the default devices and terminals.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let rule =
            |kind, major, minor, access: &str| Self { allow: true, kind, major, minor, access: access.to_owned() };
        let character = |major, minor| rule(DeviceKind::Character, Some(major), minor, "rwm");
        let mut rules = vec![
            Self { allow: false, kind: DeviceKind::All, major: None, minor: None, access: "rwm".to_owned() },
            rule(DeviceKind::Character, None, None, "m"),
            rule(DeviceKind::Block, None, None, "m"),
        ];
        rules.extend([3, 5, 7, 8, 9].map(|minor| character(1, Some(minor))));
        rules.extend([character(5, Some(0)), character(5, Some(2)), character(136, None)]);
        rules
    }
}

impl Group {
    /// Sets which devices may be used, instead of what was set before.
    ///
    /// # Errors
    /// When the group does not exist or the kernel refuses a rule: a container must not get more than it was given.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<Vec<Warning>, CgroupError> {
        if let Some((directory, false)) = self.directory_of(Controller::Devices) {
            write_rules(&directory, rules)?;
            return Ok(Vec::new());
        }
        let missing = vec![Warning::Missing { controller: Controller::Devices }];
        let Some(directory) = self.v2_directory() else { return Ok(missing) };
        match Program::load(&program::compile(rules)) {
            Ok(program) => replace(&directory, &program).map(|()| Vec::new()),
            // A host without the privilege or without bpf(2) cannot restrict devices at all.
            Err(Errno::PERM | Errno::NOSYS) => Ok(missing),
            Err(errno) => Err(CgroupError::file("load the device program of", &directory, errno.into())),
        }
    }
}

fn write_rules(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let open = |name| {
        let file = directory.join(name);
        let opened = OpenOptions::new().write(true).open(&file);
        opened.map_err(|source| CgroupError::file("open", &file, source)).map(|opened| (opened, file))
    };
    let (allow, deny) = (open("devices.allow")?, open("devices.deny")?);
    for rule in rules {
        let (opened, file) = if rule.allow { &allow } else { &deny };
        for line in rule.v1() {
            // The kernel takes one rule with each call.
            let written = rustix::io::write(opened, line.as_bytes());
            written.map_err(|errno| CgroupError::file("write", file, errno.into()))?;
        }
    }
    Ok(())
}

/// Attaches a program and only then detaches those that were there, so that no moment is without one. While there are
/// several, all of them have to permit a device.
fn replace(directory: &Path, program: &Program) -> Result<(), CgroupError> {
    let group = File::open(directory).map_err(|source| CgroupError::file("open", directory, source))?;
    let failed = |operation| move |errno: Errno| CgroupError::file(operation, directory, errno.into());
    let former = Program::attached(group.as_fd()).map_err(failed("list the device programs of"))?;
    program.attach(group.as_fd()).map_err(failed("attach a device program to"))?;
    for program in former {
        program.detach(group.as_fd()).map_err(failed("detach a device program from"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let written: Vec<String> = DeviceRule::defaults().iter().flat_map(DeviceRule::v1).collect();
        assert_eq!(written[..4], ["a", "c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(written.last().unwrap(), "c 136:* rwm");
        let rule = |major, access: &str| DeviceRule {
            allow: true,
            kind: DeviceKind::All,
            major,
            minor: None,
            access: access.to_owned(),
        };
        assert_eq!(rule(Some(8), "rwm").v1(), ["b 8:* rwm", "c 8:* rwm"], "not everything");
        assert_eq!(rule(None, "r").v1(), ["b *:* r", "c *:* r"], "not everything");
        assert_eq!(rule(None, "mrw").v1(), ["a"]);
    }
}
