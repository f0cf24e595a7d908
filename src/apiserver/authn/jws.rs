//! Compact JSON Web Signatures (RFC 7515) with ES256 (RFC 7518, section 3.4), and the keys that make and check them.
//!
//! The newest key signs and all check, so that tokens outlive a change of keys. A key's id is the hash of its public half,
//! as upstream (`keyIDFromPublicKey` of `pkg/serviceaccount/jwt.go`). It deliberately knows one algorithm: a token that
//! names another, or none, is refused before anything of it is read (RFC 8725, section 3.1).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pki::{read_private, write_private};

const ALGORITHM: &str = "ES256";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
/// How long a key signs.
const AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Longest token that is looked at; those that are made here have less than 2 KiB.
const LONGEST: usize = 16 * 1024;

/// Why signing keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file's keys cannot be used; new ones would end every token that there is.
    #[error("{} holds no usable keys; restore it, or remove it to make another and end all tokens", path.display())]
    Unusable { path: PathBuf },
    /// A key could not be made.
    #[error("cannot make a key")]
    Generate(#[source] rcgen::Error),
}

/// When a file was written last.
fn written(path: &Path) -> std::io::Result<Timestamp> {
    let modified = std::fs::metadata(path)?.modified()?;
    Timestamp::try_from(modified).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// One pair of keys.
struct Key {
    id: String,
    pair: EcdsaKeyPair,
    /// The uncompressed point: 4, x, y.
    public: Vec<u8>,
}

/// The keys of one issuer, the newest first.
pub struct SigningKeys {
    newest: Key,
    older: Vec<Key>,
    random: SystemRandom,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|key| &key.id)).finish()
    }
}

impl SigningKeys {
    /// Keys that are kept nowhere.
    ///
    /// # Errors
    /// If none can be made.
    pub fn generate() -> Result<Self, KeyError> {
        let text = KeyPair::generate().map_err(KeyError::Generate)?.serialize_pem();
        Self::parse(&text).ok_or_else(|| KeyError::Unusable { path: PathBuf::new() })
    }

    /// The keys in a file (PKCS #8, PEM, the newest first), which is made with one key if there is none. If the newest
    /// is [`AGE`] old, another is put before it. None is dropped: the tokens of Secrets have no end, and whoever takes a
    /// key out of the file ends what it has signed.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, KeyError> {
        let at = |operation| {
            let path = path.to_owned();
            move |source| KeyError::File { operation, path, source }
        };
        let kept = read_private(path).map_err(at("read"))?;
        let unusable = || KeyError::Unusable { path: path.to_owned() };
        let old = kept.as_deref().map(|text| Self::parse(text).ok_or_else(unusable)).transpose()?;
        if let Some(keys) = old
            && written(path).map_err(at("read"))? + AGE > now
        {
            return Ok(keys);
        }
        let fresh = KeyPair::generate().map_err(KeyError::Generate)?.serialize_pem();
        let text = format!("{fresh}{}", kept.unwrap_or_default());
        write_private(path, text.as_bytes()).map_err(at("write"))?;
        Self::parse(&text).ok_or_else(unusable)
    }

    fn parse(text: &str) -> Option<Self> {
        let blocks = text.split(BEGIN).skip(1).map(|rest| Key::parse(&format!("{BEGIN}{rest}")));
        let mut keys = blocks.collect::<Option<Vec<Key>>>()?.into_iter();
        Some(Self { newest: keys.next()?, older: keys.collect(), random: SystemRandom::new() })
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    /// A token with these claims; none if the kernel has no randomness.
    pub(super) fn sign(&self, claims: &str) -> Option<String> {
        let header = json!({ "alg": ALGORITHM, "kid": self.newest.id });
        let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()));
        let signature = self.newest.pair.sign(&self.random, text.as_bytes()).ok()?;
        Some(format!("{text}.{}", encode(signature.as_ref())))
    }

    /// The claims of a token that one of the keys has signed.
    pub(super) fn verify(&self, token: &Compact<'_>) -> Option<Vec<u8>> {
        if token.header.alg != ALGORITHM || token.header.crit.is_some() {
            return None;
        }
        let named = |key: &&Key| token.header.kid.as_ref().is_none_or(|id| *id == key.id);
        let checks = |key: &Key| {
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.public);
            public.verify(token.signed.as_bytes(), &token.signature).is_ok()
        };
        self.all().filter(named).any(checks).then(|| token.claims.clone())
    }

    /// The public halves as a JSON Web Key Set (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        let keys = self.all().map(|key| {
            let (x, y) = key.public[1..].split_at(32);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": ALGORITHM,
                "x": encode(x), "y": encode(y),
            })
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// The algorithms of all keys.
    pub(crate) fn algorithms() -> [&'static str; 1] {
        [ALGORITHM]
    }
}

impl Key {
    fn parse(pem: &str) -> Option<Self> {
        let both = KeyPair::from_pem(pem).ok()?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, both.serialized_der(), &random).ok()?;
        let public = both.public_key_raw().to_vec();
        let id = encode(digest(&SHA256, &both.subject_public_key_info()).as_ref());
        (public.len() == 65 && public.first() == Some(&4)).then_some(Self { id, pair, public })
    }
}

/// The header of a token, as far as it is understood.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Names what a reader must understand (RFC 7515, section 4.1.11); nothing such is understood here.
    crit: Option<Value>,
}

/// The parts of a token, of which nothing has been checked yet.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    signed: &'a str,
    header: Header,
    /// What it says; not to be believed before its signature has been checked.
    pub(super) claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart; none if it is none.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            signed,
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(keys: &SigningKeys, token: &str) -> Option<Vec<u8>> {
        Compact::parse(token).and_then(|token| keys.verify(&token))
    }

    #[test]
    fn what_was_signed_is_read_back_and_what_was_changed_is_not() {
        let keys = SigningKeys::generate().unwrap();
        let token = keys.sign("{\"a\":1}").unwrap();
        assert_eq!(verified(&keys, &token).unwrap(), b"{\"a\":1}");
        assert!(verified(&SigningKeys::generate().unwrap(), &token).is_none());
        let parts: Vec<&str> = token.split('.').collect();
        let other = format!("{}.{}.{}", parts[0], encode(b"{\"a\":2}"), parts[2]);
        assert!(verified(&keys, &other).is_none());
        for end in 0..token.len() {
            assert!(verified(&keys, &token[..end]).is_none());
        }
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let keys = SigningKeys::generate().unwrap();
        let token = keys.sign("{}").unwrap();
        let signature = token.rsplit('.').next().unwrap();
        for header in ["{\"alg\":\"none\"}", "{\"alg\":\"HS256\"}", "{\"alg\":\"ES256\",\"crit\":[\"b64\"]}", "{}", "x"]
        {
            for signature in ["", signature] {
                let token = format!("{}.{}.{signature}", encode(header.as_bytes()), encode(b"{}"));
                assert!(verified(&keys, &token).is_none(), "{header}");
            }
        }
    }

    #[test]
    fn tokens_outlive_a_change_of_keys_and_the_newest_key_signs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service-accounts.pem");
        let now = "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap();
        let open = |now| {
            let keys = SigningKeys::open(&path, now).unwrap();
            std::fs::File::open(&path).unwrap().set_modified(now.into()).unwrap();
            keys
        };
        let first = open(now);
        let token = first.sign("{}").unwrap();
        assert_eq!(open(now + AGE / 2).key_set(), first.key_set());
        let second = open(now + AGE * 2);
        assert!(verified(&second, &token).is_some());
        let newer = second.sign("{}").unwrap();
        assert!(verified(&first, &newer).is_none());
        assert_eq!(second.key_set()["keys"].as_array().unwrap().len(), 2);
        assert!(verified(&open(now + AGE * 2), &newer).is_some());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_no_keys_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service-accounts.pem");
        std::fs::write(&path, "nonsense").unwrap();
        let opened = SigningKeys::open(&path, "2026-01-02T03:04:05Z".parse().unwrap());
        assert!(matches!(opened, Err(KeyError::Unusable { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
