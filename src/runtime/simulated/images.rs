//! Simulated images.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::{Credentials, Image, ImageDefaults, ImageError, ImageId, Images, PullProgress};

/// What a pull of a reference does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// The image arrives.
    Arrives { latency: Duration, image: Box<Image> },
    /// The registry does not have it or refuses it.
    Refused { latency: Duration, message: String },
    /// The registry cannot be reached.
    Unreachable { latency: Duration },
}

/// A registry and an image store in memory. Without a word about a reference, its pull arrives at once.
#[derive(Debug, Clone, Default)]
pub struct SimulatedImages(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    present: BTreeMap<ImageId, Image>,
    outcomes: BTreeMap<String, PullOutcome>,
    pulls: Vec<String>,
}

impl SimulatedImages {
    /// An empty store before a registry that has everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the next pulls of `reference` do.
    pub fn on_pull(&self, reference: &str, outcome: PullOutcome) {
        self.shelf().outcomes.insert(reference.to_owned(), outcome);
    }

    /// Makes an image present without a pull.
    pub fn insert(&self, image: Image) {
        self.shelf().present.insert(image.id.clone(), image);
    }

    /// References pulled so far, in order.
    pub fn pulls(&self) -> Vec<String> {
        self.shelf().pulls.clone()
    }

    /// The image that a pull of `reference` brings when nothing was said about it.
    pub fn image_of(reference: &str) -> Image {
        let id = ImageId(format!("sha256:{:064x}", fingerprint(reference)));
        Image {
            digests: vec![format!("{reference}@{id}")],
            id,
            tags: vec![reference.to_owned()],
            size: 1 << 20,
            defaults: ImageDefaults { entrypoint: vec!["/entrypoint".to_owned()], ..ImageDefaults::default() },
            layers: Vec::new(),
            pinned: false,
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().expect("no code panics while it holds the shelf")
    }
}

#[async_trait]
impl Images for SimulatedImages {
    async fn pull(
        &self,
        reference: &str,
        _credentials: &[Credentials],
        progress: &PullProgress,
    ) -> Result<Image, ImageError> {
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            return Err(ImageError::InvalidName {
                reference: reference.to_owned(),
                message: "invalid reference format".to_owned(),
            });
        }
        let outcome = {
            let mut shelf = self.shelf();
            shelf.pulls.push(reference.to_owned());
            shelf.outcomes.get(reference).cloned().unwrap_or_else(|| PullOutcome::Arrives {
                latency: Duration::ZERO,
                image: Box::new(Self::image_of(reference)),
            })
        };
        match outcome {
            PullOutcome::Arrives { latency, image } => {
                arrive(reference, image.size, latency, progress).await;
                let mut image = *image;
                if !image.tags.iter().any(|tag| tag == reference) {
                    image.tags.push(reference.to_owned());
                }
                self.insert(image.clone());
                Ok(image)
            }
            PullOutcome::Refused { latency, message } => {
                tokio::time::sleep(latency).await;
                Err(ImageError::Pull { reference: reference.to_owned(), source: message.into() })
            }
            PullOutcome::Unreachable { latency } => {
                tokio::time::sleep(latency).await;
                let registry = reference.split('/').next().unwrap_or_default().to_owned();
                let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                Err(ImageError::RegistryUnavailable { registry, source: refused.into() })
            }
        }
    }

    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let shelf = self.shelf();
        let found = shelf.present.values().find(|image| {
            image.id.0 == reference || image.tags.iter().chain(&image.digests).any(|name| name == reference)
        });
        Ok(found.cloned())
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.shelf().present.values().cloned().collect())
    }

    async fn remove(&self, image: &ImageId) -> Result<(), ImageError> {
        self.shelf().present.remove(image);
        Ok(())
    }
}

/// Takes so long, a tenth of the bytes after the other.
async fn arrive(reference: &str, size: u64, latency: Duration, progress: &PullProgress) {
    let taken = Arc::new(AtomicU64::new(0));
    progress.begin(reference.split_once('/').map_or("docker.io", |(registry, _)| registry));
    progress.part("layer", size, Arc::clone(&taken));
    let steps: u32 = if latency.is_zero() { 1 } else { 10 };
    for step in 1..=steps {
        tokio::time::sleep(latency / steps).await;
        taken.store(size * u64::from(step) / u64::from(steps), Ordering::Relaxed);
    }
}

/// FNV-1a, for identities that are the same in every run.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
