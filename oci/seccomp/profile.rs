//! The common default profile: what Docker and containerd let a container do.
//!
//! An allow list; everything else fails with EPERM. What a capability governs anyway is allowed with that capability.
//! Differences from moby's `profiles/seccomp/default.json` of 2022 are those that it made since: io_uring is not
//! allowed, calls added up to Linux 6.13 that need no privilege are.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::Architecture;

/// Allowed without conditions, by what they are about.
const ALLOWED: &[&str] = &[
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2",
    "fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64",
    "fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents",
    "getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat",
    "name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read",
    "readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs",
    "statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime",
    "utimensat utimensat_time64 utimes vmsplice write writev",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr",
    "lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting for events.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd",
    "eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy",
    "io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6",
    "pselect6_time64 select signalfd signalfd4",
    // Memory.
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap",
    "mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes, threads and signals.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getcpu",
    "getpgid getpgrp getpid getppid getpriority get_robust_list getrusage getsid get_thread_area gettid ioprio_get",
    "ioprio_set kill pause pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv process_vm_writev",
    "ptrace restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend",
    "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam",
    "sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval",
    "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield",
    "setpgid setpriority set_robust_list setsid set_thread_area set_tid_address sigaltstack signal sigprocmask",
    "sigreturn sigsuspend tgkill tkill vfork wait4 waitid waitpid",
    // Identity, limits and restrictions.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32",
    "getresuid getresuid32 getrlimit getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self",
    "prlimit64 seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid",
    "setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setuid setuid32 ugetrlimit",
    // Sockets and System V and POSIX IPC.
    "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open",
    "mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd recv",
    "recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg",
    "sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair",
    // Time and the machine.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64",
    "clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep setitimer sysinfo time",
    "timer_create timer_delete timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    "timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times uname",
];

/// Allowed on one family of processors.
const X86: &[&str] = &["arch_prctl modify_ldt uretprobe"];
const ARM: &[&str] = &["arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"];

/// Allowed with a capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns statmount syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Execution domains that personality(2) may set: Linux, Linux with 32-bit uname, both without address randomization of
/// the vDSO era (`UNAME26`), and the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// All `CLONE_NEW*` bits that clone(2) takes: with one of them set, it needs CAP_SYS_ADMIN.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// The default profile for a container with the given capabilities in its bounding set, named as `CAP_…`.
#[must_use]
pub fn default_profile(capabilities: &[&str], native: Architecture) -> LinuxSeccomp {
    let has = |name: &str| capabilities.contains(&name);
    let (extra, architectures) = match native {
        Architecture::Aarch64 | Architecture::Arm => (ARM, vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]),
        _ => (X86, vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]),
    };
    let mut rules = vec![allow(ALLOWED.iter().chain(extra)), allow_if("socket", not_equal(0, AF_VSOCK))];
    rules.extend(PERSONALITIES.map(|domain| allow_if("personality", equal(0, domain))));
    rules.extend(BY_CAPABILITY.iter().filter(|(name, _)| has(name)).map(|(_, calls)| allow([calls])));
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow_if("clone", masked(0, NEW_NAMESPACES, 0)));
        // Its flags are in memory, where a filter cannot look; with this answer libraries use clone instead.
        rules.push(refuse("clone3", ENOSYS));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1_u32)
        .architectures(architectures)
        .syscalls(rules)
        .build()
        .expect("all that is required is set")
}

fn allow<'a>(groups: impl IntoIterator<Item = &'a &'a str>) -> LinuxSyscall {
    let names: Vec<String> = groups.into_iter().flat_map(|group| group.split_whitespace()).map(str::to_owned).collect();
    LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
        .expect("all that is required is set")
}

fn allow_if(name: &str, condition: LinuxSeccompArg) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![condition])
        .build()
        .expect("all that is required is set")
}

fn refuse(name: &str, errno: u32) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno)
        .build()
        .expect("all that is required is set")
}

fn condition(index: usize, op: LinuxSeccompOperator, value: u64, second: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value)
        .value_two(second)
        .build()
        .expect("all that is required is set")
}

fn equal(index: usize, value: u64) -> LinuxSeccompArg {
    condition(index, LinuxSeccompOperator::ScmpCmpEq, value, 0)
}

fn not_equal(index: usize, value: u64) -> LinuxSeccompArg {
    condition(index, LinuxSeccompOperator::ScmpCmpNe, value, 0)
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    condition(index, LinuxSeccompOperator::ScmpCmpMaskedEq, mask, value)
}
