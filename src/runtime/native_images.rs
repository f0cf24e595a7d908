//! The `Images` seam over the store and the registry client of `oci::image`.
//!
//! The server makes one of it and hands it to the kubelet and the native runtime. It translates types and errors and
//! keeps blocking work off the event loop; what a pull does is decided in `oci`.

use std::path::Path;

use async_trait::async_trait;
use oci::image::{PullError, Puller, Record, Reference, RegistryError, Store, StoreError};

pub use oci::image::RegistryOptions;

use crate::{Credentials, Image, ImageDefaults, ImageError, ImageId, Images, PullProgress};

/// The images of this node.
#[derive(Debug, Clone)]
pub struct NativeImages {
    puller: Puller,
}

impl NativeImages {
    /// Opens the images below the state directory `root`; removes what an interrupted process left there.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(root: &Path, options: RegistryOptions) -> Result<Self, ImageError> {
        let store = Store::open(root).map_err(|source| failed("open", source))?;
        Ok(Self { puller: Puller::new(store, options) })
    }
}

#[async_trait]
impl Images for NativeImages {
    async fn pull(
        &self,
        reference: &str,
        credentials: &[Credentials],
        progress: &PullProgress,
    ) -> Result<Image, ImageError> {
        let name: Reference = reference.parse().map_err(|error: oci::image::ReferenceError| {
            ImageError::InvalidName { reference: reference.to_owned(), message: error.to_string() }
        })?;
        let credentials: Vec<_> = credentials.iter().map(of_registry).collect();
        let pulled = Box::pin(self.puller.pull_showing(&name, &credentials, progress)).await;
        pulled.map(|record| self.image(record)).map_err(|error| not_pulled(&name, error))
    }

    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let (store, name) = (self.puller.store().clone(), reference.to_owned());
        let found = task::blocking(move || store.find(&name)).await.map_err(|source| failed("find", source))?;
        Ok(found.map(|record| self.image(record)))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let store = self.puller.store().clone();
        let records = task::blocking(move || store.list()).await.map_err(|source| failed("list", source))?;
        Ok(records.into_iter().map(|record| self.image(record)).collect())
    }

    async fn remove(&self, image: &ImageId) -> Result<(), ImageError> {
        let Ok(id) = image.0.parse() else { return Ok(()) };
        let store = self.puller.store().clone();
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
            layers: record.layers.iter().map(|layer| self.puller.store().layer_path(&layer.diff_id)).collect(),
            pinned: record.pinned,
            tags: record.tags.into_iter().collect(),
            digests: record.digests.into_iter().collect(),
        }
    }
}

fn failed(operation: &'static str, source: StoreError) -> ImageError {
    ImageError::Store { operation, source: Box::new(source) }
}

fn of_registry(credentials: &Credentials) -> oci::image::Credentials {
    oci::image::Credentials { username: credentials.username.clone(), password: credentials.password.clone() }
}

fn not_pulled(name: &Reference, error: PullError) -> ImageError {
    let registry = name.domain().to_owned();
    match error.registry() {
        Some(RegistryError::Connect { .. } | RegistryError::Silent { .. }) => {
            ImageError::RegistryUnavailable { registry, source: Box::new(error) }
        }
        _ => ImageError::Pull { reference: name.to_string(), source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> (tempfile::TempDir, NativeImages) {
        let root = tempfile::tempdir().unwrap();
        let images = NativeImages::open(root.path(), RegistryOptions::default()).unwrap();
        (root, images)
    }

    #[tokio::test]
    async fn an_invalid_name_is_told_from_a_registry_that_nobody_answers_for() {
        let (_root, images) = images();
        let error = images.pull("Not A Name", &[], &PullProgress::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::InvalidName { .. }), "{error}");

        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = images.pull(&format!("{closed}/app:v1"), &[], &PullProgress::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
        assert_eq!(error.to_string(), format!("registry {closed} is unavailable"));
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_removed_without_complaint() {
        let (_root, images) = images();
        assert_eq!(images.find("app:v1").await.unwrap(), None);
        assert_eq!(images.list().await.unwrap(), []);
        images.remove(&ImageId("sha256:unknown".to_owned())).await.unwrap();
    }
}
