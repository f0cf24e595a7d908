//! File systems that misbehave: one that hangs until it is told to go on, which is mounted below the directory of its
//! test, and one that is full, which is mounted nowhere and reached through a descriptor of this process.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

pub(super) struct Disk {
    mount: OwnedFd,
    /// Of one that can hang.
    attached: Option<Attached>,
}

struct Attached {
    place: PathBuf,
    device: String,
}

/// The name of a directory that nobody compares mounts of.
pub(super) const PLACE: &str = "disk-that-can-hang";

#[expect(clippy::disallowed_methods, reason = "a test uses the host's tools to make what it needs")]
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn mount(kind: &str, source: &str, options: &[(&str, &str)]) -> OwnedFd {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source).unwrap();
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *name, *value).unwrap();
    }
    rustix::mount::fsconfig_create(context.as_fd()).unwrap();
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

impl Disk {
    /// One that can be made to hang, or none and a line that says so: a frozen file system (FIFREEZE of
    /// ioctl_fsfreeze(2)) lets whoever writes to it wait where no signal reaches.
    pub(super) fn that_can_hang(test: &str, directory: &Path) -> Option<Self> {
        let image = directory.join("disk.img");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let image = image.to_str().unwrap();
        run("mke2fs", &["-F", image]).expect("mke2fs makes a file system");
        // Somebody else may take the same device at the same moment.
        let attach = || run("losetup", &["-f"]).filter(|device| run("losetup", &[device, image]).is_some());
        let Some(device) = (0..10).find_map(|_| attach()) else {
            eprintln!("SKIP {test}: no loop devices");
            return None;
        };
        let (mount, place) = (mount("ext2", &device, &[]), directory.join(PLACE));
        std::fs::create_dir(&place).unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount.as_fd(), "", rustix::fs::CWD, &place, flags).unwrap();
        Some(Self { mount, attached: Some(Attached { place, device }) })
    }

    /// One of so many bytes.
    pub(super) fn of_size(bytes: u64) -> Self {
        Self { mount: mount("tmpfs", "test", &[("size", &bytes.to_string())]), attached: None }
    }

    pub(super) fn path(&self) -> PathBuf {
        if let Some(attached) = &self.attached {
            return attached.place.clone();
        }
        format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd()).into()
    }

    pub(super) fn grow(&self, bytes: u64) {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(&self.mount, "", flags).unwrap();
        rustix::mount::fsconfig_set_string(context.as_fd(), "size", bytes.to_string()).unwrap();
        rustix::mount::fsconfig_reconfigure(context.as_fd()).unwrap();
    }

    pub(super) fn hang(&self) {
        run("fsfreeze", &["--freeze", self.path().to_str().unwrap()]).expect("fsfreeze freezes");
    }

    pub(super) fn go_on(&self) {
        run("fsfreeze", &["--unfreeze", self.path().to_str().unwrap()]).expect("fsfreeze thaws");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(Attached { place, device }) = &self.attached {
            // One that does not hang cannot be thawed.
            let _ = run("fsfreeze", &["--unfreeze", place.to_str().unwrap()]);
            rustix::mount::unmount(place, UnmountFlags::DETACH).unwrap();
            // It goes away with its last user.
            let _ = run("losetup", &["-d", device]);
        }
    }
}
