//! Keys and certificates on disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use api::resources::certificate::order::{Order, Usage};
use api::resources::certificate::request::{Attribute, Request};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Entropy;
use crate::authn::certificate_user;
use crate::pki::{Kubeconfig, Pki, PkiError, Subject, write_private};

const DAY: Duration = Duration::from_secs(86400);

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn open(directory: &Path, now: Timestamp) -> Pki {
    Pki::open(directory, now, &Entropy::system()).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn credentials_are_reused_until_shortly_before_their_end() {
    let directory = tempfile::tempdir().unwrap();
    let admin = Subject::client("admin", &["system:masters"]);
    let first = open(directory.path(), now()).credential("admin", &admin, now()).unwrap();
    let later = now() + DAY * 200;
    let same = open(directory.path(), later).credential("admin", &admin, later).unwrap();
    assert_eq!(first.certificate, same.certificate);
    let late = now() + DAY * 300;
    let renewed = open(directory.path(), late).credential("admin", &admin, late).unwrap();
    assert_ne!(first.certificate, renewed.certificate);
}

#[test]
fn another_subject_gets_another_credential() {
    let directory = tempfile::tempdir().unwrap();
    let pki = open(directory.path(), now());
    let server = |addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        pki.credential("server", &Subject::api_server("n1", &addresses), now()).unwrap().certificate
    };
    let first = server(&["10.43.0.1"]);
    assert_eq!(server(&["10.43.0.1"]), first);
    let wider = server(&["10.43.0.1", "192.0.2.7"]);
    assert_ne!(wider, first);
    assert_eq!(server(&["10.43.0.1"]), wider, "a certificate that covers more is as good");
}

#[test]
fn files_are_private_even_if_they_were_not() {
    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("pki");
    std::fs::create_dir(&pki).unwrap();
    std::fs::set_permissions(&pki, PermissionsExt::from_mode(0o755)).unwrap();
    open(&pki, now()).credential("admin", &Subject::client("admin", &[]), now()).unwrap();
    assert_eq!(mode(&pki), 0o700);
    for file in ["ca.pem", "admin.pem"] {
        assert_eq!(mode(&pki.join(file)), 0o600);
        std::fs::set_permissions(pki.join(file), PermissionsExt::from_mode(0o644)).unwrap();
    }
    open(&pki, now()).credential("admin", &Subject::client("admin", &[]), now()).unwrap();
    assert_eq!((mode(&pki.join("ca.pem")), mode(&pki.join("admin.pem"))), (0o600, 0o600));
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, "old").unwrap();
    write_private(&file, b"new").unwrap();
    assert_eq!((mode(&file), std::fs::read_to_string(&file).unwrap().as_str()), (0o600, "new"));
}

#[test]
fn an_unusable_authority_is_an_error_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), now());
    let late = now() + DAY * 4000;
    let error = Pki::open(directory.path(), late, &Entropy::system()).unwrap_err();
    assert!(matches!(error, PkiError::AuthorityExpired { .. }), "{error}");
    write_private(&directory.path().join("ca.pem"), b"nonsense").unwrap();
    let error = Pki::open(directory.path(), now(), &Entropy::system()).unwrap_err();
    assert!(matches!(error, PkiError::Authority { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(directory.path().join("ca.pem")).unwrap(), "nonsense");
}

#[test]
fn credentials_of_an_earlier_authority_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let subject = Subject::client("admin", &[]);
    let first = open(directory.path(), now()).credential("admin", &subject, now()).unwrap();
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    let later = now() + Duration::from_secs(60);
    let second = open(directory.path(), later).credential("admin", &subject, later).unwrap();
    assert_ne!(first.certificate, second.certificate);
}

#[test]
fn a_kubeconfig_embeds_all_and_debug_output_shows_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let pki = open(directory.path(), now());
    let credential = pki.mint(&Subject::client("admin", &["system:masters"]), now()).unwrap();
    let config = Kubeconfig {
        server: "https://127.0.0.1:6443",
        cluster: "coracle",
        user: "admin",
        authority: pki.certificate(),
        credential: &credential,
    };
    let document: serde_json::Value = serde_json::from_str(&config.render()).unwrap();
    assert_eq!(document["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    assert_eq!(document["current-context"], "coracle");
    assert!(document["users"][0]["user"]["client-key-data"].is_string());
    assert!(!format!("{credential:?} {config:?}").contains("PRIVATE KEY"));
}

/// An order of everything that can be said.
fn order() -> Order {
    let request = Request {
        common_name: "Jäne".to_owned(),
        organizations: vec!["dev".to_owned(), "ops".to_owned(), "dev:a_b".to_owned()],
        attributes: vec![(Attribute::OrganizationalUnit, "unit".to_owned()), (Attribute::Country, "NL".to_owned())],
        names: vec!["n1.example.org".to_owned()],
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        emails: vec!["jane@example.org".to_owned()],
        uris: vec!["spiffe://example.org/jane".to_owned()],
        public_key: KeyPair::generate().unwrap().subject_public_key_info(),
    };
    Order { request, usages: vec![Usage::ClientAuth, Usage::DigitalSignature], lifetime: DAY }
}

fn der(text: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
}

#[test]
fn an_issued_certificate_says_what_was_ordered_and_signs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pki = open(directory.path(), now());
    let order = order();
    let (issued, authority) = (der(&pki.issue(&order, now()).unwrap()), der(pki.certificate()));
    let user = certificate_user(&issued).unwrap();
    assert_eq!(
        (user.username.as_str(), &user.groups[..3]),
        ("Jäne", &["dev", "ops", "dev:a_b"].map(str::to_owned)[..])
    );
    let (rest, read) = X509Certificate::from_der(&issued).unwrap();
    let (_, authority) = X509Certificate::from_der(&authority).unwrap();
    assert!(rest.is_empty() && read.verify_signature(Some(authority.public_key())).is_ok());
    assert_eq!(read.issuer().as_raw(), authority.subject().as_raw());
    assert_eq!(read.subject().to_string(), "C=NL, O=dev, O=ops, O=dev:a_b, OU=unit, CN=Jäne");
    assert_eq!(read.public_key().raw, order.request.public_key);
    assert!(!read.is_ca() && read.serial > 0u8.into());
    let usage = read.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.key_encipherment());
    let purposes = read.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
    let names = &read.subject_alternative_name().unwrap().unwrap().value.general_names;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let expected = [
        "RFC822Name(jane@example.org)",
        "DNSName(n1.example.org)",
        "URI(spiffe://example.org/jane)",
        "IPAddress(c0:00:02:01)",
        "IPAddress(20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01)",
    ];
    assert_eq!(names, expected);
}

#[test]
fn an_issued_certificate_lasts_as_ordered_and_no_longer_than_the_authority() {
    let directory = tempfile::tempdir().unwrap();
    let pki = open(directory.path(), now());
    let validity = |lifetime, now: Timestamp| {
        let issued = der(&pki.issue(&Order { lifetime, ..order() }, now).unwrap());
        let (_, read) = X509Certificate::from_der(&issued).unwrap();
        let seconds = |moment: i64| moment - now.as_second();
        (seconds(read.validity().not_before.timestamp()), seconds(read.validity().not_after.timestamp()))
    };
    assert_eq!(validity(Duration::from_secs(600), now()), (-300, 600));
    assert_eq!(validity(DAY, now()), (-300, 86_400 - 300));
    let late = now() + DAY * 3649;
    assert_eq!(validity(DAY * 365, late), (-300, 86_400));
    let error = pki.issue(&order(), now() + DAY * 3650).unwrap_err();
    assert!(matches!(error, PkiError::AuthorityExpired { .. }), "{error}");
    let mut strange = order();
    strange.request.names.push("exämple.org".to_owned());
    assert!(matches!(pki.issue(&strange, now()).unwrap_err(), PkiError::Sign { .. }));
}

#[test]
fn a_client_in_several_groups_keeps_all_of_them_and_its_credential() {
    let directory = tempfile::tempdir().unwrap();
    let pki = open(directory.path(), now());
    let subject = Subject::client("robot", &["one", "two"]);
    let first = pki.credential("robot", &subject, now()).unwrap();
    assert_eq!(certificate_user(&der(&first.certificate)).unwrap().groups, ["one", "two", "system:authenticated"]);
    assert_eq!(pki.credential("robot", &subject, now()).unwrap().certificate, first.certificate);
}
