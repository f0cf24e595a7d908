//! The TLS side of the HTTPS transport: whom we trust and how we prove who we are.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{HttpsConfig, Identity};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The address is no `https` URL.
    #[error("{server:?} is no https URL")]
    Server {
        /// The address.
        server: String,
    },
    /// A name that no certificate can have.
    #[error("{name:?} is no server name")]
    Name {
        /// The name.
        name: String,
    },
    /// Something is no PEM.
    #[error("cannot read {what}")]
    Pem {
        /// What was to be read.
        what: &'static str,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// There is no authority to trust.
    #[error("no certificate authority is given")]
    NoAuthority,
    /// A certificate or key that cannot be used.
    #[error("cannot use {what}")]
    Unusable {
        /// What.
        what: &'static str,
        #[source]
        source: rustls::Error,
    },
}

pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, HttpsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| HttpsError::Name { name: name.to_owned() })
}

pub(super) fn client_config(config: &HttpsConfig) -> Result<Arc<rustls::ClientConfig>, HttpsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority", &config.ca)? {
        roots.add(certificate).map_err(|source| HttpsError::Unusable { what: "certificate authority", source })?;
    }
    if roots.is_empty() {
        return Err(HttpsError::NoAuthority);
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| HttpsError::Unusable { what: "TLS versions", source })?
        .with_root_certificates(roots);
    let mut tls = match &config.identity {
        Identity::Certificate { chain, key } => {
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|source| HttpsError::Pem { what: "client key", source })?;
            builder
                .with_client_auth_cert(certificates("client certificate", chain)?, key)
                .map_err(|source| HttpsError::Unusable { what: "client certificate", source })?
        }
        Identity::Anonymous | Identity::Token(_) | Identity::TokenFile(_) => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|source| HttpsError::Pem { what, source })
}
