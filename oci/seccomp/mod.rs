//! System call filters: the OCI form of a profile to a classic BPF program, and the field's common default profile.
//!
//! [`compile`] is pure and takes microseconds; the interpreter of a script merely installs the result. It deliberately
//! does not notify user space (`SCMP_ACT_NOTIFY`) and knows x86-64 and AArch64 hosts with their 32-bit companions only.
//!
//! Meaning of a profile, where the specification is silent, is that of libseccomp and runc: a rule without conditions
//! decides about its system call whatever conditional rules there are; otherwise the first rule that holds decides;
//! conditions of one rule must all hold, unless one argument has several, which makes each a rule of its own; names
//! that an architecture lacks are skipped; numbers above all that the profile names yield ENOSYS rather than a default
//! of refusal, so that programs fall back from calls that the profile's author could not know.

mod assembler;
mod compile;
mod numbers;
mod profile;
#[cfg(test)]
mod tests;

use oci_spec::runtime::Arch;

pub use compile::{Filter, SeccompError, compile};
pub use profile::default_profile;

/// An architecture as the kernel's audit numbers tell them apart; x32 shares that of x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// x86-64 with 32-bit pointers.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

impl Architecture {
    /// The one that this program was built for.
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// `AUDIT_ARCH_*`.
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    fn of(arch: Arch, native: Self) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// The number of a system call; none if the architecture lacks it.
    fn number_in(self, (_, numbers): &numbers::Row) -> Option<u32> {
        let column = match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        };
        u32::try_from(numbers[column]).ok()
    }
}

/// A system call by its name; none if no architecture has it.
fn find(name: &str) -> Option<&'static numbers::Row> {
    let found = numbers::TABLE.binary_search_by(|row| row.0.cmp(name)).ok()?;
    Some(&numbers::TABLE[found])
}
