//! Media types: what a blob is, by the name that manifests give it.

/// What a manifest, index or layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// The manifest of one image.
    Manifest,
    /// A list of manifests, one per platform.
    Index,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a registry is asked for when the tag may name either.
pub(crate) const ACCEPTED_DOCUMENTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A media type that images do not have, or that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaTypeError {
    /// Neither a manifest nor an index that is known here.
    #[error("unsupported manifest media type {media_type:?}")]
    Document {
        /// The type.
        media_type: String,
    },
    /// The content of these layers must not be distributed by registries, and is fetched by none of the common tools.
    #[error("unsupported foreign layer of media type {media_type:?}")]
    Foreign {
        /// The type.
        media_type: String,
    },
    /// Not a tar archive in a known compression.
    #[error("unsupported layer media type {media_type:?}")]
    Layer {
        /// The type.
        media_type: String,
    },
}

impl Document {
    /// By the media type that a descriptor, a header or the document itself gives; parameters do not matter.
    pub(crate) fn of(media_type: &str) -> Result<Self, MediaTypeError> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match essence {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Ok(Self::Index)
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Ok(Self::Manifest)
            }
            _ => Err(MediaTypeError::Document { media_type: media_type.to_owned() }),
        }
    }
}

impl Compression {
    /// By the media type of a layer's descriptor.
    pub(crate) fn of(media_type: &str) -> Result<Self, MediaTypeError> {
        let media_type = media_type.to_owned();
        match media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Ok(Self::Gzip)
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
                Ok(Self::Zstd)
            }
            name if name.contains("nondistributable") || name.contains("foreign") => {
                Err(MediaTypeError::Foreign { media_type })
            }
            _ => Err(MediaTypeError::Layer { media_type }),
        }
    }

    /// By the first bytes of the content, where nothing names the type (layers of a docker-archive).
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_media_types_are_known() {
        assert_eq!(Compression::of("application/vnd.oci.image.layer.v1.tar+zstd"), Ok(Compression::Zstd));
        assert_eq!(Compression::of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Ok(Compression::Gzip));
        assert_eq!(Compression::of("application/vnd.oci.image.layer.v1.tar"), Ok(Compression::None));
        assert_eq!(
            Document::of("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
            Ok(Document::Manifest)
        );
        for media_type in ACCEPTED_DOCUMENTS {
            assert!(Document::of(media_type).is_ok(), "{media_type}");
        }
    }

    #[test]
    fn foreign_and_unknown_types_are_told_apart() {
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        assert!(matches!(Compression::of(foreign), Err(MediaTypeError::Foreign { .. })));
        assert!(matches!(Compression::of("application/wasm"), Err(MediaTypeError::Layer { .. })));
        let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(Document::of(schema1), Err(MediaTypeError::Document { .. })));
    }
}
