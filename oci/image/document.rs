//! Manifests, indexes and configurations: what they say, checked.
//!
//! Parsed from untrusted text whose length the caller has bounded.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use super::media::{Compression, Document, MediaTypeError};
use super::{Defaults, Digest, DigestError};

/// More layers than overlayfs stacks (`OVL_MAX_STACK`).
const LAYER_LIMIT: usize = 500;

/// Why a document is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not what it is said to be.
    #[error("invalid image {document}")]
    Invalid {
        /// Manifest, index or configuration.
        document: &'static str,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A digest in it is none.
    #[error("invalid digest in image {document}")]
    Digest {
        /// Manifest, index or configuration.
        document: &'static str,
        /// What is wrong.
        #[source]
        source: DigestError,
    },
    /// It, or what it refers to, is of a kind that cannot be run.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// There is nothing for this kind of machine. The words are containerd's.
    #[error("no match for platform in manifest: the image has no variant for {wanted}, only for {present}")]
    NoPlatform {
        /// This machine.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The configuration and the manifest contradict each other.
    #[error("the manifest has {layers} layers, but the image's configuration {diff_ids}")]
    LayerCount {
        /// Of the manifest.
        layers: usize,
        /// Of the configuration.
        diff_ids: usize,
    },
    /// More than the kernel can stack.
    #[error("the image has {layers} layers; at most {LAYER_LIMIT} are possible")]
    TooManyLayers {
        /// How many.
        layers: usize,
    },
}

/// The kind of machine that images are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
}

/// A blob by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRef {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: BlobRef,
    pub(crate) layers: Vec<(BlobRef, Compression)>,
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) defaults: Defaults,
}

impl Platform {
    /// This machine.
    pub(crate) fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux", architecture }
    }

    /// Whether something for the given platform runs here. The baseline of each architecture may be written with or
    /// without its variant (containerd/platforms `normalizeArch`); higher ones are not for every machine.
    fn runs(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        let baseline = match self.architecture {
            "amd64" => "v1",
            "arm64" => "v8",
            _ => "",
        };
        let variant = variant.unwrap_or_default();
        os == self.os && architecture == self.architecture && (variant.is_empty() || variant == baseline)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// What kind of document it is: by its own `mediaType`, which is signed by the digest, else by what it was sent as.
pub(crate) fn kind(content: &[u8], sent_as: Option<&str>) -> Result<Document, DocumentError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline = parse("manifest", content)?;
    match (outline.media_type, outline.manifests, outline.layers) {
        (Some(media_type), ..) => Ok(Document::of(&media_type)?),
        (None, Some(_), _) => Ok(Document::Index),
        (None, None, Some(_)) => Ok(Document::Manifest),
        (None, None, None) => Ok(Document::of(sent_as.unwrap_or_default())?),
    }
}

/// The entry of an index for the platform.
pub(crate) fn select(index: &[u8], platform: &Platform) -> Result<BlobRef, DocumentError> {
    let index: ImageIndex = parse("index", index)?;
    let runs = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|of| {
            platform.runs(&of.os().to_string(), &of.architecture().to_string(), of.variant().as_deref())
        })
    };
    let only = match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Some(only),
        _ => None,
    };
    match index.manifests().iter().find(runs).or(only) {
        Some(descriptor) => blob("index", descriptor),
        None => {
            let platforms = index.manifests().iter().filter_map(|descriptor| descriptor.platform().as_ref());
            let names: Vec<String> = platforms
                .filter(|of| of.os().to_string() != "unknown")
                .map(|of| {
                    let variant = of.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
                    format!("{}/{}{variant}", of.os(), of.architecture())
                })
                .collect();
            Err(no_platform(platform, names.join(", ")))
        }
    }
}

impl Manifest {
    pub(crate) fn parse(content: &[u8]) -> Result<Self, DocumentError> {
        let manifest: ImageManifest = parse("manifest", content)?;
        let layers = manifest.layers();
        if layers.len() > LAYER_LIMIT {
            return Err(DocumentError::TooManyLayers { layers: layers.len() });
        }
        let layers = layers.iter().map(|layer| {
            let compression = Compression::of(layer.media_type().as_ref())?;
            Ok((blob("manifest", layer)?, compression))
        });
        let layers = layers.collect::<Result<_, DocumentError>>()?;
        Ok(Self { config: blob("manifest", manifest.config())?, layers })
    }
}

impl Config {
    /// A configuration for `layers` layers that runs on the platform.
    pub(crate) fn parse(content: &[u8], layers: usize, platform: &Platform) -> Result<Self, DocumentError> {
        let config: ImageConfiguration = parse("configuration", content)?;
        let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
        if !platform.runs(&os, &architecture, config.variant().as_deref()) {
            return Err(no_platform(platform, format!("{os}/{architecture}")));
        }
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != layers {
            return Err(DocumentError::LayerCount { layers, diff_ids: diff_ids.len() });
        }
        let diff_ids = diff_ids.iter().map(|text| digest("configuration", text));
        let diff_ids = diff_ids.collect::<Result<_, _>>()?;
        Ok(Self { diff_ids, defaults: defaults(&config) })
    }
}

fn defaults(config: &ImageConfiguration) -> Defaults {
    let Some(config) = config.config() else { return Defaults::default() };
    Defaults {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
    }
}

fn no_platform(platform: &Platform, present: String) -> DocumentError {
    let present = if present.is_empty() { "none".to_owned() } else { present };
    DocumentError::NoPlatform { wanted: platform.to_string(), present }
}

fn parse<T: serde::de::DeserializeOwned>(document: &'static str, content: &[u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(content).map_err(|source| DocumentError::Invalid { document, source })
}

fn blob(document: &'static str, descriptor: &Descriptor) -> Result<BlobRef, DocumentError> {
    Ok(BlobRef { digest: digest(document, descriptor.digest().as_ref())?, size: descriptor.size() })
}

fn digest(document: &'static str, text: &str) -> Result<Digest, DocumentError> {
    text.parse().map_err(|source| DocumentError::Digest { document, source })
}

#[cfg(test)]
mod tests;
