//! Certificates of users and servers, written out and signed (RFC 5280, section 4.1).
//!
//! Written here because rcgen's names hold one organization, while a user may be in many groups. Invariants: nothing of a
//! request reaches its certificate but what [`Order`] names; no certificate made here can sign others.

use std::net::IpAddr;

use api::resources::certificate::order::{Order, Usage};
use api::resources::certificate::request::{Attribute, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, SigningKey};
use x509_parser::prelude::X509Certificate;
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{DERWriter, DERWriterSeq, Tag};

/// Arcs of the object identifiers 2.5.29.n of extensions (RFC 5280, section 4.2.1).
const KEY_USAGE: u64 = 15;
const ALTERNATIVE_NAME: u64 = 17;
const BASIC_CONSTRAINTS: u64 = 19;
const AUTHORITY_KEY: u64 = 35;
const EXTENDED_USAGE: u64 = 37;
/// Arcs of the object identifiers 2.5.4.n of a subject.
const COMMON_NAME: u64 = 3;
const ORGANIZATION: u64 = 10;
/// From this year on the other form of time is used (RFC 5280, section 4.1.2.5).
const LATER_FORM: i16 = 2050;

/// Why a certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// A name that no certificate can carry: RFC 5280 asks for ASCII.
    #[error("{0:?} cannot be named in a certificate")]
    Name(String),
    /// A key for whose signatures there is no identifier here.
    #[error("the authority's key is of a kind that is not supported: {0:?}")]
    Algorithm(&'static rcgen::SignatureAlgorithm),
    /// The signature failed.
    #[error("the authority's key does not sign")]
    Sign(#[source] rcgen::Error),
}

/// Who signs.
pub(super) struct Signer {
    pub(super) key: KeyPair,
    /// Subject of the authority's certificate, DER.
    name: Vec<u8>,
    /// Identifier of its key, as its certificate has it.
    key_identifier: Option<Vec<u8>>,
}

/// What only this certificate has.
pub(super) struct Particulars {
    pub(super) serial: [u8; 16],
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
}

impl Signer {
    /// The authority with this certificate and key.
    pub(super) fn new(certificate: &X509Certificate<'_>, key: KeyPair) -> Self {
        let key_identifier = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        });
        Self { key, name: certificate.subject().as_raw().to_vec(), key_identifier }
    }

    /// The certificate, PEM.
    pub(super) fn sign(&self, order: &Order, particulars: &Particulars) -> Result<String, LeafError> {
        let request = &order.request;
        let texts = [&request.names, &request.emails, &request.uris].into_iter().flatten();
        if let Some(name) = texts.into_iter().find(|name| name.is_empty() || !name.is_ascii()) {
            return Err(LeafError::Name(name.clone()));
        }
        let (algorithm, has_null) = algorithm(self.key.algorithm())?;
        let algorithm = |writer: DERWriter<'_>| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(algorithm));
                if has_null {
                    writer.next().write_null();
                }
            });
        };
        let content = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                // Version 3.
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&particulars.serial, true);
                algorithm(writer.next());
                writer.next().write_der(&self.name);
                writer.next().write_sequence(|writer| {
                    time(writer.next(), particulars.begin);
                    time(writer.next(), particulars.end);
                });
                subject(writer.next(), request);
                writer.next().write_der(&request.public_key);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| self.extensions(writer, order));
                });
            });
        });
        let signature = self.key.sign(&content).map_err(LeafError::Sign)?;
        Ok(pem(&yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&content);
                algorithm(writer.next());
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        })))
    }

    fn extensions(&self, writer: &mut DERWriterSeq<'_>, order: &Order) {
        let request = &order.request;
        key_usage(writer, &order.usages);
        extended_usage(writer, &order.usages);
        // No authority.
        extension(writer, BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| {}));
        if let Some(identifier) = &self.key_identifier {
            extension(writer, AUTHORITY_KEY, false, |writer| {
                writer.write_sequence(|writer| {
                    let identifies = |writer: DERWriter<'_>| writer.write_bytes(identifier);
                    writer.next().write_tagged_implicit(Tag::context(0), identifies);
                });
            });
        }
        let texts = [(1, &request.emails), (2, &request.names), (6, &request.uris)];
        if request.addresses.is_empty() && texts.iter().all(|(_, texts)| texts.is_empty()) {
            return;
        }
        // Who has no other name is known by these only.
        let is_critical = request.common_name.is_empty() && request.organizations.is_empty();
        extension(writer, ALTERNATIVE_NAME, is_critical && request.attributes.is_empty(), |writer| {
            writer.write_sequence(|writer| {
                for (form, texts) in texts {
                    for text in texts {
                        let writes = |writer: DERWriter<'_>| writer.write_ia5_string(text);
                        writer.next().write_tagged_implicit(Tag::context(form), writes);
                    }
                }
                for address in &request.addresses {
                    let octets = match address {
                        IpAddr::V4(address) => address.octets().to_vec(),
                        IpAddr::V6(address) => address.octets().to_vec(),
                    };
                    writer.next().write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&octets));
                }
            });
        });
    }
}

/// Identifier of an algorithm, and whether it is written with an empty parameter (RFC 3279, 5758 and 8410).
fn algorithm(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<(&'static [u64], bool), LeafError> {
    if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok((&[1, 2, 840, 10_045, 4, 3, 2], false))
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok((&[1, 2, 840, 10_045, 4, 3, 3], false))
    } else if algorithm == &rcgen::PKCS_ED25519 {
        Ok((&[1, 3, 101, 112], false))
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        Ok((&[1, 2, 840, 113_549, 1, 1, 11], true))
    } else {
        Err(LeafError::Algorithm(algorithm))
    }
}

fn time(writer: DERWriter<'_>, moment: Timestamp) {
    let is_later = moment.to_zoned(jiff::tz::TimeZone::UTC).year() >= LATER_FORM;
    let (tag, form) = if is_later { (TAG_GENERALIZEDTIME, "%Y%m%d%H%M%SZ") } else { (TAG_UTCTIME, "%y%m%d%H%M%SZ") };
    let text = moment.strftime(form).to_string();
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

/// The attributes in the order in which Go writes them (`pkix.Name`).
fn subject(writer: DERWriter<'_>, request: &Request) {
    let of = |wanted: Attribute| {
        let own = request.attributes.iter().filter(move |(attribute, _)| *attribute == wanted);
        own.map(|(attribute, value)| (attribute.arc(), value.as_str()))
    };
    let organizations = request.organizations.iter().map(|value| (ORGANIZATION, value.as_str()));
    let name = Some((COMMON_NAME, request.common_name.as_str())).filter(|(_, name)| !name.is_empty());
    let attributes = of(Attribute::Country)
        .chain(organizations)
        .chain(of(Attribute::OrganizationalUnit))
        .chain(of(Attribute::Locality))
        .chain(of(Attribute::Province))
        .chain(of(Attribute::Street))
        .chain(of(Attribute::PostalCode))
        .chain(name)
        .chain(of(Attribute::SerialNumber));
    writer.write_sequence(|writer| {
        for (arc, value) in attributes {
            writer.next().write_set(|writer| {
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&ObjectIdentifier::from_slice(&[2, 5, 4, arc]));
                    if value.chars().all(is_printable) {
                        writer.next().write_printable_string(value);
                    } else {
                        writer.next().write_utf8_string(value);
                    }
                });
            });
        }
    });
}

/// The alphabet of PrintableString (X.680, section 41.4).
fn is_printable(char: char) -> bool {
    char.is_ascii_alphanumeric() || " '()+,-./:=?".contains(char)
}

fn extension(writer: &mut DERWriterSeq<'_>, arc: u64, is_critical: bool, content: impl FnOnce(DERWriter<'_>)) {
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(&[2, 5, 29, arc]));
        if is_critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(content));
    });
}

fn key_usage(writer: &mut DERWriterSeq<'_>, usages: &[Usage]) {
    let mut bits = 0;
    for usage in usages {
        bits |= match usage {
            Usage::DigitalSignature => 0b1000_0000,
            Usage::KeyEncipherment => 0b0010_0000,
            Usage::ClientAuth | Usage::ServerAuth => 0,
        };
    }
    if bits != 0u8 {
        // Bits at the end that are not set are not written (X.690, section 11.2.2).
        let length = 8 - usize::try_from(bits.trailing_zeros()).unwrap_or_default();
        extension(writer, KEY_USAGE, true, |writer| writer.write_bitvec_bytes(&[bits], length));
    }
}

fn extended_usage(writer: &mut DERWriterSeq<'_>, usages: &[Usage]) {
    let mut purposes: Vec<u64> = usages
        .iter()
        .filter_map(|usage| match usage {
            Usage::ServerAuth => Some(1),
            Usage::ClientAuth => Some(2),
            Usage::DigitalSignature | Usage::KeyEncipherment => None,
        })
        .collect();
    purposes.sort_unstable();
    if purposes.is_empty() {
        return;
    }
    extension(writer, EXTENDED_USAGE, false, |writer| {
        writer.write_sequence(|writer| {
            for purpose in purposes {
                writer.next().write_oid(&ObjectIdentifier::from_slice(&[1, 3, 6, 1, 5, 5, 7, 3, purpose]));
            }
        });
    });
}

/// The text form (RFC 7468).
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
