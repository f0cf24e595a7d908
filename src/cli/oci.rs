//! `coracle oci`: hands over to the program of `oci/command`, which is embedded here.
//!
//! That program is small and static, and starts in half the time of this one, which does not even begin ([`early`]). It is
//! executed from a file, so that all containers' monitors share its pages, under a name that its content gives, and
//! sealed, so that no container can change the file ([`oci::container::sealed`]). Invariant: this process does nothing
//! else; nothing comes back from it but the sentence that it could not be done.
//!
//! [`early`]: oci::sys::early

use std::convert::Infallible;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use flate2::read::GzDecoder;
use oci::container::sealed;

/// Compressed by gzip.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coracle-oci.gz"));

/// Where the program is put: gone with the next start of the host, like whatever it runs.
pub(super) const LIBEXEC: &str = "/run/coracle-libexec";

/// The program there.
const PROGRAM_PATH: &CStr = {
    let text = concat!("/run/coracle-libexec/coracle-oci-", env!("CORACLE_OCI_DIGEST"), "\0");
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(path) => path,
        Err(_) => panic!("a digest has no null"),
    }
};

// Once it is there, nothing here is needed. A program of tests has arguments of its own.
#[cfg(not(test))]
oci::become_early!(oci::sys::early::Rule { name: c"coracle-oci", word: c"oci", program: PROGRAM_PATH });

/// Whether this program was called as an OCI runtime; the arguments of that one then.
pub(super) fn called(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let name = arguments.next()?;
    if Path::new(&name).file_name() != Some(OsStr::new("coracle-oci")) && arguments.next()? != "oci" {
        return None;
    }
    Some(arguments.collect())
}

/// Becomes the runtime.
pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let Err(error) = hand_over(&[OsString::from("coracle-oci")].into_iter().chain(arguments).collect::<Vec<_>>());
    eprintln!("coracle oci: cannot execute the runtime at {}: {error}", program_path().display());
    ExitCode::FAILURE
}

fn program_path() -> &'static Path {
    Path::new(OsStr::from_bytes(PROGRAM_PATH.to_bytes()))
}

fn hand_over(arguments: &[OsString]) -> io::Result<Infallible> {
    let path = program_path();
    match sealed::execute(path, arguments.iter().cloned()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    install(path)?;
    sealed::execute(path, arguments.iter().cloned())
}

/// Puts it there as a whole or not at all, whoever else does the same meanwhile.
fn install(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let draft = path.with_extension(std::process::id().to_string());
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o700).open(&draft)?;
    let written = io::copy(&mut GzDecoder::new(PROGRAM), &mut file);
    drop(file);
    written.and_then(|_| fs::rename(&draft, path)).inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called_as(words: &[&str]) -> Option<Vec<OsString>> {
        called(words.iter().map(OsString::from))
    }

    #[test]
    fn the_runtime_is_meant_by_its_name_or_by_the_first_argument() {
        let arguments = Some(vec![OsString::from("state"), OsString::from("a")]);
        assert_eq!(called_as(&["/usr/bin/coracle", "oci", "state", "a"]), arguments);
        assert_eq!(called_as(&["/usr/bin/coracle-oci", "state", "a"]), arguments);
        assert_eq!(called_as(&["/usr/bin/coracle", "server", "oci"]), None);
        assert_eq!(called_as(&[]), None);
    }

    #[test]
    fn it_is_installed_whole_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        install(&path).unwrap();
        install(&path).unwrap();
        assert!(fs::read(&path).unwrap().starts_with(b"\x7fELF"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
