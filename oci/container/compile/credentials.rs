//! Who the process is and what it may do, in the order in which privileges can be given up.

use std::path::Path;
use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities as CapabilitySet, LinuxSeccomp, PosixRlimitType, Process};

use super::{CompileError, Step, Writer, absolute};
use crate::container::Capabilities;
use crate::seccomp;

const SIGKILL: i32 = 9;

impl Writer<'_> {
    /// ```text
    /// limits, directory, mask     need the rights of root
    /// bounding set, user          keep all capabilities in force
    /// parent's death              forgotten by the kernel at a change of user, so set after it
    /// filter                      here if it needs CAP_SYS_ADMIN,
    /// capabilities
    /// filter                      here, as late as possible, if no_new_privs makes up for it
    /// ```
    pub(super) fn identity(&mut self, process: &Process, filter: Option<&LinuxSeccomp>) -> Result<(), CompileError> {
        self.limits(process)?;
        self.steps.push(Step::WorkingDirectory { path: absolute(working_directory(process), "process.cwd")? });
        self.steps.push(Step::Umask { mask: process.user().umask().unwrap_or(0o022) });
        let sets = self.capabilities(process)?;
        self.steps.push(Step::BoundingSet { keep: sets.bounding });
        let user = process.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        self.steps.push(Step::User { uid: user.uid(), gid: user.gid(), groups });
        self.steps.push(Step::DieWithParent { signal: SIGKILL });
        self.steps.push(Step::FindProgram);
        let filter = filter.map(|profile| self.filter(profile)).transpose()?;
        if process.no_new_privileges().unwrap_or(false) {
            self.steps.extend([Step::NoNewPrivileges, Step::Capabilities(sets.rest)]);
            self.steps.extend(filter);
        } else {
            self.steps.extend(filter);
            self.steps.push(Step::Capabilities(sets.rest));
        }
        Ok(())
    }

    fn filter(&mut self, profile: &LinuxSeccomp) -> Result<Step, CompileError> {
        let filter = seccomp::compile(profile, seccomp::Architecture::native())
            .map_err(|error| CompileError::invalid("linux.seccomp", error.to_string()))?;
        self.warnings.extend(filter.warnings);
        Ok(Step::Seccomp { program: filter.program, flags: filter.flags })
    }

    /// What has to be done while the child is root of the host still, for [`Self::limits`] to succeed later.
    pub(super) fn raise_limits(&mut self, process: &Process) {
        for limit in process.rlimits().iter().flatten() {
            self.steps.push(Step::RaiseLimit { resource: resource_of(limit.typ()), hard: limit.hard() });
        }
    }

    fn limits(&mut self, process: &Process) -> Result<(), CompileError> {
        let mut seen = 0_u32;
        for limit in process.rlimits().iter().flatten() {
            let resource = resource_of(limit.typ());
            if seen & (1 << resource) != 0 {
                // The specification demands this error (config.md, "POSIX process").
                return Err(CompileError::invalid("process.rlimits", format!("has {} twice", limit.typ())));
            }
            seen |= 1 << resource;
            self.steps.push(Step::Limit { resource, soft: limit.soft(), hard: limit.hard() });
        }
        Ok(())
    }

    fn capabilities(&mut self, process: &Process) -> Result<Sets, CompileError> {
        let Some(asked) = process.capabilities() else { return Ok(Sets::default()) };
        let bounding = self.available(asked.bounding().as_ref(), "bounding")?;
        let rest = Capabilities {
            effective: self.available(asked.effective().as_ref(), "effective")?,
            permitted: self.available(asked.permitted().as_ref(), "permitted")?,
            inheritable: self.available(asked.inheritable().as_ref(), "inheritable")?,
            ambient: self.available(asked.ambient().as_ref(), "ambient")?,
        };
        if rest.effective & !rest.permitted != 0 {
            return Err(CompileError::invalid("process.capabilities.effective", "has more than permitted"));
        }
        if rest.ambient & !(rest.permitted & rest.inheritable) != 0 {
            let reason = "has more than both permitted and inheritable";
            return Err(CompileError::invalid("process.capabilities.ambient", reason));
        }
        Ok(Sets { bounding, rest })
    }

    /// A set as bits, without what the process cannot have because the starting process does not hold it itself.
    fn available(&mut self, set: Option<&CapabilitySet>, name: &str) -> Result<u64, CompileError> {
        let mut bits = 0;
        for capability in set.into_iter().flatten() {
            let number = caps::Capability::from_str(&format!("CAP_{capability}")).map_err(|_| {
                CompileError::invalid(format!("process.capabilities.{name}"), format!("{capability} is not known"))
            })?;
            bits |= number.bitmask();
        }
        // Joining a user namespace gives all of them, whatever one held before (user_namespaces(7)).
        let held = if self.users.is_some() { u64::MAX } else { self.host.capabilities };
        let absent = bits & !held;
        for capability in caps::all().into_iter().filter(|capability| absent & capability.bitmask() != 0) {
            let warning = format!("{capability} cannot be given, because the runtime does not hold it itself");
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        Ok(bits & held)
    }
}

#[derive(Default)]
struct Sets {
    bounding: u64,
    rest: Capabilities,
}

fn working_directory(process: &Process) -> &Path {
    if process.cwd().as_os_str().is_empty() { Path::new("/") } else { process.cwd() }
}

/// `RLIMIT_*` of the kernel's asm-generic/resource.h, which x86 and ARM share.
fn resource_of(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}
