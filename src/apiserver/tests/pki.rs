//! Keys and certificates on disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::Entropy;
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
