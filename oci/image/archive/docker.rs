//! What `docker save` writes: a list of images in `manifest.json` (moby `image/tarexport`), layers uncompressed.

use super::ImportError;
use super::contents::Contents;
use super::import::{Found, FoundLayer, reference, required};
use crate::image::document::{Config, Platform};
use crate::image::layer::Expected;
use crate::image::{Digest, Reference};

/// One image of the list.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    pub(super) config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Item {
    pub(super) fn parse_list(content: &[u8]) -> Result<Vec<Self>, ImportError> {
        serde_json::from_slice(content).map_err(|source| ImportError::List { name: "manifest.json", source })
    }

    pub(super) fn names(&self) -> Result<Vec<Reference>, ImportError> {
        self.repo_tags.iter().flatten().map(|name| reference(name)).collect()
    }
}

/// All images of the list.
pub(super) fn find(contents: &Contents, list: &[u8]) -> Result<Vec<Found>, ImportError> {
    let items = Item::parse_list(list)?;
    let found = items.into_iter().map(|item| {
        let config_content = required(contents, &item.config)?;
        let config = Config::parse(&config_content, item.layers.len(), &Platform::of_host())?;
        let layers = item.layers.iter().zip(&config.diff_ids).map(|(name, diff_id)| {
            let expected = Expected { blob: None, diff_id: diff_id.clone(), compression: None };
            FoundLayer { name: name.clone(), expected }
        });
        let layers: Vec<FoundLayer> = layers.collect();
        Ok(Found {
            names: item.names()?,
            top: None,
            manifest_content: manifest_of(&config_content, &config),
            config_digest: Digest::of(&config_content),
            config_content,
            config,
            layers,
        })
    });
    found.collect()
}

/// A docker-archive has no manifest; this one says the same in the words of the image specification.
fn manifest_of(config_content: &[u8], config: &Config) -> Vec<u8> {
    let layers = config.diff_ids.iter().map(|diff_id| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id.to_string(), "size": 0,
        })
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config_content).to_string(), "size": config_content.len(),
        },
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}
