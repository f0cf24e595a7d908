//! Manifests, indexes and configurations of images.
//!
//! The input is one document, read as each of the three kinds.

use oci::image::{DocumentError, fuzz};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\"mediaType\":",
    "\"manifests\":",
    "\"layers\":",
    "\"config\":",
    "\"digest\":",
    "\"size\":",
    "\"platform\":",
    "\"architecture\":",
    "\"variant\":",
    "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[",
    "\"amd64\"",
    "\"linux\"",
    "\"v1\"",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "sha512:",
    "null",
    "[]",
    "{}",
    "-1",
    "18446744073709551616",
    "1e9",
    "[[[[[[[[",
    "\\ud800",
];

/// `OVL_MAX_STACK` of the kernel.
const LAYERS: usize = 500;
/// A descriptor of some forty bytes is some three hundred in memory.
const BOUND: Bound = Bound { base: 64 << 10, held: 64, ever: 256 };

pub(crate) fn check(data: &[u8]) {
    for sent_as in [None, Some("application/vnd.oci.image.index.v1+json"), Some("text/plain; charset=utf-8")] {
        explained(bounded(data.len(), BOUND, || fuzz::is_index(data, sent_as)));
    }
    manifest(data);
    index(data);
    config(data);
}

fn explained<T>(result: Result<T, DocumentError>) -> Option<T> {
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
    }
    result.ok()
}

fn manifest(data: &[u8]) {
    let parsed = explained(bounded(data.len(), BOUND, || fuzz::manifest(data)));
    if let Some((_, layers)) = &parsed {
        assert!(layers.len() <= LAYERS, "{} layers cannot be stacked", layers.len());
    }
    if let Some(again) = rewritten::<ImageManifest>(data) {
        assert_eq!(parsed, explained(fuzz::manifest(&again)), "a manifest means something else when written again");
    }
}

fn index(data: &[u8]) {
    for architecture in ["amd64", "arm64", "riscv64"] {
        let selected = explained(bounded(data.len(), BOUND, || fuzz::select(data, architecture)));
        if let Some(again) = rewritten::<ImageIndex>(data) {
            assert_eq!(selected, explained(fuzz::select(&again, architecture)), "an index means something else");
        }
    }
}

fn config(data: &[u8]) {
    let layers =
        serde_json::from_slice::<ImageConfiguration>(data).map_or(0, |config| config.rootfs().diff_ids().len());
    let parsed = explained(bounded(data.len(), BOUND, || fuzz::config(data, layers, "amd64")));
    if let Some((diff_ids, _)) = &parsed {
        assert_eq!(diff_ids.len(), layers);
        assert!(fuzz::config(data, layers + 1, "amd64").is_err(), "a layer is missing and nobody notices");
    }
    if let Some(again) = rewritten::<ImageConfiguration>(data) {
        assert_eq!(parsed, explained(fuzz::config(&again, layers, "amd64")), "a configuration means something else");
    }
}

/// The document as its type writes it, if it is one.
fn rewritten<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<Vec<u8>> {
    let document: T = serde_json::from_slice(data).ok()?;
    Some(serde_json::to_vec(&document).expect("what was read can be written"))
}
