//! Values that are not to be read from the disk: AES-256-GCM with keys from a file beside the database.
//!
//! Whoever gets the database, a backup or a disk without that file learns nothing of the chosen values; whoever is root on
//! the running host learns everything. In memory values are plain. A value is bound to its key and revision, so that
//! nobody can put one in the place of another. The newest key seals and all open; a value that is plain or of an older key
//! is sealed anew when the store is opened.
//!
//! ```text
//! 0 s e a l e d 1 │ key's id, 8 bytes │ nonce, 12 bytes │ ciphertext and tag
//! ```
//!
//! The first byte tells a sealed value from a plain one, which is text. Nonces are random: NIST SP 800-38D, section 8.3,
//! allows 2^32 values for one key.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{Key, Revision};

const MAGIC: &[u8] = b"\0sealed1";
const ID: usize = 8;
const KEY: usize = 32;

/// Why values cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file holds something else than keys.
    #[error("{} holds no usable keys", path.display())]
    Unusable { path: PathBuf },
    /// The system has no randomness.
    #[error("no random numbers")]
    Random,
    /// A value was sealed with a key that is not there, or has been changed.
    #[error("no key opens {key:?}: restore the file of keys that belongs to this database")]
    Locked { key: Key },
    /// A value cannot be sealed.
    #[error("{key:?} cannot be sealed")]
    Seal { key: Key },
}

struct Sealer {
    id: [u8; ID],
    key: LessSafeKey,
}

/// What is sealed, and with which keys.
pub struct Seal {
    /// The newest first.
    keys: Vec<Sealer>,
    prefix: String,
    random: SystemRandom,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Seal {
    /// Seals what is below a prefix with the keys in a file, one a line in base64, the newest first; the file is made
    /// (mode 0600) with one key if there is none. Keys are changed by putting a line before the others.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path, prefix: &str) -> Result<Self, SealError> {
        let random = SystemRandom::new();
        let at = |operation| {
            let path = path.to_owned();
            move |source| SealError::File { operation, path, source }
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => {
                std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(at("narrow"))?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY];
                random.fill(&mut key).map_err(|_| SealError::Random)?;
                let text = format!("{}\n", STANDARD.encode(key));
                write_new(path, &text).map_err(at("write"))?;
                text
            }
            Err(error) => return Err(at("read")(error)),
        };
        let keys: Option<Vec<Sealer>> = text.lines().filter(|line| !line.is_empty()).map(Sealer::parse).collect();
        let keys = keys.filter(|keys| !keys.is_empty());
        let keys = keys.ok_or_else(|| SealError::Unusable { path: path.to_owned() })?;
        Ok(Self { keys, prefix: prefix.to_owned(), random })
    }

    /// The form of a value on the disk; none if it is kept as it is.
    pub(crate) fn seal(&self, key: &Key, revision: Revision, value: &Bytes) -> Result<Option<Vec<u8>>, SealError> {
        if !key.0.starts_with(&self.prefix) {
            return Ok(None);
        }
        let failed = |_| SealError::Seal { key: key.clone() };
        let newest = self.keys.first().ok_or_else(|| SealError::Seal { key: key.clone() })?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut text = value.to_vec();
        let bound = Aad::from(bound(key, revision));
        newest.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text).map_err(failed)?;
        Ok(Some([MAGIC, &newest.id, &nonce, &text].concat()))
    }

    /// The plain value of what is on the disk.
    pub(crate) fn unseal(&self, key: &Key, revision: Revision, stored: &[u8]) -> Result<Unsealed, SealError> {
        let Some(rest) = stored.strip_prefix(MAGIC) else {
            return Ok(Unsealed { value: None, is_stale: key.0.starts_with(&self.prefix) });
        };
        let locked = || SealError::Locked { key: key.clone() };
        let (id, rest) = rest.split_at_checked(ID).ok_or_else(locked)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(locked)?;
        let position = self.keys.iter().position(|own| own.id == id).ok_or_else(locked)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| locked())?;
        let mut text = text.to_vec();
        let opened = self.keys[position].key.open_in_place(nonce, Aad::from(bound(key, revision)), &mut text);
        let value = Bytes::copy_from_slice(opened.map_err(|_| locked())?);
        Ok(Unsealed { value: Some(value), is_stale: position > 0 })
    }
}

/// What is behind a value on the disk.
pub(crate) struct Unsealed {
    /// The plain value; none if it is that already.
    pub(crate) value: Option<Bytes>,
    /// Whether it is to be sealed anew.
    pub(crate) is_stale: bool,
}

impl Sealer {
    fn parse(line: &str) -> Option<Self> {
        let bytes = STANDARD.decode(line.trim()).ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        let id = digest(&SHA256, &bytes).as_ref().get(..ID)?.try_into().ok()?;
        Some(Self { id, key })
    }
}

/// What a sealed value belongs to.
fn bound(key: &Key, revision: Revision) -> Vec<u8> {
    [&revision.0.to_be_bytes(), key.0.as_bytes()].concat()
}

/// Writes a file that is whole and on the disk before anything is sealed with what it holds.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // What a crash has left may be readable by others; a new file is made, never an old one opened.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
