//! Who the child is and what it may use: user, capabilities, limits. Nothing here allocates or locks.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities as capset, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{Capabilities, mounts};
use crate::sys::credentials::{ambient_clear, ambient_raise, bounding_drop, bounding_has};
use crate::sys::limit::{self, Limit};

/// Changes user and groups. All permitted capabilities stay and are in force afterwards, because steps that follow need
/// them (a filter without no_new_privs needs CAP_SYS_ADMIN); [`set_capabilities`] has the last word.
pub(super) fn change_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    set_keep_capabilities(true)?;
    with_groups(groups, set_thread_groups)?;
    let gid = rustix::fs::Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid)?;
    let uid = rustix::fs::Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid)?;
    let mut present = capabilities(None)?;
    present.effective = present.permitted;
    capset(None, present)
}

/// Forgets the groups of the host, which a user namespace would not show and the kernel would still count.
pub(super) fn drop_groups() -> Result<(), Errno> {
    set_thread_groups(&[])
}

/// Becomes root of the user namespace that was just joined. No capability is lost, since no id was its root before.
pub(super) fn become_root() -> Result<(), Errno> {
    set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)?;
    set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT)
}

/// The kernel's limit of supplementary groups is 65536; what a pod names fits in here.
const GROUPS_MAX: usize = 4096;

fn with_groups(groups: &[u32], set: impl FnOnce(&[rustix::fs::Gid]) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut converted = [rustix::fs::Gid::ROOT; GROUPS_MAX];
    let room = converted.get_mut(..groups.len()).ok_or(Errno::INVAL)?;
    for (slot, group) in room.iter_mut().zip(groups) {
        *slot = rustix::fs::Gid::from_raw(*group);
    }
    set(room)
}

/// Drops all but `keep` from the bounding set, up to the last capability that the kernel knows.
pub(super) fn limit_bounding_set(keep: u64) -> Result<(), Errno> {
    for capability in 0..u64::BITS {
        match bounding_has(capability) {
            Ok(true) if keep & (1 << capability) == 0 => bounding_drop(capability)?,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Sets all sets but the bounding one.
pub(super) fn set_capabilities(sets: &Capabilities) -> Result<(), Errno> {
    let wanted = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    capset(None, wanted)?;
    ambient_clear()?;
    for capability in (0..u64::BITS).filter(|capability| sets.ambient & (1 << capability) != 0) {
        ambient_raise(capability)?;
    }
    Ok(())
}

/// Sets a limit. Without CAP_SYS_RESOURCE a hard limit cannot be raised: then as much of it as there is is taken and
/// EPERM is returned all the same, which makes a warning.
pub(super) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    match limit::exchange(resource, Some(Limit { soft, hard })) {
        Err(Errno::PERM) => {
            let present = limit::exchange(resource, None)?;
            let clamped = Limit { soft: soft.min(present.hard), hard: hard.min(present.hard) };
            limit::exchange(resource, Some(clamped))?;
            Err(Errno::PERM)
        }
        result => result.map(drop),
    }
}

/// Makes room for a later [`set_limit`]. What the kernel refuses here it refuses there again.
pub(super) fn raise_limit(resource: u32, hard: u64) -> Result<(), Errno> {
    let present = limit::exchange(resource, None)?;
    if present.hard >= hard {
        return Ok(());
    }
    match limit::exchange(resource, Some(Limit { soft: present.soft, hard })) {
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Writes `oom_score_adj`. The number is at most four digits and a sign.
pub(super) fn set_oom_score(proc: BorrowedFd<'_>, value: i32) -> Result<(), Errno> {
    let mut digits = [0_u8; 12];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).map_err(|_| Errno::INVAL)?;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    const FILE: &CStr = c"self/oom_score_adj";
    mounts::write_below(proc, &[FILE], &digits[start..])
}
