//! Containers: compile, script, interpreter.
//!
//! [`compile`] turns an OCI runtime configuration and facts about the host into a [`Script`] and the list of
//! descriptors that it needs (feature `compile`, pure, runs in the agent). [`rootfs`] makes those descriptors in the
//! host's namespaces. [`start`] and [`exec`] run a script in a new child (no feature, runs in the per-pod program).
//!
//! It deliberately knows nothing of pods, images, logs and of what becomes of a process once it runs.
//!
//! # What a hostile image, volume or container is answered with
//!
//! Most answers follow from four rules. (1) What becomes a container is a copy of its starter that interprets a script:
//! nothing is executed, loaded or looked up inside before the container's own program. (2) Paths of a container are
//! resolved by the kernel below its root, never through magic links, to a descriptor, and it is the descriptor that is
//! examined and used. (3) Mounts are made detached and attached in a mount namespace that is already the container's
//! own. (4) Whoever starts containers is executed from where its file cannot be changed.
//!
//! Each answer is written where it is given; tests are in `oci/tests/container`, most of them in `hostile`, and fail
//! without it.
//!
//! | attack | answer | where | test |
//! |---|---|---|---|
//! | a descriptor of the starter survives into the container | all above 2 are marked close-on-exec, whoever opened them | `child.rs` `prepare` | `descriptors::nothing_that_the_caller_has_open_gets_inside` |
//! | owner or mode of the host's `/dev/null` is changed through a standard stream or a bound device | the stream becomes the container's own device; bound devices are on read-only mounts | [`Step::OwnNullDevice`], `compile/devices.rs` | `descriptors::a_null_device_of_the_host_…`, `…a_device_that_is_bound_from_the_host_…` |
//! | the starter's program is overwritten through `/proc/<pid>/exe`, got hold of by `#!/proc/self/exe`, a library or loader (CVE-2019-5736) | it runs from a read-only clone of its mount that belongs to no namespace; `/proc/self/exe` itself is not executed | [`sealed`], `program.rs` | `program::…`, the runtime's `the_shim_s_program_…` |
//! | the working directory is a directory of the host (CVE-2024-21626) | no magic links; the kernel says where it is | `mounts.rs` `change_directory` | `paths::a_working_directory_…` |
//! | a mount lands outside because a path is changed meanwhile (CVE-2021-30465) | rules 2 and 3 | `target.rs` | `race::nothing_lands_outside_while_a_volume_changes` |
//! | a part of a volume is a link that leads out, or becomes one before it is mounted (CVE-2017-1002101, CVE-2021-25741) | the kernel resolves it below the root of the volume, and what it has found is what is mounted | [`rootfs::clone_beneath`] | `rootfs::…::a_link_that_is_swapped_in_never_leads_outside` |
//! | mount points are absolute, dangling or climbing links | rule 2; what is missing is made where the link points to, inside | `target.rs` | `paths::a_mount_point_that_is_a_link_stays_inside` |
//! | `/proc` or `/sys` is a link into a volume (CVE-2019-19921, CVE-2023-27561) | no link may be on the way to these | `mounts.rs` `attach_plainly` | `paths::file_systems_of_the_kernel_…` |
//! | a masked path is covered with what the image calls `/dev/null` (CVE-2025-31133) | the descriptor that is mounted was seen to be device 1:3 | `mounts.rs` `mask` | `masks::a_path_is_not_masked_with_…` |
//! | `/dev/console` or `/dev/pts` is something else (CVE-2025-52565) | the terminal is opened in a devpts, its other end by ioctl, and bound by descriptor | `mounts.rs` `open_terminal`, `bind_over` | `paths::a_terminal_…` |
//! | writes to procfs are redirected (CVE-2025-52881) | a descriptor of the procfs that was mounted, or of the root of one; no crossing of mounts, no magic links | `mounts.rs` `find_proc`, `write_below` | `init::a_replaced_proc_is_not_written_to` |
//! | masks are avoided by a second procfs, by unmounting, by other ways to the same file | the kernel refuses it to whoever lacks CAP_SYS_ADMIN over the namespace of the mounts, as long as masks cover something | [`Step::Mask`], [`Step::ReadOnly`] | `masks::masks_hold_…` |
//! | inheritable or ambient capabilities come along (CVE-2022-24769, CVE-2022-29162) | every set is set, the bounding one before the user changes | `identity.rs` | `privileges::capabilities_that_the_starter_passes_on_…` |
//! | set-user-id programs | the bounding set; `no_new_privs`; `nosuid` | [`Step::BoundingSet`], [`Step::NoNewPrivileges`] | `privileges::a_program_of_root_…` |
//! | device nodes that the image has or the container makes | device rules of the group, in force before anything of the container's is opened | `crate::cgroup` | `groups::devices_are_restricted_…` |
//! | processes inside look into one that joins them (CVE-2016-9962) | it is non-dumpable from birth, and has more capabilities than they until then | `run.rs` `spawn`, `child.rs` `prepare` | `init::nobody_inside_can_look_…`, `init::whoever_starts_processes_…` |
//! | the first process of a shared process namespace is taken over by a container with CAP_SYS_PTRACE | it has no privileges, descriptors or files, and nobody's ids | `keeper.rs` | the runtime's `processes::containers_that_share_processes_…` |
//! | an init that moves itself elsewhere | group and privileges of what joins are the script's, not read from init; nothing of init's is read | [`compile::compile_exec`] | `init::an_init_cannot_choose_…` |
//! | an init that kills what joins it, or dies, or is killed on the way | [`Place::Died`]; nothing is left | `run.rs` | `init::an_init_that_…`, `init::a_process_that_is_killed_…` |
//!
//! What is not answered here:
//!
//! - A container with CAP_SYS_PTRACE over the host's user namespace can take over a command that is being started in it,
//!   between its birth in the process namespace and execve(2), while that still has the starter's capabilities: neither
//!   rule of ptrace(2) holds for it. With CAP_PERFMON it can read that command's maps and environment, which are the
//!   starter's, since Linux 6.15. As for other runtimes, such containers belong into a user namespace of their own.
//! - CAP_SYS_ADMIN over the host's user namespace undoes masks, as everywhere.
//! - The source of a bind mount is resolved in the host by whoever asks for it; for what others can change there is
//!   [`rootfs::clone_beneath`].

mod channel;
mod child;
#[cfg(feature = "compile")]
pub mod compile;
mod ending;
mod identity;
mod keeper;
mod mounts;
mod program;
pub mod rootfs;
mod run;
mod script;
pub mod sealed;
mod target;
pub mod users;

pub use ending::{ending_children, reap_later};
pub use keeper::keep_processes;
pub use run::*;
pub use script::*;
