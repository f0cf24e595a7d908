//! Directories of this node that hold what claims have asked for.
//!
//! Made and removed on request of whoever provides volumes, through the kubelet's API ([`crate::serve`]); a pod uses one as
//! the `local` volume of its claim. All of them are directly below one folder that is the agent's own. Invariant: nothing
//! outside of that folder is touched, whatever a name says, and nothing that is mounted or linked inside of a directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest name of a file that Linux takes.
const LONGEST: usize = 255;

/// The directory of a name that may be one.
pub(crate) fn place(root: &Path, name: &str) -> Option<PathBuf> {
    let is_usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let is_name = name.starts_with("pvc-") && name.len() <= LONGEST && name.bytes().all(is_usual);
    is_name.then(|| folder(root).join(name))
}

/// Where all of them are.
fn folder(root: &Path) -> PathBuf {
    root.join("storage")
}

/// Makes a directory that everybody may write to, as the pods of a claim may be any user; one that is there stays as it is.
///
/// Until it is done nobody may do anything with it: by that, and as it is empty, one is known whose making was cut off.
pub(crate) fn make(place: &Path) -> io::Result<()> {
    let folder = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match DirBuilder::new().mode(0o000).create(place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Whether it is a directory, and not a link to one.
            let found = fs::symlink_metadata(place)?;
            if !found.is_dir() {
                return Err(error);
            }
            if found.permissions().mode() & 0o7777 != 0 || fs::read_dir(place)?.next().is_some() {
                return Ok(());
            }
        }
        made => made?,
    }
    // Beyond what the mask of this process leaves.
    fs::set_permissions(place, fs::Permissions::from_mode(0o777))?;
    // Its volume, once it exists, is not lost with the power; so the directory must not be either.
    File::open(place)?.sync_all()?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let root = Path::new("/data");
        let usual = "pvc-3f0c_default_data-web-0";
        assert_eq!(place(root, usual), Some(PathBuf::from("/data/storage").join(usual)));
        let long = format!("pvc-{}", "a".repeat(252));
        for name in ["", ".", "..", "data", "pvc-/..", "pvc-a/b", "pvc-\0", "pvc-A", "../pvc-a", &long] {
            assert_eq!(place(root, name), None, "{name:?}");
        }
    }

    #[test]
    fn anybody_may_write_to_it_and_a_second_request_changes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let place = place(root.path(), "pvc-1_default_web").expect("a place");
        make(&place).expect("made");
        fs::write(place.join("kept"), "x").expect("written");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("changed");
        make(&place).expect("there");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&place), mode(&folder(root.path()))), (0o700, 0o700));
        assert!(place.join("kept").exists());
    }

    #[test]
    fn what_was_cut_off_is_finished() {
        let root = tempfile::tempdir().expect("a directory");
        let place = place(root.path(), "pvc-1_default_web").expect("a place");
        fs::create_dir(folder(root.path())).expect("made");
        DirBuilder::new().mode(0o000).create(&place).expect("begun");
        make(&place).expect("made");
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o7777, 0o777);
    }

    #[test]
    fn a_link_is_no_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let place = place(root.path(), "pvc-1_default_web").expect("a place");
        make(&place).expect("made");
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o7777, 0o777);
        fs::remove_dir(&place).expect("removed");
        std::os::unix::fs::symlink("/", &place).expect("linked");
        assert_eq!(make(&place).map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
        assert!(runtime::remove_tree(&place).is_err(), "a link is not followed");
    }
}
