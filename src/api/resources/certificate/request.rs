//! What a PKCS #10 request asks for (RFC 2986), and whether issued certificates can be read.
//!
//! Invariant: a [`Request`] exists only of a request that is signed with the key that it names.

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

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

/// An attribute of a subject beside its name and organizations (RFC 5280, appendix A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// A country.
    Country,
    /// A part of an organization.
    OrganizationalUnit,
    /// A town.
    Locality,
    /// A state or province.
    Province,
    /// A street with a number.
    Street,
    /// A postal code.
    PostalCode,
    /// A number that tells bearers of one name apart.
    SerialNumber,
}

impl Attribute {
    /// All that certificates carry; others are left out, as `crypto/x509` of Go does.
    pub const ALL: [Self; 7] = [
        Self::Country,
        Self::OrganizationalUnit,
        Self::Locality,
        Self::Province,
        Self::Street,
        Self::PostalCode,
        Self::SerialNumber,
    ];

    /// The last number of the object identifier 2.5.4.n.
    pub fn arc(self) -> u64 {
        match self {
            Self::SerialNumber => 5,
            Self::Country => 6,
            Self::Locality => 7,
            Self::Province => 8,
            Self::Street => 9,
            Self::OrganizationalUnit => 11,
            Self::PostalCode => 17,
        }
    }
}

/// Whom a certificate is to be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The user.
    pub common_name: String,
    /// Its groups.
    pub organizations: Vec<String>,
    /// What else is said of the user.
    pub attributes: Vec<(Attribute, String)>,
    /// Names by which a server is reached.
    pub names: Vec<String>,
    /// Addresses by which a server is reached.
    pub addresses: Vec<IpAddr>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// Names of services and the like.
    pub uris: Vec<String>,
    /// The key that is to be certified: a SubjectPublicKeyInfo (RFC 5280, section 4.1), DER.
    pub public_key: Vec<u8>,
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
        let info = &request.certification_request_info;
        let subject = &info.subject;
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
            attributes: attributes(subject),
            public_key: info.subject_pki.raw.to_vec(),
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
            GeneralName::IPAddress(octets) => self.addresses.extend(address(octets)),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            // Names of other forms are left out of certificates.
            _ => {}
        }
    }
}

fn attributes(subject: &X509Name<'_>) -> Vec<(Attribute, String)> {
    let mut found = Vec::new();
    for attribute in Attribute::ALL {
        let Ok(oid) = Oid::from(&[2, 5, 4, attribute.arc()]) else { continue };
        let values = subject.iter_by_oid(&oid).filter_map(|value| value.as_str().ok());
        found.extend(values.map(|value| (attribute, value.to_owned())));
    }
    found
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// When the first certificate of a text ends; none if it cannot be read.
pub fn end_of(text: &[u8]) -> Option<Timestamp> {
    validity_of(text).map(|(_, end)| end)
}

/// When the first certificate of a text begins and ends; none if it cannot be read.
pub fn validity_of(text: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let block = Pem::iter_from_buffer(text).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    let validity = certificate.validity();
    let moment = |time: i64| Timestamp::from_second(time).ok();
    Some((moment(validity.not_before.timestamp())?, moment(validity.not_after.timestamp())?))
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
