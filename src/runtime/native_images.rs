//! The `Images` seam over the store and the registry client of `oci::image`.
//!
//! The server makes one of it and hands it to the kubelet and the native runtime. It translates types and errors and
//! keeps blocking work off the event loop; what a pull does is decided in `oci`.

use std::path::Path;

use async_trait::async_trait;
use oci::image::{Record, Reference, Store, StoreError};

use crate::{Credentials, Image, ImageDefaults, ImageError, ImageId, Images};

/// The images of this node.
#[derive(Debug, Clone)]
pub struct NativeImages {
    store: Store,
}

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryOptions {
    /// Registries, as `host` or `host:port`, that are spoken to without TLS; those on loopback always are.
    pub insecure: Vec<String>,
}

impl NativeImages {
    /// Opens the images below the state directory `root`; removes what an interrupted process left there.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(root: &Path, _options: RegistryOptions) -> Result<Self, ImageError> {
        let store = Store::open(root).map_err(|source| failed("open", source))?;
        Ok(Self { store })
    }
}

#[async_trait]
impl Images for NativeImages {
    async fn pull(&self, reference: &str, _credentials: &[Credentials]) -> Result<Image, ImageError> {
        let parsed: Result<Reference, _> = reference.parse();
        parsed
            .map_err(|error| ImageError::InvalidName { reference: reference.to_owned(), message: error.to_string() })?;
        Err(ImageError::RegistryUnavailable {
            registry: reference.to_owned(),
            source: "this build has no registry client".into(),
        })
    }

    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let (store, name) = (self.store.clone(), reference.to_owned());
        let found = task::blocking(move || store.find(&name)).await.map_err(|source| failed("find", source))?;
        Ok(found.map(|record| self.image(record)))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let store = self.store.clone();
        let records = task::blocking(move || store.list()).await.map_err(|source| failed("list", source))?;
        Ok(records.into_iter().map(|record| self.image(record)).collect())
    }

    async fn remove(&self, image: &ImageId) -> Result<(), ImageError> {
        let Ok(id) = image.0.parse() else { return Ok(()) };
        let store = self.store.clone();
        task::blocking(move || store.remove(&id)).await.map_err(|source| failed("remove", source))?;
        Ok(())
    }
}

impl NativeImages {
    fn image(&self, record: Record) -> Image {
        let defaults = ImageDefaults {
            entrypoint: record.defaults.entrypoint.clone(),
            cmd: record.defaults.cmd.clone(),
            env: record.defaults.env.clone(),
            user: record.defaults.user.clone(),
            working_dir: record.defaults.working_dir.clone(),
            stop_signal: record.defaults.stop_signal.clone(),
        };
        Image {
            id: ImageId(record.id.to_string()),
            size: record.size(),
            defaults,
            layers: record.layers.iter().map(|layer| self.store.layer_path(&layer.diff_id)).collect(),
            pinned: record.pinned,
            tags: record.tags.into_iter().collect(),
            digests: record.digests.into_iter().collect(),
        }
    }
}

fn failed(operation: &'static str, source: StoreError) -> ImageError {
    ImageError::Store { operation, source: Box::new(source) }
}
