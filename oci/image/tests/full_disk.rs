//! A disk that is too small, in a mount namespace of the test's own thread.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{Archive, TestImage, chain, contents, write_files};
use crate::image::{Store, import};

/// Runs `test` with a file system of `size` bytes at `directory` that nobody else sees; false if this host forbids it.
fn on_small_disk(directory: &Path, size: u32, test: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
                return false;
            }
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let options = std::ffi::CString::new(format!("size={size}")).unwrap();
            if mount("tmpfs", directory, "tmpfs", MountFlags::empty(), options.as_c_str()).is_err() {
                return false;
            }
            test();
            true
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_full_disk_is_named_and_nothing_half_done_stays() {
    let layout = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image =
        TestImage::new(&[Archive::new().file("small", b"s").finish(), Archive::new().file("usr/big", &noise).finish()]);
    write_files(layout.path(), &TestImage::layout(&[(&image, Some("app:v1"))]));
    let root = tempfile::tempdir().unwrap();
    let ran = on_small_disk(root.path(), 1 << 20, || {
        let store = Store::open(root.path()).unwrap();
        let error = chain(&import(&store, layout.path(), None).unwrap_err());
        assert!(error.contains("the disk is full: cannot write \"usr/big\""), "{error}");
        assert_eq!(contents(root.path()), Vec::<String>::new());
        assert_eq!(store.list().unwrap(), []);
    });
    if !ran {
        eprintln!("SKIP a_full_disk_is_named_and_nothing_half_done_stays: needs CAP_SYS_ADMIN to mount a tmpfs");
    }
}
