//! Checks of `hostPath` volumes, after `pkg/volume/hostpath` upstream.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::Problem;

/// Checks that the path is what `type` says, and makes it where `type` asks for that.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<(), Problem> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::write(path, b"")?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        _ => {}
    }
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let (wanted, holds) = match kind {
        "Directory" | "DirectoryOrCreate" => ("directory", found.is_some_and(|found| found.is_dir())),
        "File" | "FileOrCreate" => ("file", found.is_some_and(|found| found.is_file())),
        "Socket" => ("socket file", found.is_some_and(|found| found.is_socket())),
        "CharDevice" => ("character device", found.is_some_and(|found| found.is_char_device())),
        "BlockDevice" => ("block device", found.is_some_and(|found| found.is_block_device())),
        other => return Err(Problem::Unsupported { kind: format!("hostPath type {other}") }),
    };
    if holds { Ok(()) } else { Err(Problem::HostPath { path: source.path.clone(), wanted }) }
}
