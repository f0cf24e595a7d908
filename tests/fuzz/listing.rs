//! Everything below a directory as text, so that two directories can be compared.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, i64);

/// One line for each file: kind, attributes, content; without what is at and below `skip`. Times from `now` on are
/// alike, because they depend on when something was done.
///
/// Paths beyond the kernel's limit of 4096 bytes, which links can lead to, are shown as unreadable.
pub(crate) fn listing(root: &Path, skip: &[&Path], now: Option<Time>) -> String {
    let mut text = String::new();
    let mut names = std::collections::HashMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(name) = open.pop() {
        let path = root.join(&name);
        if skip.contains(&path.as_path()) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            writeln!(text, "{name:?} unreadable").expect("a string takes it");
            continue;
        };
        let kind = metadata.file_type();
        let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
        // Files are known by the first of their names, so that hard links show.
        let first = names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone()).clone();
        let time = Some(time(&metadata)).filter(|time| now.is_none_or(|now| *time < now));
        write!(text, "{name:?} {mode:o} {owner:?} {time:?} {first:?} ").expect("a string takes it");
        write!(text, "{:?}", attributes(&path)).expect("a string takes it");
        if kind.is_dir() {
            let mut children: Vec<PathBuf> =
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| name.join(entry.file_name())).collect();
            children.sort_by(|a, b| b.cmp(a));
            open.extend(children);
        } else if kind.is_symlink() {
            write!(text, " -> {:?}", fs::read_link(&path)).expect("a string takes it");
        } else if kind.is_char_device() || kind.is_block_device() {
            write!(text, " device {:#x}", metadata.rdev()).expect("a string takes it");
        } else if kind.is_file() {
            write!(text, " {:?}", fs::read(&path)).expect("a string takes it");
        }
        text.push('\n');
    }
    text
}

/// When a file was last written to.
pub(crate) fn time(metadata: &fs::Metadata) -> Time {
    (metadata.mtime(), metadata.mtime_nsec())
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap_or(0);
            value.truncate(length);
            (name, value)
        })
        .collect();
    all.sort();
    all
}
