//! Writes an image as an OCI archive.
//!
//! Layers are packed anew from their directories, as no compressed copy is kept: the files are the same, the bytes of
//! the archives are not. So the configuration written names the new archives, and the image has another id wherever it
//! is imported. Sockets, which archives cannot hold, are left out as other tools do.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layout::{FULL_NAME, REF_NAME, blob_name};
use crate::image::digest::Hasher;
use crate::image::{Digest, Record, Store, StoreError};

/// Why an image has not been exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be read.
    #[error("cannot read {}", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The configuration in the store is damaged.
    #[error("invalid image configuration")]
    Config(#[source] serde_json::Error),
}

/// Writes an image of the store as an OCI archive. Blocks.
///
/// # Errors
/// When it is not complete.
pub fn export(store: &Store, image: &Record, to: &mut impl Write) -> Result<(), ExportError> {
    let workspace = store.workspace()?;
    let mut archive = Archive { tar: tar::Builder::new(to) };
    archive.small("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut layers = Vec::new();
    for (number, layer) in image.layers.iter().enumerate() {
        let path = workspace.path().join(format!("layer-{number}"));
        let (digest, size) = pack(&store.layer_path(&layer.diff_id), &path)?;
        let file = File::open(&path).map_err(|source| ExportError::Layer { path: path.clone(), source })?;
        archive.add(&blob_name(&digest), size, file)?;
        fs::remove_file(&path).map_err(|source| ExportError::Layer { path, source })?;
        layers.push((digest, size));
    }
    let mut config: serde_json::Value = serde_json::from_slice(&store.blob(&image.id)?).map_err(ExportError::Config)?;
    let diff_ids: Vec<String> = layers.iter().map(|(digest, _)| digest.to_string()).collect();
    config["rootfs"] = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
    let config = config.to_string().into_bytes();
    archive.small(&blob_name(&Digest::of(&config)), &config)?;
    let manifest = manifest(&config, &layers);
    archive.small(&blob_name(&Digest::of(&manifest)), &manifest)?;
    archive.small("index.json", &index(image, &manifest))?;
    archive.tar.finish().map_err(ExportError::Write)
}

fn manifest(config: &[u8], layers: &[(Digest, u64)]) -> Vec<u8> {
    let layers = layers.iter().map(|(digest, size)| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
        })
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config), "size": config.len(),
        },
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// One entry per tag; without any, one that has no name.
fn index(image: &Record, manifest: &[u8]) -> Vec<u8> {
    let mut entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::of(manifest), "size": manifest.len(),
    });
    let mut entries = Vec::new();
    for tag in &image.tags {
        entry["annotations"] = serde_json::json!({ FULL_NAME: tag, REF_NAME: tag });
        entries.push(entry.clone());
    }
    if entries.is_empty() {
        entries.push(entry);
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    index.to_string().into_bytes()
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
}

impl<W: Write> Archive<W> {
    fn small(&mut self, name: &str, content: &[u8]) -> Result<(), ExportError> {
        self.add(name, content.len() as u64, content)
    }

    fn add(&mut self, name: &str, size: u64, content: impl Read) -> Result<(), ExportError> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(size);
        self.tar.append_data(&mut header, name, content).map_err(ExportError::Write)
    }
}

/// Packs a layer's directory into a file; returns its digest and length.
fn pack(layer: &Path, to: &Path) -> Result<(Digest, u64), ExportError> {
    let file = File::create_new(to).map_err(|source| ExportError::Layer { path: to.to_owned(), source })?;
    let mut packer = Packer {
        tar: tar::Builder::new(Counting { file, hasher: Hasher::sha256(), count: 0 }),
        links: std::collections::HashMap::new(),
    };
    packer.add(layer, Path::new(""))?;
    let counted = packer.tar.into_inner().map_err(ExportError::Write)?;
    Ok((counted.hasher.finish(), counted.count))
}

struct Packer {
    tar: tar::Builder<Counting>,
    /// First name of each file that has several.
    links: std::collections::HashMap<u64, PathBuf>,
}

impl Packer {
    fn add(&mut self, layer: &Path, name: &Path) -> Result<(), ExportError> {
        let path = layer.join(name);
        let failed = |source| ExportError::Layer { path: path.clone(), source };
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            let mut marker = std::ffi::OsString::from(".wh.");
            marker.push(name.file_name().unwrap_or_default());
            return self.marker(&name.with_file_name(marker)).map_err(ExportError::Write);
        }
        self.entry(&path, name, &metadata).map_err(failed)?;
        if !metadata.is_dir() {
            return Ok(());
        }
        if attribute(&path, OsStr::new("trusted.overlay.opaque")).map_err(failed)?.as_deref() == Some(b"y") {
            self.marker(&name.join(".wh..wh..opq")).map_err(ExportError::Write)?;
        }
        let mut children = fs::read_dir(&path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        children.sort_by_key(fs::DirEntry::file_name);
        children.iter().try_for_each(|child| self.add(layer, &name.join(child.file_name())))
    }

    /// An empty file whose name says what lower layers lose.
    fn marker(&mut self, name: &Path) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_size(0);
        self.tar.append_data(&mut header, name, io::empty())
    }

    fn entry(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        let mut header = tar::Header::new_gnu();
        header.set_metadata(metadata);
        if metadata.nlink() > 1 && kind.is_file() {
            if let Some(first) = self.links.get(&metadata.ino()) {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return self.tar.append_link(&mut header, name, first);
            }
            self.links.insert(metadata.ino(), name.to_owned());
        }
        self.extensions(path, metadata)?;
        if kind.is_symlink() {
            header.set_size(0);
            return self.tar.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            return self.tar.append_data(&mut header, name, File::open(path)?);
        }
        header.set_size(0);
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        }
        self.tar.append_data(&mut header, name, io::empty())
    }

    /// Attributes, which only PAX headers hold.
    fn extensions(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut records = Vec::new();
        if metadata.mtime_nsec() != 0 {
            let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
            records.push(("mtime".to_owned(), time.into_bytes()));
        }
        for name in attributes(path)? {
            let is_ours = name.as_bytes().starts_with(b"trusted.overlay.");
            if let (false, Some(value), Some(text)) = (is_ours, attribute(path, &name)?, name.to_str()) {
                records.push((format!("SCHILY.xattr.{text}"), value));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }
}

fn attributes(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
}

fn attribute(path: &Path, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 64 << 10];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

struct Counting {
    file: File,
    hasher: Hasher,
    count: u64,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
