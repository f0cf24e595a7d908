//! A directory whose files change all at once, after `pkg/volume/util/atomic_writer.go` upstream.
//!
//! ```text
//! <volume>/..2026_11_20_15_00_00.1/key     the files of one version
//!          ..data -> ..2026_11_20_15_00_00.1
//!          key -> ..data/key               one link per first path component
//! ```
//!
//! Readers follow `..data`, which is replaced by rename(2). Invariant: a reader sees one version or the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use super::ownership;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    /// User and group, where they are not root's.
    pub(super) owner: Owner,
}

/// Who a file belongs to; none for root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

/// Files by their paths below the volume.
pub(super) type Files = BTreeMap<String, File>;

/// Makes the directory show exactly `files`; directories are given to a group, if there is one.
pub(super) fn write(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // What is mounted into containers cannot be written there; the mode is the one that upstream shows.
    give(directory, 0o777, group)?;
    let current = fs::read_link(directory.join(DATA)).ok();
    if current.is_some() && read(&directory.join(DATA))? == *files {
        return Ok(());
    }
    let name = free_name(directory)?;
    write_version(&directory.join(&name), files, group)?;
    let new = directory.join(NEW_DATA);
    remove_link(&new)?;
    symlink(&name, &new)?;
    fs::rename(&new, directory.join(DATA))?;
    link_first_components(directory, files)?;
    match current {
        Some(old) if old.components().count() == 1 => fs::remove_dir_all(directory.join(old)),
        _ => Ok(()),
    }
}

/// The lowest version number that is not taken; what an interrupted write left behind is removed.
fn free_name(directory: &Path) -> io::Result<String> {
    let current = fs::read_link(directory.join(DATA)).ok();
    let current = current.as_deref().and_then(Path::to_str).map(str::to_owned);
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = name.starts_with("..") && name != DATA && name != NEW_DATA;
        if version && Some(&name) != current.as_ref() {
            fs::remove_dir_all(directory.join(name))?;
        }
    }
    let last = current.and_then(|name| name.rsplit_once('.')?.1.parse::<u64>().ok());
    Ok(format!("..version.{}", last.map_or(0, |last| last.wrapping_add(1))))
}

fn give(directory: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(directory, None, group)?;
    }
    let mode = group.map_or(mode, |_| ownership::directory_mode(mode, true));
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}

/// Makes the directories above a file, as far as they are missing.
fn make_parents(directory: &Path, path: &Path, group: Option<u32>) -> io::Result<()> {
    let mut place = directory.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        place.push(part);
        match fs::create_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result?;
                give(&place, 0o755, group)?;
            }
        }
    }
    Ok(())
}

fn write_version(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(directory)?;
    give(directory, 0o755, group)?;
    for (path, file) in files {
        let safe = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !safe || path.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} leaves the volume")));
        }
        let place = directory.join(path);
        make_parents(directory, Path::new(path), group)?;
        fs::write(&place, &file.content)?;
        if file.owner != Owner::default() {
            chown(&place, file.owner.user, file.owner.group)?;
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn link_first_components(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            remove_link(&directory.join(name))?;
        }
    }
    for name in wanted {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    Ok(())
}

fn remove_link(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn read(directory: &Path) -> io::Result<Files> {
    fn walk(directory: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                walk(&entry.path(), &format!("{name}/"), files)?;
            } else {
                let mode = metadata.permissions().mode() & 0o7777;
                let not_root = |id: u32| Some(id).filter(|id| *id != 0);
                let owner = Owner { user: not_root(metadata.uid()), group: not_root(metadata.gid()) };
                files.insert(name, File { content: fs::read(entry.path())?, mode, owner });
            }
        }
        Ok(())
    }
    let mut files = Files::new();
    walk(directory, "", &mut files)?;
    Ok(files)
}
