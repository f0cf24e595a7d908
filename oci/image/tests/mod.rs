//! Whole pulls, and what tests of several modules build images with.

mod build;
mod failures;
mod fake;
mod full_disk;
mod pulls;
mod registry;

pub(super) use build::{Archive, TestImage, gzip, pack_files, write_files};

use super::{Puller, RegistryOptions, Store};

/// A store in a directory of the test's own, which removes both.
pub(super) fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

/// Options that do not keep a test waiting.
fn impatient() -> RegistryOptions {
    let pause = std::time::Duration::from_millis(1);
    RegistryOptions { attempts: 2, pause, ..RegistryOptions::default() }
}

fn puller(store: &Store) -> Puller {
    Puller::new(store.clone(), impatient())
}

/// Everything that is in the store beside its fixed files: layers, blobs, work in progress.
pub(super) fn contents(root: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["layers", "blobs/sha256"] {
        let entries = std::fs::read_dir(root.join("images").join(part)).into_iter().flatten();
        found.extend(entries.map(|entry| format!("{part}/{}", entry.unwrap().file_name().to_string_lossy())));
    }
    for session in std::fs::read_dir(root.join("images/temp")).unwrap() {
        let entries = std::fs::read_dir(session.unwrap().path()).unwrap();
        found.extend(entries.map(|entry| format!("temp/{}", entry.unwrap().file_name().to_string_lossy())));
    }
    found.sort();
    found
}

/// An error with all its sources, as the command line prints it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
