//! Minting, reading back and renewing certificates.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::resources::certificate::order::{Order, Usage};
use api::resources::certificate::request::{Request, validity_of};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files;
use super::leaf::{LeafError, Particulars, Signer};
use crate::entropy::Entropy;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_DAYS: u32 = 3650;
const LEAF_DAYS: u32 = 365;
/// A leaf with less left than this is replaced when it is asked for.
const RENEWAL_DAYS: u32 = 90;
/// How far clocks of peers may be behind ours.
const SKEW: Duration = Duration::from_secs(60 * 60);
/// The same for what others ask for, as `pkg/controller/certificates/signer` has it …
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// … which is taken from the end of a certificate unless that is shorter than this.
const SHORT: Duration = Duration::from_secs(8 * 60 * 60);

/// Why a key or certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The stored authority cannot be read; minting another one would lock every client out.
    #[error("{} holds no usable certificate authority; restore it, or remove it to mint another and renew all credentials", path.display())]
    Authority { path: PathBuf },
    /// The authority has run out, or will before the certificate that is asked for could be useful.
    #[error("the certificate authority in {} ends at {end}; remove it to mint another and renew all credentials", path.display())]
    AuthorityExpired { path: PathBuf, end: Timestamp },
    /// Key generation or the signature of an authority failed.
    #[error("cannot mint the certificate of {subject:?}")]
    Mint {
        subject: String,
        #[source]
        source: rcgen::Error,
    },
    /// A certificate could not be signed.
    #[error("cannot sign the certificate of {subject:?}")]
    Sign {
        subject: String,
        #[source]
        source: LeafError,
    },
    /// TLS does not take the certificate or the key.
    #[error("the credentials are not usable for TLS")]
    Tls(#[source] rustls::Error),
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Credential {
    /// The certificate, PEM.
    pub certificate: String,
    key: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("certificate", &self.certificate).field("key", &"redacted").finish()
    }
}

impl Credential {
    /// The private key, PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The certificate that somebody has issued for a key.
    pub(super) fn new(certificate: String, key: String) -> Self {
        Self { certificate, key }
    }

    /// What a file holds that [`Credential::keep`] has written; none if it is absent or damaged.
    ///
    /// # Errors
    /// What the file system says.
    pub fn kept(path: &Path) -> io::Result<Option<Self>> {
        Ok(files::read_private(path)?.and_then(|text| split(&text)))
    }

    /// Replaces a file, which nobody else may read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        files::write_private(path, join(self).as_bytes())
    }

    /// When the certificate begins and ends.
    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        validity_of(self.certificate.as_bytes())
    }

    /// Both in the form that rustls takes; none if the text is not PEM.
    pub fn to_der(&self) -> Option<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        Some((certificate, key))
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A client: user name and groups, as the API server's authentication reads them from CN and O.
    Client { user: String, groups: Vec<String> },
    /// A server, reachable under these names and addresses.
    Server { common_name: String, names: Vec<String>, addresses: Vec<IpAddr> },
}

impl Subject {
    /// A client in groups.
    pub fn client(user: &str, groups: &[&str]) -> Self {
        Self::Client { user: user.to_owned(), groups: groups.iter().map(|&group| group.to_owned()).collect() }
    }

    /// The API server: the names that pods and neighbours use, the node's own name, and the given addresses
    /// (loopback is added; give the host's addresses and the first address of the service range).
    pub fn api_server(node_name: &str, addresses: &[IpAddr]) -> Self {
        let mut names: Vec<String> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .into();
        names.push(node_name.to_owned());
        let mut all: Vec<IpAddr> =
            vec![IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
        all.extend(addresses);
        all.sort();
        all.dedup();
        Self::Server { common_name: "kube-apiserver".to_owned(), names, addresses: all }
    }

    fn name(&self) -> &str {
        match self {
            Self::Client { user, .. } => user,
            Self::Server { common_name, .. } => common_name,
        }
    }

    /// What is to be signed for it.
    fn order(&self, public_key: Vec<u8>) -> Order {
        let request = Request { common_name: self.name().to_owned(), public_key, ..Request::default() };
        let (request, usage) = match self.clone() {
            Self::Client { groups, .. } => (Request { organizations: groups, ..request }, Usage::ClientAuth),
            Self::Server { names, addresses, .. } => (Request { names, addresses, ..request }, Usage::ServerAuth),
        };
        Order { request, usages: vec![Usage::DigitalSignature, usage], lifetime: DAY * LEAF_DAYS }
    }
}

/// The authority of a cluster, with its directory of credentials.
pub struct Pki {
    directory: PathBuf,
    certificate: String,
    signer: Signer,
    end: Timestamp,
    entropy: Entropy,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Pki {
    /// Reads the authority in `directory`, or mints it if there is none.
    ///
    /// # Errors
    /// If the directory or its files cannot be used, or the authority that is there is unusable or has run out.
    pub fn open(directory: &Path, now: Timestamp, entropy: &Entropy) -> Result<Self, PkiError> {
        let at = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::File { operation, path, source }
        };
        files::private_directory(directory).map_err(at("make", directory))?;
        let path = directory.join("ca.pem");
        let pair = match files::read_private(&path).map_err(at("read", &path))? {
            Some(text) => split(&text).ok_or_else(|| PkiError::Authority { path: path.clone() })?,
            None => {
                let pair = mint_authority(now, entropy)?;
                files::write_private(&path, join(&pair).as_bytes()).map_err(at("write", &path))?;
                pair
            }
        };
        let unusable = || PkiError::Authority { path: path.clone() };
        let key = KeyPair::from_pem(pair.key()).map_err(|_| unusable())?;
        let (der, _) = pair.to_der().ok_or_else(unusable)?;
        let facts = Facts::read(&der).ok_or_else(unusable)?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(unusable());
        }
        if facts.end <= now {
            return Err(PkiError::AuthorityExpired { path, end: facts.end });
        }
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable())?;
        let signer = Signer::new(&certificate, key);
        let directory = directory.to_owned();
        Ok(Self { directory, certificate: pair.certificate, signer, end: facts.end, entropy: entropy.clone() })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The credential kept as `<name>.pem`, minted if it is absent, for another subject, of another authority, or
    /// about to end.
    ///
    /// # Errors
    /// If the file cannot be used or minting fails.
    pub fn credential(&self, name: &str, subject: &Subject, now: Timestamp) -> Result<Credential, PkiError> {
        let path = self.directory.join(format!("{name}.pem"));
        let at = |operation| {
            let path = path.clone();
            move |source| PkiError::File { operation, path, source }
        };
        let kept = files::read_private(&path).map_err(at("read"))?.and_then(|text| split(&text));
        if let Some(kept) = kept.filter(|kept| self.is_usable(kept, subject, now)) {
            return Ok(kept);
        }
        let fresh = self.mint(subject, now)?;
        files::write_private(&path, join(&fresh).as_bytes()).map_err(at("write"))?;
        Ok(fresh)
    }

    /// Mints a credential that is kept nowhere.
    ///
    /// # Errors
    /// If the subject cannot be named in a certificate or signing fails.
    pub fn mint(&self, subject: &Subject, now: Timestamp) -> Result<Credential, PkiError> {
        let failed = |source| PkiError::Mint { subject: subject.name().to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let end = std::cmp::min(now + DAY * LEAF_DAYS, self.end);
        let certificate = self.sign(&subject.order(key.subject_public_key_info()), now - SKEW, end)?;
        Ok(Credential { certificate, key: key.serialize_pem() })
    }

    /// Signs what somebody else asked for with a key of their own; the certificate, PEM. It ends with the authority if
    /// that is sooner.
    ///
    /// # Errors
    /// If the authority has run out, something cannot be named in a certificate, or signing fails.
    pub fn issue(&self, order: &Order, now: Timestamp) -> Result<String, PkiError> {
        if now >= self.end {
            return Err(PkiError::AuthorityExpired { path: self.directory.join("ca.pem"), end: self.end });
        }
        let lifetime = if order.lifetime < SHORT { order.lifetime } else { order.lifetime - BACKDATE };
        self.sign(order, now - BACKDATE, std::cmp::min(now + lifetime, self.end))
    }

    fn sign(&self, order: &Order, begin: Timestamp, end: Timestamp) -> Result<String, PkiError> {
        let particulars = Particulars { serial: serial(&self.entropy), begin, end };
        let subject = || order.request.common_name.clone();
        self.signer.sign(order, &particulars).map_err(|source| PkiError::Sign { subject: subject(), source })
    }

    fn is_usable(&self, kept: &Credential, subject: &Subject, now: Timestamp) -> bool {
        let (Some((der, _)), Ok(key)) = (kept.to_der(), KeyPair::from_pem(kept.key())) else { return false };
        let Ok(authority) = CertificateDer::from_pem_slice(self.certificate.as_bytes()) else { return false };
        let (Some(facts), Some(authority)) = (Facts::read(&der), Facts::read(&authority)) else { return false };
        let renewal = std::cmp::min(now + DAY * RENEWAL_DAYS, self.end - DAY);
        facts.issuer == authority.subject
            && facts.public_key == key.subject_public_key_info()
            && facts.end >= renewal
            && facts.carries(subject)
    }
}

fn mint_authority(now: Timestamp, entropy: &Entropy) -> Result<Credential, PkiError> {
    // The moment in the name tells authorities apart, so that what an earlier one issued is not taken for ours.
    let name = format!("coracle-ca@{}", now.as_second());
    let failed = |source| PkiError::Mint { subject: "certificate authority".to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) =
        (epoch + since_epoch(now - SKEW), epoch + since_epoch(now + DAY * AUTHORITY_DAYS));
    params.serial_number = Some(SerialNumber::from_slice(&serial(entropy)));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Credential { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// What a certificate says, as far as reuse depends on it.
struct Facts {
    issuer: Vec<u8>,
    subject: Vec<u8>,
    common_name: String,
    organizations: Vec<String>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    public_key: Vec<u8>,
    end: Timestamp,
}

impl Facts {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (common_name, organizations) = subject_names(&certificate);
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        let alternatives = certificate.subject_alternative_name().ok()?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => addresses.extend(address(octets)),
                _ => {}
            }
        }
        Some(Self {
            issuer: certificate.issuer().as_raw().to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            common_name: common_name.unwrap_or_default(),
            organizations,
            names,
            addresses,
            public_key: certificate.public_key().raw.to_vec(),
            end: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        })
    }

    fn carries(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Client { user, groups } => self.common_name == *user && self.organizations == *groups,
            Subject::Server { common_name, names, addresses } => {
                self.common_name == *common_name
                    && names.iter().all(|name| self.names.contains(name))
                    && addresses.iter().all(|address| self.addresses.contains(address))
            }
        }
    }
}

/// Common name and organizations of a certificate's subject: the user and its groups.
pub(crate) fn subject_names(certificate: &X509Certificate<'_>) -> (Option<String>, Vec<String>) {
    let subject = certificate.subject();
    // The last of several, as Go and whoever reads requests here have it.
    let user = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    (user, groups)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

fn serial(entropy: &Entropy) -> [u8; 16] {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    // RFC 5280 asks for a positive number.
    bytes[0] &= 0x7f;
    bytes[0] |= 0x01;
    bytes
}

/// Time since 1970, which is where dates of certificates are counted from here.
fn since_epoch(moment: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(moment.as_second()).unwrap_or_default())
}

fn join(pair: &Credential) -> String {
    format!("{}{}", pair.certificate, pair.key)
}

/// The two parts of a file that [`join`] made.
fn split(text: &str) -> Option<Credential> {
    let start = text.find("-----BEGIN PRIVATE KEY-----")?;
    let (certificate, key) = text.split_at(start);
    let pair = Credential { certificate: certificate.to_owned(), key: key.to_owned() };
    pair.to_der().is_some().then_some(pair)
}
