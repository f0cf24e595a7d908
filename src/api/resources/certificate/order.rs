//! What the cluster's authority is ordered to sign: a request with what its signer allows.
//!
//! Between the controller that decides about requests and the authority that has the key, which know nothing of each other.

use std::time::Duration;

use super::request::Request;

/// What a certificate may be used for, of what the built-in signers allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Signing, as every handshake of TLS 1.3 needs.
    DigitalSignature,
    /// Encrypting keys, as TLS 1.2 with RSA needs.
    KeyEncipherment,
    /// Being a client of TLS.
    ClientAuth,
    /// Being a server of TLS.
    ServerAuth,
}

impl Usage {
    /// From the word in a request; none for what no built-in signer allows.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "digital signature" => Some(Self::DigitalSignature),
            "key encipherment" => Some(Self::KeyEncipherment),
            "client auth" => Some(Self::ClientAuth),
            "server auth" => Some(Self::ServerAuth),
            _ => None,
        }
    }
}

/// A certificate to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whom it is for.
    pub request: Request,
    /// What it may be used for.
    pub usages: Vec<Usage>,
    /// How long it is valid at most.
    pub lifetime: Duration,
}
