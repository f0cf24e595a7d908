//! What a PKCS #10 request asks for (RFC 2986), and whether issued certificates can be read.
//!
//! Invariant: a [`Request`] exists only of a request that is signed with the key that it names.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a request or a certificate is none; the words reach whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not the text form of a request.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoRequest,
    /// The block holds something else.
    #[error("the PEM block holds no PKCS #10 request")]
    Malformed,
    /// Whoever made it does not have the key, or uses an algorithm that is not supported.
    #[error("the signature of the request cannot be verified")]
    Signature,
    /// The text form of a certificate is damaged.
    #[error("malformed PEM data")]
    Pem,
    /// Some other block among certificates.
    #[error("only CERTIFICATE PEM blocks are allowed, found {0:?}")]
    Block(String),
    /// A block that holds no certificate.
    #[error("a CERTIFICATE PEM block holds no X.509 certificate")]
    Certificate,
    /// Text without a block.
    #[error("must contain at least one CERTIFICATE PEM block")]
    Nothing,
}

/// Whom a certificate is to be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The user.
    pub common_name: String,
    /// Its groups.
    pub organizations: Vec<String>,
    /// Names by which a server is reached.
    pub names: Vec<String>,
    /// Addresses by which a server is reached.
    pub addresses: Vec<IpAddr>,
    /// How many other names there are (mail addresses, URIs …).
    pub other_names: usize,
}

impl Request {
    /// Reads the text form and verifies the signature.
    ///
    /// # Errors
    /// If it is no request, or not signed with its own key.
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        let block = Pem::iter_from_buffer(text).next().and_then(Result::ok);
        let block = block.filter(|block| block.label == "CERTIFICATE REQUEST").ok_or(RequestError::NoRequest)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let subject = &request.certification_request_info.subject;
        let mut found = Self {
            // As Go has it, the last of several.
            common_name: subject
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            organizations: subject
                .iter_organization()
                .filter_map(|name| name.as_str().ok())
                .map(str::to_owned)
                .collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(alternatives) = extension {
                alternatives.general_names.iter().for_each(|name| found.add(name));
            }
        }
        Ok(found)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.names.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => match address(octets) {
                Some(address) => self.addresses.push(address),
                None => self.other_names += 1,
            },
            _ => self.other_names += 1,
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// Checks that a text is a chain of certificates and nothing else.
///
/// # Errors
/// If it is not.
pub(super) fn check_certificates(text: &[u8]) -> Result<(), RequestError> {
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(text) {
        let block = block.map_err(|_| RequestError::Pem)?;
        if block.label != "CERTIFICATE" {
            return Err(RequestError::Block(block.label));
        }
        X509Certificate::from_der(&block.contents).map_err(|_| RequestError::Certificate)?;
        blocks += 1;
    }
    if blocks == 0 { Err(RequestError::Nothing) } else { Ok(()) }
}
