//! Volumes that are file systems of their own, mounted on the host for all containers of a pod.
//!
//! Mounted below the pod's directory, so that they outlive containers and the agent, and are found by whoever comes after
//! it. Invariant: nothing is unmounted but what has been mounted here: a place of the right name and depth whose file
//! system is of the right type; and nothing below such a place is ever removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::{failed, nfs};
use crate::{RuntimeError, VolumeSource};

/// How long a server may take to answer; upstream waits as long for volumes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Mounts a volume, unless it is mounted.
pub(super) async fn mount_at(at: PathBuf, source: VolumeSource) -> Result<(), RuntimeError> {
    let given_up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&given_up);
    let work = task::blocking(move || attach(&at, &source, &seen));
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => {
            // The thread ends when the kernel gives up; what comes of it then is not attached.
            given_up.store(true, Ordering::Relaxed);
            Err(failed("mount volume", io::Error::from(io::ErrorKind::TimedOut)))
        }
    }
}

fn attach(at: &Path, source: &VolumeSource, given_up: &AtomicBool) -> Result<(), RuntimeError> {
    fs::create_dir_all(at).map_err(|error| failed(format!("create {}", at.display()), error))?;
    let is_there = is_mounted(at, source).map_err(|error| failed("examine volume", error))?;
    if is_there {
        return Ok(());
    }
    let mount = match source {
        VolumeSource::Memory { size, mode, group } => {
            memory(*size, *mode, *group).map_err(|errno| failed("mount file system in memory", errno))?
        }
        VolumeSource::HugePages { page_size, mode, group } => huge_pages(*page_size, *mode, *group)
            .map_err(|errno| failed(format!("mount file system in pages of {page_size} bytes"), errno))?,
        VolumeSource::Nfs { server, path, options } => nfs::mount(server, path, options)?,
    };
    if given_up.load(Ordering::Relaxed) {
        return Ok(());
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, at, flags).map_err(|errno| failed(format!("attach {}", at.display()), errno))
}

/// A file system in memory. What is in it goes to no swap space where the kernel can see to that (`noswap`, Linux 6.4).
fn memory(size: Option<u64>, mode: u32, group: Option<u32>) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", format!("{mode:o}"))?;
    if let Some(group) = group {
        fsconfig_set_string(context.as_fd(), "gid", group.to_string())?;
    }
    if let Some(size) = size {
        fsconfig_set_string(context.as_fd(), "size", size.to_string())?;
    }
    match fsconfig_set_flag(context.as_fd(), "noswap") {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// A file system in huge pages, as large as there are such pages.
fn huge_pages(page_size: u64, mode: u32, group: Option<u32>) -> Result<OwnedFd, Errno> {
    let context = fsopen("hugetlbfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(group) = group {
        fsconfig_set_string(context.as_fd(), "gid", group.to_string())?;
    }
    fsconfig_set_string(context.as_fd(), "pagesize", page_size.to_string())?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    // The option of that name does not take the bit that hands the group down.
    let root = format!("/proc/thread-self/fd/{}", mount.as_raw_fd());
    rustix::fs::chmod(root, Mode::from_raw_mode(mode))?;
    Ok(mount)
}

fn is_mounted(at: &Path, source: &VolumeSource) -> io::Result<bool> {
    let kind = kind_at(at)?;
    Ok(match source {
        VolumeSource::Memory { .. } => kind.as_deref() == Some("tmpfs"),
        VolumeSource::HugePages { .. } => kind.as_deref() == Some("hugetlbfs"),
        VolumeSource::Nfs { .. } => matches!(kind.as_deref(), Some("nfs" | "nfs4")),
    })
}

/// Unmounts what [`mount_at`] has mounted at a path; one that is in use goes when that ends. Absence is fine.
pub(super) fn unmount_at(at: &Path) -> Result<(), RuntimeError> {
    let step = || format!("unmount {}", at.display());
    while let Some(kind) = kind_at(at).map_err(|error| failed(step(), error))? {
        if !matches!(kind.as_str(), "tmpfs" | "hugetlbfs" | "nfs" | "nfs4") {
            return Err(failed(step(), Errno::XDEV));
        }
        unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|errno| failed(step(), errno))?;
    }
    Ok(())
}

/// The type of the topmost mount at a path, if there is one, by the table of mounts: to look at the path itself would be to
/// ask a server, which may not answer.
fn kind_at(at: &Path) -> io::Result<Option<String>> {
    let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let wanted = match fs::canonicalize(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        parent => parent?.join(name),
    };
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(table.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = unescaped(left.split(' ').nth(4)?);
        (Path::new(&point) == wanted).then(|| right.split(' ').next().unwrap_or_default().to_owned())
    }))
}

/// Spaces and the like are written as octal numbers (proc_pid_mountinfo(5)).
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Runs in a mount namespace of the thread's own.
    fn alone(test: &str, work: impl FnOnce(&Path) + Send) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", flags).unwrap();
                work(&fs::canonicalize(directory.path()).unwrap());
            });
            alone.join().unwrap();
        });
    }

    fn mount(at: &Path, size: u64) {
        let source = VolumeSource::Memory { size: Some(size), mode: 0o2777, group: Some(2000) };
        attach(at, &source, &AtomicBool::new(false)).unwrap();
    }

    #[test]
    fn memory_is_mounted_once_with_its_size_and_unmounted_though_in_use() {
        alone("memory_is_mounted_once_with_its_size_and_unmounted_though_in_use", |directory| {
            let at = directory.join("a b");
            mount(&at, 1 << 20);
            let about = fs::metadata(&at).unwrap();
            assert_eq!((about.gid(), about.mode() & 0o7777), (2000, 0o2777));
            fs::write(at.join("file"), vec![0; 1000]).unwrap();
            mount(&at, 1 << 20);
            assert!(at.join("file").exists(), "another one was mounted over it");
            let full = fs::write(at.join("large"), vec![0; 2 << 20]).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            let busy = fs::File::open(at.join("file")).unwrap();
            unmount_at(&at).unwrap();
            unmount_at(&at).unwrap();
            assert!(!at.join("file").exists());
            drop(busy);
        });
    }

    #[test]
    fn huge_pages_are_mounted_with_their_size_and_unmounted() {
        alone("huge_pages_are_mounted_with_their_size_and_unmounted", |directory| {
            let sizes = fs::read_dir("/sys/kernel/mm/hugepages");
            let Some(entry) = sizes.ok().and_then(|mut sizes| sizes.next()) else {
                eprintln!("SKIP huge_pages_are_mounted_with_their_size_and_unmounted: no huge pages");
                return;
            };
            let name = entry.unwrap().file_name().into_string().unwrap();
            let kilobytes = name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB")).unwrap();
            let page_size = kilobytes.parse::<u64>().unwrap() << 10;
            let at = directory.join("huge");
            let source = |page_size| VolumeSource::HugePages { page_size, mode: 0o2777, group: Some(2000) };
            for _ in 0..2 {
                attach(&at, &source(page_size), &AtomicBool::new(false)).unwrap();
                let about = fs::metadata(&at).unwrap();
                assert_eq!((about.gid(), about.mode() & 0o7777), (2000, 0o2777));
                assert_eq!(rustix::fs::statfs(&at).unwrap().f_bsize as u64, page_size);
            }
            unmount_at(&at).unwrap();
            assert_eq!(kind_at(&at).unwrap(), None, "it was mounted once");
            assert!(attach(&at, &source(12345), &AtomicBool::new(false)).is_err(), "no such pages");
        });
    }

    #[test]
    fn what_somebody_else_has_mounted_stays() {
        alone("what_somebody_else_has_mounted_stays", |directory| {
            let (at, data) = (directory.join("at"), directory.join("data"));
            fs::create_dir(&at).unwrap();
            fs::create_dir(&data).unwrap();
            fs::write(data.join("file"), "").unwrap();
            rustix::mount::mount_bind(&data, &at).unwrap();
            assert!(unmount_at(&at).is_err());
            assert!(at.join("file").exists());
            // Nor is anything below it taken for a volume.
            unmount_at(&at.join("file")).unwrap();
            assert!(at.join("file").exists());
        });
    }

    #[test]
    fn a_kernel_without_nfs_or_a_server_without_a_name_says_so() {
        alone("a_kernel_without_nfs_or_a_server_without_a_name_says_so", |directory| {
            let source = |server: &str| VolumeSource::Nfs {
                server: server.to_owned(),
                path: "/".to_owned(),
                options: vec!["no-such-option".to_owned()],
            };
            let error = |server| attach(&directory.join("at"), &source(server), &AtomicBool::new(false)).unwrap_err();
            assert!(matches!(error("nobody.invalid"), RuntimeError::Step { .. }));
            assert!(matches!(error("127.0.0.1"), RuntimeError::Step { .. }));
            assert_eq!(kind_at(&directory.join("at")).unwrap(), None);
        });
    }
}
