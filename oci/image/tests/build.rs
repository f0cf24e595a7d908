//! Images made in memory.

use std::io::Write;
use std::path::Path;

use crate::image::Digest;

/// A tar archive in the making; hostile ones too, so headers are written without checks.
#[derive(Default)]
pub(in crate::image) struct Archive(Vec<u8>);

impl Archive {
    pub(in crate::image) fn new() -> Self {
        Self::default()
    }

    pub(in crate::image) fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(b'5', name, "", mode, b"")
    }

    pub(in crate::image) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o644, content)
    }

    pub(in crate::image) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        self.entry(kind, name, target, 0o777, b"")
    }

    /// PAX records for the entry that follows.
    pub(in crate::image) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(b'x', "pax", "", 0o644, &content)
    }

    pub(in crate::image) fn entry(self, kind: u8, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        self.custom(kind, name, link, content, |header| header.set_mode(mode))
    }

    pub(in crate::image) fn custom(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(in crate::image) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(in crate::image) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(in crate::image) fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).unwrap()
}

/// An image as its blobs.
#[derive(Clone)]
pub(in crate::image) struct TestImage {
    pub(in crate::image) manifest: Vec<u8>,
    pub(in crate::image) config: Vec<u8>,
    /// Media type and blob.
    pub(in crate::image) layers: Vec<(String, Vec<u8>)>,
}

impl TestImage {
    /// An image of archives, each in the compression of its number: gzip, zstd, none.
    pub(in crate::image) fn new(archives: &[Vec<u8>]) -> Self {
        let layers = archives.iter().enumerate().map(|(number, archive)| match number % 3 {
            0 => ("application/vnd.oci.image.layer.v1.tar+gzip".to_owned(), gzip(archive)),
            1 => ("application/vnd.oci.image.layer.v1.tar+zstd".to_owned(), zstd(archive)),
            _ => ("application/vnd.oci.image.layer.v1.tar".to_owned(), archive.clone()),
        });
        Self::of_blobs(layers.collect(), archives)
    }

    pub(in crate::image) fn of_blobs(layers: Vec<(String, Vec<u8>)>, archives: &[Vec<u8>]) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self::for_machine(architecture, layers, archives)
    }

    pub(in crate::image) fn for_machine(
        architecture: &str,
        layers: Vec<(String, Vec<u8>)>,
        archives: &[Vec<u8>],
    ) -> Self {
        let diff_ids: Vec<Digest> = archives.iter().map(|archive| Digest::of(archive)).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {
                "Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Env": ["PATH=/bin"], "User": "1000:1000",
                "WorkingDir": "/srv", "StopSignal": "SIGINT",
            },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let mut image = Self { manifest: Vec::new(), config, layers };
        image.manifest = image.manifest_json().to_string().into_bytes();
        image
    }

    pub(in crate::image) fn manifest_json(&self) -> serde_json::Value {
        let layers = self.layers.iter().map(|(media_type, blob)| {
            serde_json::json!({ "mediaType": media_type, "digest": Digest::of(blob), "size": blob.len() })
        });
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&self.config), "size": self.config.len(),
            },
            "layers": layers.collect::<Vec<_>>(),
        })
    }

    pub(in crate::image) fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// Every blob: layers and configuration.
    pub(in crate::image) fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().map(|(_, blob)| blob).chain([&self.config])
    }

    /// The files of an OCI layout of images with the value of their name annotation.
    pub(in crate::image) fn layout(images: &[(&Self, Option<&str>)]) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let name = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
        let mut manifests = Vec::new();
        for (image, annotation) in images {
            files.extend(image.blobs().map(|blob| (name(blob), blob.clone())));
            files.push((name(&image.manifest), image.manifest.clone()));
            let mut entry = serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": Digest::of(&image.manifest), "size": image.manifest.len(),
            });
            if let Some(annotation) = annotation {
                entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": annotation });
            }
            manifests.push(entry);
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }
}

/// Writes files below a directory.
pub(in crate::image) fn write_files(directory: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// Packs files into an archive; long names by PAX headers.
pub(in crate::image) fn pack_files(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::new();
    for (name, content) in files {
        archive = match name.len() {
            0..=100 => archive.file(name, content),
            _ => archive.pax(&[("path", name.as_bytes())]).file("long", content),
        };
    }
    archive.finish()
}
