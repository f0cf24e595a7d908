//! Mounts, masked and read-only paths.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Linux, Mount, Spec};

use super::defaults::STARTER;
use super::{CompileError, Descriptor, Recursive, Step, Writer, absolute, c_string};
use crate::container::{Attributes, FsOption, Passing};

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub(super) const READ_ONLY: u64 = 0x1;
pub(super) const NO_SUID: u64 = 0x2;
const NO_DEV: u64 = 0x4;
pub(super) const NO_EXEC: u64 = 0x8;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
const ATIME_MASK: u64 = 0x70;
const NO_DIR_ATIME: u64 = 0x80;
const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;

/// What the options of one mount mean.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    bind: Option<Recursive>,
    attributes: Attributes,
    passing: Option<Passing>,
    from_starter: bool,
    mapped: Option<Mapped>,
    rest: Vec<FsOption>,
}

/// Whose files appear with other ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    /// Those of the mount itself.
    Top,
    /// Those of mounts below as well.
    All,
}

impl Options {
    fn parse(list: &[String], property: &str) -> Result<Self, CompileError> {
        let mut options = Self::default();
        for option in list {
            if !options.flag(option) && !options.recursive_flag(option) {
                options.other(option, property)?;
            }
        }
        Ok(options)
    }

    fn flag(&mut self, option: &str) -> bool {
        let (set, clear) = match option {
            "ro" => (READ_ONLY, 0),
            "rw" => (0, READ_ONLY),
            "nosuid" => (NO_SUID, 0),
            "suid" => (0, NO_SUID),
            "nodev" => (NO_DEV, 0),
            "dev" => (0, NO_DEV),
            "noexec" => (NO_EXEC, 0),
            "exec" => (0, NO_EXEC),
            "nodiratime" => (NO_DIR_ATIME, 0),
            "diratime" => (0, NO_DIR_ATIME),
            "nosymfollow" => (NO_SYMLINK_FOLLOW, 0),
            "symfollow" => (0, NO_SYMLINK_FOLLOW),
            // Access times are one value in these bits, so the former value is cleared.
            "noatime" => (NO_ATIME, ATIME_MASK),
            "strictatime" => (STRICT_ATIME, ATIME_MASK),
            "relatime" | "atime" => (0, ATIME_MASK),
            "defaults" => (0, 0),
            _ => return false,
        };
        self.attributes.set = (self.attributes.set & !clear) | set;
        self.attributes.clear = (self.attributes.clear & !set) | clear;
        true
    }

    /// Options of the specification that hold for all mounts below as well.
    fn recursive_flag(&mut self, option: &str) -> bool {
        let set = match option {
            "rro" => READ_ONLY,
            "rnosuid" => NO_SUID,
            "rnodev" => NO_DEV,
            "rnoexec" => NO_EXEC,
            "rnosymfollow" => NO_SYMLINK_FOLLOW,
            _ => return false,
        };
        self.attributes.set_below |= set;
        true
    }

    fn other(&mut self, option: &str, property: &str) -> Result<(), CompileError> {
        match option {
            "bind" => self.bind = self.bind.or(Some(Recursive::No)),
            "rbind" => self.bind = Some(Recursive::Yes),
            "private" | "rprivate" => self.passing = Some(Passing::Private),
            "slave" | "rslave" => self.passing = Some(Passing::Slave),
            "shared" | "rshared" => self.passing = Some(Passing::Shared),
            STARTER => self.from_starter = true,
            "idmap" => self.mapped = self.mapped.or(Some(Mapped::Top)),
            "ridmap" => self.mapped = Some(Mapped::All),
            "unbindable" | "runbindable" | "tmpcopyup" | "copy-symlink" => {
                return Err(CompileError::unsupported(format!("{property}: {option}")));
            }
            _ => {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(c_string(value, property)?)),
                    None => (option, None),
                };
                self.rest.push(FsOption { name: c_string(name, property)?, value });
            }
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// All mounts but those of control groups, which have to wait until the process is in its groups.
    pub(super) fn mounts(&mut self, spec: &Spec) -> Result<(), CompileError> {
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let property = format!("mounts[{index}]");
            if !is_cgroup(mount) {
                self.mount(mount, &property)?;
            }
        }
        Ok(())
    }

    fn mount(&mut self, mount: &Mount, property: &str) -> Result<(), CompileError> {
        let target = self.target(mount, property)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), property)?;
        let kind = mount.typ().as_deref().unwrap_or("none");
        let bind = options.bind.or_else(|| (kind == "bind").then_some(Recursive::No));
        if let Some(recursive) = bind {
            return self.bind(mount, target, options, recursive, property);
        }
        if options.mapped.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(CompileError::unsupported(format!("{property}: id mappings of a mount that is no bind mount")));
        }
        if kind == "none" {
            return Err(CompileError::invalid(property, "has neither a type nor the option bind"));
        }
        if options.attributes.set_below != 0 || options.passing.is_some_and(|passing| passing != Passing::Private) {
            return Err(CompileError::unsupported(format!("{property}: recursive or passing options of a new mount")));
        }
        self.steps.push(Step::Mount {
            file_system: c_string(kind, property)?,
            source: source_of(mount, kind, property)?,
            options: options.rest,
            attributes: options.attributes.set,
            target,
        });
        Ok(())
    }

    fn target(&self, mount: &Mount, property: &str) -> Result<CString, CompileError> {
        let target = absolute(mount.destination(), property)?;
        if mount.destination() == Path::new("/") {
            return Err(CompileError::invalid(property, "cannot be mounted over the root"));
        }
        Ok(target)
    }

    fn bind(
        &mut self,
        mount: &Mount,
        target: CString,
        options: Options,
        recursive: Recursive,
        property: &str,
    ) -> Result<(), CompileError> {
        let path = mount.source().clone().ok_or_else(|| CompileError::invalid(property, "has no source"))?;
        if !path.is_absolute() {
            return Err(CompileError::invalid(property, "the source of a bind mount must be absolute"));
        }
        if let Some(option) = options.rest.first() {
            let name = option.name.to_string_lossy();
            return Err(CompileError::invalid(property, format!("{name} is no option of a bind mount")));
        }
        let passing = options.passing.unwrap_or(Passing::Private);
        let shared = passing == Passing::Shared;
        let by = self.mapped_by(mount, options.mapped.is_some(), property)?;
        let mount = match by {
            Some(_) if options.from_starter => {
                return Err(CompileError::unsupported(format!("{property}: id mappings of {STARTER}")));
            }
            None if options.from_starter => self.need_from_starter(path)?,
            None => self.need(Descriptor::HostPath { path, recursive, shared })?,
            Some(by) => {
                let all = options.mapped == Some(Mapped::All);
                self.need(Descriptor::MappedPath { path, recursive, shared, by, all })?
            }
        };
        self.steps.push(Step::Attach { mount, target, attributes: options.attributes, passing });
        Ok(())
    }

    /// The container's view of its groups: the v2 tree, or a directory with one mount per hierarchy.
    pub(super) fn cgroup_mounts(&mut self, spec: &Spec) -> Result<(), CompileError> {
        for (index, mount) in spec.mounts().iter().flatten().enumerate().filter(|(_, mount)| is_cgroup(mount)) {
            let property = format!("mounts[{index}]");
            let target = self.target(mount, &property)?;
            let options = Options::parse(mount.options().as_deref().unwrap_or_default(), &property)?;
            let attributes = options.attributes.set;
            if self.host.cgroups.used_v1().next().is_none() {
                self.new_mount("cgroup2", Vec::new(), attributes, target);
            } else {
                self.v1_mounts(&target, attributes, &property)?;
            }
        }
        Ok(())
    }

    fn new_mount(&mut self, file_system: &str, options: Vec<FsOption>, attributes: u64, target: CString) {
        let name = CString::new(file_system).expect("names of file systems have no zero byte");
        self.steps.push(Step::Mount { file_system: name.clone(), source: name, options, attributes, target });
    }

    fn v1_mounts(&mut self, target: &CString, attributes: u64, property: &str) -> Result<(), CompileError> {
        let below = |name: &str| c_string([target.as_bytes(), b"/", name.as_bytes()].concat(), property);
        let mode = FsOption { name: c"mode".to_owned(), value: Some(c"755".to_owned()) };
        self.new_mount("tmpfs", vec![mode], attributes & !READ_ONLY, target.clone());
        let host = self.host;
        for hierarchy in host.cgroups.used_v1() {
            let directory = hierarchy.label.strip_prefix("name=").unwrap_or(&hierarchy.label);
            let options = hierarchy.label.split(',').map(|name| match name.split_once('=') {
                Some((name, value)) => {
                    Ok(FsOption { name: c_string(name, property)?, value: Some(c_string(value, property)?) })
                }
                None => Ok(FsOption { name: c_string(name, property)?, value: None }),
            });
            self.new_mount("cgroup", options.collect::<Result<_, _>>()?, attributes, below(directory)?);
            for name in directory.split(',').filter(|name| *name != directory) {
                self.steps.push(Step::Symlink { target: c_string(directory, property)?, path: below(name)? });
            }
        }
        if host.cgroups.v2.is_some() {
            self.new_mount("cgroup2", Vec::new(), attributes, below("unified")?);
        }
        if attributes & READ_ONLY != 0 {
            self.steps.push(Step::Seal { path: target.clone() });
        }
        Ok(())
    }

    pub(super) fn hidden_paths(&mut self, linux: &Linux) -> Result<(), CompileError> {
        for path in linux.readonly_paths().iter().flatten() {
            let path = absolute(Path::new(path), "linux.readonlyPaths")?;
            self.steps.push(Step::ReadOnly { path });
        }
        for path in linux.masked_paths().iter().flatten() {
            let path = absolute(Path::new(path), "linux.maskedPaths")?;
            self.steps.push(Step::Mask { path });
        }
        Ok(())
    }
}

fn is_cgroup(mount: &Mount) -> bool {
    matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

fn source_of(mount: &Mount, kind: &str, property: &str) -> Result<CString, CompileError> {
    use std::os::unix::ffi::OsStrExt as _;
    match mount.source() {
        Some(source) => c_string(source.as_os_str().as_bytes(), property),
        None => c_string(kind, property),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        let list: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        Options::parse(&list, "mounts[0]").unwrap()
    }

    #[test]
    fn the_last_of_two_opposite_options_wins() {
        assert_eq!(parse(&["ro", "rw"]).attributes.set, 0);
        assert_eq!(parse(&["rw", "ro"]).attributes.set, READ_ONLY);
        assert_eq!(parse(&["noatime", "strictatime"]).attributes.set, STRICT_ATIME);
    }

    #[test]
    fn rbind_is_not_weakened_by_bind() {
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(Recursive::Yes));
    }
}
