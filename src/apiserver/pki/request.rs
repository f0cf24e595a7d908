//! Asking an authority elsewhere for a certificate: a key of one's own, and the request for it (RFC 2986).
//!
//! The key never leaves the machine that made it.

use std::net::IpAddr;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::Credential;

/// Why no request could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask for a certificate of {user:?}")]
pub struct RequestError {
    user: String,
    #[source]
    source: rcgen::Error,
}

/// A key whose certificate has been asked for.
pub struct Asked {
    /// The request, PEM.
    pub request: String,
    key: String,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("request", &self.request).field("key", &"redacted").finish()
    }
}

impl Asked {
    /// A new key for a user of a group, reachable under these names and addresses if it is a server.
    ///
    /// # Errors
    /// If a name cannot stand in a request.
    pub fn new(user: &str, group: &str, names: &[String], addresses: &[IpAddr]) -> Result<Self, RequestError> {
        let failed = |source| RequestError { user: user.to_owned(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        let names = names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let names = names.collect::<Result<Vec<_>, rcgen::Error>>().map_err(failed)?;
        let addresses = addresses.iter().map(|address| SanType::IpAddress(*address));
        params.subject_alt_names = names.into_iter().chain(addresses).collect();
        let key = KeyPair::generate().map_err(failed)?;
        let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        Ok(Self { request, key: key.serialize_pem() })
    }

    /// The key with the certificate that was issued for it.
    pub fn issued(self, certificate: String) -> Credential {
        Credential::new(certificate, self.key)
    }
}
