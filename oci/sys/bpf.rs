//! bpf(2), as far as device programs of control groups need it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::clone::last_errno;

/// Commands, from `enum bpf_cmd` of linux/bpf.h.
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of this group, of those above and below all have to agree.
const ALLOW_MULTI: u32 = 2;
/// The kernel attaches at most this many programs to a group (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;
/// The kernel may refuse instructions under a licence that it does not know; none of those is used.
const LICENCE: &CStr = c"Apache-2.0";

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the lower half, source in the upper one.
    pub registers: u8,
    /// Of a jump or an address.
    pub offset: i16,
    /// Constant operand.
    pub immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// The part of `union bpf_attr` that loading uses.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part that attaching and detaching use.
#[repr(C)]
#[derive(Default)]
struct Attachment {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// The part that asking for attached programs uses.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// In place of padding, which the kernel wants to be zero.
    reserved: u32,
}

/// The part that opening a program by its identity uses.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Has the kernel verify and load a program for devices.
    ///
    /// # Errors
    /// Those of BPF_PROG_LOAD: EPERM without privilege, EINVAL or EACCES for a program that the kernel finds wrong.
    pub fn load(instructions: &[Instruction]) -> Result<Self, Errno> {
        let mut attributes = Load {
            program_type: TYPE_CGROUP_DEVICE,
            instruction_count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
            instructions: instructions.as_ptr() as u64,
            licence: LICENCE.as_ptr() as u64,
            ..Load::default()
        };
        attributes.name[..7].copy_from_slice(b"coracle");
        call(PROG_LOAD, &mut attributes).map(|descriptor| Self(owned(descriptor)))
    }

    /// Attaches the program to the group of a directory, beside those that are there.
    ///
    /// # Errors
    /// Those of BPF_PROG_ATTACH.
    pub fn attach(&self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut attributes = Attachment { flags: ALLOW_MULTI, ..self.attachment(group) };
        call(PROG_ATTACH, &mut attributes).map(drop)
    }

    /// Detaches it.
    ///
    /// # Errors
    /// Those of BPF_PROG_DETACH.
    pub fn detach(&self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        call(PROG_DETACH, &mut self.attachment(group)).map(drop)
    }

    /// The programs that are attached to the group itself.
    ///
    /// # Errors
    /// Those of BPF_PROG_QUERY.
    pub fn attached(group: BorrowedFd<'_>) -> Result<Vec<Self>, Errno> {
        let mut ids = [0_u32; MAX_PROGRAMS];
        let mut query = Query {
            target: number(group),
            attach_type: ATTACH_CGROUP_DEVICE,
            ids: ids.as_mut_ptr() as u64,
            count: u32::try_from(ids.len()).map_err(|_| Errno::INVAL)?,
            ..Query::default()
        };
        call(PROG_QUERY, &mut query)?;
        let count = usize::try_from(query.count).map_err(|_| Errno::INVAL)?;
        let open = |id: &u32| {
            let mut by_id = ById { id: *id, ..ById::default() };
            call(PROG_GET_FD_BY_ID, &mut by_id).map(|descriptor| Self(owned(descriptor)))
        };
        ids.iter().take(count).map(open).collect()
    }

    fn attachment(&self, group: BorrowedFd<'_>) -> Attachment {
        let program = number(std::os::fd::AsFd::as_fd(&self.0));
        Attachment { target: number(group), program, attach_type: ATTACH_CGROUP_DEVICE, flags: 0 }
    }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just opened this descriptor for us, with close-on-exec, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn call<T>(command: u32, attributes: &mut T) -> Result<i32, Errno> {
    // SAFETY: only called from above, with the attributes of the command in a complete structure of the size given,
    // whose addresses are those of arrays that outlive the call; the kernel takes what is beyond the size as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(last_errno()),
    }
}
