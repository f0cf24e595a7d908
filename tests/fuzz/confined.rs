//! A thread that lives in a small world of its own: its root is an empty file system in memory, with `/proc`.
//!
//! For targets that write files as root: absolute paths and `..` lead to places that can be watched, nothing of the
//! host can be reached, the file system's size bounds what an input can fill, and nothing is left behind, because the
//! mount namespace ends with the thread. It needs root.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

type Job = Box<dyn FnOnce() + Send>;

/// Enough for every input, and it fills no memory of the host.
const SIZE: &std::ffi::CStr = c"size=64m,nr_inodes=65536,mode=755";

struct World {
    jobs: Option<Sender<Job>>,
    ends: Receiver<Result<(), Box<dyn Any + Send>>>,
    thread: Option<JoinHandle<()>>,
}

thread_local! {
    static WORLD: World = World::new();
}

/// Runs `job` in this thread's world; a panic of it is the caller's.
pub(crate) fn confined(job: impl FnOnce() + Send + 'static) {
    let end = WORLD.with(|world| {
        let jobs = world.jobs.as_ref().expect("it is taken away by the end only");
        jobs.send(Box::new(job)).expect("the thread lives as long as there are jobs");
        world.ends.recv().expect("the thread answers every job")
    });
    if let Err(panic) = end {
        resume_unwind(panic);
    }
}

impl World {
    fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (done, ends) = channel();
        let thread = std::thread::spawn(move || {
            enter();
            for job in queue {
                if done.send(catch_unwind(AssertUnwindSafe(job))).is_err() {
                    return;
                }
            }
        });
        Self { jobs: Some(jobs), ends, thread: Some(thread) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn enter() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("this needs root, for a mount namespace of its own");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("mounts of a new namespace can be made private");
    let place = std::env::temp_dir();
    mount("tmpfs", &place, "tmpfs", MountFlags::NODEV, SIZE).expect("root can mount a tmpfs");
    let proc = place.join("proc");
    std::fs::create_dir(&proc).expect("the file system is empty");
    mount_bind_recursive("/proc", &proc).expect("root can bind /proc");
    rustix::process::chroot(&place).expect("root can change its root");
    rustix::process::chdir("/").expect("the new root is there");
}
