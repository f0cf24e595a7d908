//! Getting to know a cluster's authority by nothing but the fingerprint of its certificate.
//!
//! A machine that joins has a token with that fingerprint. The server shows its authority's certificate in the handshake;
//! it is taken if it has the fingerprint and the server's own certificate is of it and for the name that was asked for. So
//! nothing is ever sent to, or believed of, a server that has not proved itself.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{HttpsError, place, split, tls};
use crate::transport::BoxError;

/// How long getting to know it may take.
const PATIENCE: Duration = Duration::from_secs(10);
const ALGORITHM: &str = "sha256:";

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it; written `sha256:<64 digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// The text is no fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not sha256: and 64 hexadecimal digits")]
pub struct FingerprintError {
    text: String,
}

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// That of the first certificate in a text; none if there is none.
    pub fn of_pem(text: &[u8]) -> Option<Self> {
        Some(Self::of(&CertificateDer::from_pem_slice(text).ok()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let error = || FingerprintError { text: text.to_owned() };
        let digits = text.strip_prefix(ALGORITHM).filter(|digits| digits.len() == 64).ok_or_else(error)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            // A sign would be taken for part of a number.
            let is_plain = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| is_plain).ok_or_else(error)?;
        }
        Ok(Self(bytes))
    }
}

/// Why an authority could not be got to know.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] HttpsError),
    /// The server does not answer, or is not who it should be.
    #[error("cannot get to know the authority of {server}")]
    Handshake {
        /// Its address.
        server: String,
        #[source]
        source: BoxError,
    },
}

/// The certificate (PEM) with this fingerprint, if a server that is known by its address proves that it is of that authority.
///
/// # Errors
/// If the server does not answer or does not prove it.
pub async fn authority(server: &str, pin: Fingerprint) -> Result<String, AuthorityError> {
    let (_, at) = split(server)?;
    let (host, port) = place(&at);
    let name = tls::server_name(&host)?;
    let provider = Arc::new(provider::default_provider());
    let verifier = Arc::new(Pinned { pin, provider: Arc::clone(&provider), found: Mutex::new(None) });
    let refused = |source: BoxError| AuthorityError::Handshake { server: server.to_owned(), source };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let greet = async {
        let stream = TcpStream::connect((host, port)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let met = tokio::time::timeout(PATIENCE, greet).await.map_err(|late| refused(late.into()))?;
    met.map_err(|error| refused(error.into()))?;
    let found = verifier.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    found.map(|found| pem(&found)).ok_or_else(|| refused("the server showed no certificate".into()))
}

/// Believes a certificate of the authority that has the fingerprint.
#[derive(Debug)]
struct Pinned {
    pin: Fingerprint,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let general = |text: &str| rustls::Error::General(text.to_owned());
        let authority = chain.iter().find(|certificate| Fingerprint::of(certificate) == self.pin);
        let authority =
            authority.ok_or_else(|| general("the server is not of the authority whose fingerprint is known"))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|error| general(&error.to_string()))?;
        let verified = verifier.verify_server_cert(certificate, &[], name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The text form of a certificate (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body = lines.map(|line| format!("{line}\n")).collect::<String>();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_and_in_no_other_way() {
        let own = Fingerprint::of(b"certificate");
        assert_eq!(own.to_string().parse(), Ok(own));
        let digits = &own.to_string()[ALGORITHM.len()..];
        for wrong in [digits.to_owned(), format!("sha256:{}", &digits[1..]), format!("sha256:+{}", &digits[1..])] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_is_the_same_in_its_text_form() {
        let der = CertificateDer::from(vec![7; 200]);
        assert_eq!(Fingerprint::of_pem(pem(&der).as_bytes()), Some(Fingerprint::of(&der)));
    }
}
