//! Device nodes and the links beside them.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::mounts::{NO_EXEC, NO_SUID, READ_ONLY};
use super::{CompileError, Descriptor, Recursive, Step, Writer, absolute};
use crate::container::{Attributes, Passing};

/// Devices that every container has (OCI runtime specification, config-linux.md, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that every container has ("Dev symbolic links"), and `/dev/ptmx`.
const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;
/// `S_IFMT`.
const FORMAT: u32 = 0o170_000;

impl Writer<'_> {
    /// Device nodes; none where the host's own `/dev` is bound.
    pub(super) fn devices(&mut self, spec: &Spec) -> Result<(), CompileError> {
        let is_bound = spec.mounts().iter().flatten().any(|mount| {
            mount.destination() == Path::new("/dev") && mount.typ().as_deref().is_none_or(|kind| kind == "bind")
        });
        if is_bound {
            return Ok(());
        }
        let asked = spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
        for (path, major, minor) in DEFAULT {
            if !asked.iter().any(|device| device.path() == Path::new(path)) {
                self.device(Path::new(path), CHARACTER | 0o666, (major, minor), (0, 0))?;
            }
        }
        for (index, device) in asked.iter().enumerate() {
            let property = format!("linux.devices[{index}]");
            let mode = kind_of(device, &property)? | (device.file_mode().unwrap_or(0o666) & 0o7777);
            let number = |number: i64| {
                u32::try_from(number).map_err(|_| CompileError::invalid(property.as_str(), "has no such number"))
            };
            let numbers = (number(device.major())?, number(device.minor())?);
            self.device(device.path(), mode, numbers, (device.uid().unwrap_or(0), device.gid().unwrap_or(0)))?;
        }
        for (target, path) in LINKS {
            self.steps.push(Step::Symlink { target: target.to_owned(), path: path.to_owned() });
        }
        Ok(())
    }

    fn device(
        &mut self,
        path: &Path,
        mode: u32,
        (major, minor): (u32, u32),
        (uid, gid): (u32, u32),
    ) -> Result<(), CompileError> {
        let target = absolute(path, "linux.devices")?;
        // Nobody makes device nodes in a user namespace of its own.
        let can_make = self.host.can_make_devices && self.users.is_none();
        if can_make || mode & FORMAT == FIFO {
            self.steps.push(Step::Device { path: target, mode, major, minor, uid, gid });
            return Ok(());
        }
        let descriptor = Descriptor::HostPath { path: path.to_owned(), recursive: Recursive::No, shared: false };
        let mount = self.need(descriptor)?;
        // The node is the host's own. Read-only, the device works, but its owner, mode and times cannot be changed.
        let attributes = Attributes { set: READ_ONLY | NO_SUID | NO_EXEC, ..Attributes::default() };
        self.steps.push(Step::Attach { mount, target, attributes, passing: Passing::Private });
        Ok(())
    }
}

fn kind_of(device: &LinuxDevice, property: &str) -> Result<u32, CompileError> {
    match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => Ok(CHARACTER),
        LinuxDeviceType::B => Ok(BLOCK),
        LinuxDeviceType::P => Ok(FIFO),
        LinuxDeviceType::A => Err(CompileError::invalid(property, "a device node cannot be of all types")),
    }
}
