//! What is decided about requests.

use jiff::ToSpan;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn ascii(text: &str) -> Ia5String {
    text.try_into().unwrap()
}

/// A request for a user in a group, with these alternative names, that `admin` made.
fn request(signer: &str, user: &str, group: &str, names: Vec<SanType>, usages: &[&str]) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    params.subject_alt_names = names;
    let text = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "r", "creationTimestamp": now().to_string()},
        "spec": {"signerName": signer, "username": "admin", "usages": usages, "request": ""},
    }))
    .unwrap();
    request.spec.request = ByteString(text.into_bytes());
    request
}

fn conditioned(request: &CertificateSigningRequest, kind: &str) -> CertificateSigningRequest {
    with_condition(request, kind, "Test", "", Some(now()))
}

fn decided(request: &CertificateSigningRequest) -> Step {
    let names = ["kubernetes", "localhost"].map(str::to_owned).to_vec();
    decide(request, &Reserved { addresses: Vec::new(), names })
}

/// What the signer says to an approved request.
fn verdict(signer: &str, user: &str, group: &str, names: Vec<SanType>, usages: &[&str]) -> String {
    match decided(&conditioned(&request(signer, user, group, names, usages), "Approved")) {
        Step::Sign(order) => format!("{:?}", order.usages),
        Step::Fail(violation) => violation.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_signer_of_clients_asks_for_the_right_usages_only() {
    let check = |usages: &[&str]| verdict(CLIENT, "jane", "dev", vec![], usages);
    assert_eq!(check(&["client auth"]), "[ClientAuth]");
    assert_eq!(
        check(&["key encipherment", "client auth", "digital signature"]),
        "[KeyEncipherment, ClientAuth, DigitalSignature]"
    );
    assert_eq!(check(&["client auth", "server auth"]), "invalid usage for client certificate: server auth");
    assert_eq!(check(&["cert sign", "client auth"]), "invalid usage for client certificate: cert sign");
    assert_eq!(check(&["digital signature"]), "missing required usage for client certificate: client auth");
}

#[test]
fn the_signer_of_kubelets_as_clients_takes_nodes_without_other_names_only() {
    let usages = ["digital signature", "client auth"];
    let named = |names| verdict(KUBELET_CLIENT, "system:node:n1", "system:nodes", names, &usages);
    assert_eq!(named(vec![]), "[DigitalSignature, ClientAuth]");
    assert_eq!(named(vec![SanType::DnsName(ascii("n1"))]), "DNS subjectAltNames are not allowed");
    assert_eq!(named(vec![SanType::Rfc822Name(ascii("a@b.c"))]), "Email subjectAltNames are not allowed");
    assert_eq!(named(vec![SanType::IpAddress([192, 0, 2, 1].into())]), "IP subjectAltNames are not allowed");
    assert_eq!(named(vec![SanType::URI(ascii("a://b"))]), "URI subjectAltNames are not allowed");
    let of = |user, group, usages: &[&str]| verdict(KUBELET_CLIENT, user, group, vec![], usages);
    assert_eq!(of("system:node:n1", "system:masters", &usages), "subject organization is not system:nodes");
    assert_eq!(of("admin", "system:nodes", &usages), "subject common name does not begin with system:node:");
    let wrong = "usages did not match [client auth digital signature key encipherment]";
    for usages in [&["client auth"][..], &["digital signature", "server auth"], &["digital signature", "any"]] {
        assert_eq!(of("system:node:n1", "system:nodes", usages), wrong);
    }
}

#[test]
fn the_signer_of_kubelets_as_servers_takes_nodes_with_names_only() {
    let usages = ["digital signature", "key encipherment", "server auth"];
    let named = |names| verdict(KUBELET_SERVING, "system:node:n1", "system:nodes", names, &usages);
    assert_eq!(named(vec![]), "DNS or IP subjectAltName is required");
    assert_eq!(named(vec![SanType::DnsName(ascii("n1"))]), "[DigitalSignature, KeyEncipherment, ServerAuth]");
    let mixed = |other| named(vec![SanType::IpAddress([192, 0, 2, 1].into()), other]);
    assert_eq!(mixed(SanType::Rfc822Name(ascii("a@b.c"))), "Email subjectAltNames are not allowed");
    assert_eq!(mixed(SanType::URI(ascii("a://b"))), "URI subjectAltNames are not allowed");
    let of = |user, group, usages: &[&str]| {
        verdict(KUBELET_SERVING, user, group, vec![SanType::DnsName(ascii("n1"))], usages)
    };
    assert_eq!(of("system:node:n1", "dev", &usages), "subject organization is not system:nodes");
    assert_eq!(of("admin", "system:nodes", &usages), "subject common name does not begin with system:node:");
    let wrong = "usages did not match [digital signature key encipherment server auth]";
    assert_eq!(of("system:node:n1", "system:nodes", &["server auth"]), wrong);
}

#[test]
fn only_what_is_approved_and_not_settled_is_signed() {
    let plain = request(CLIENT, "jane", "dev", vec![], &["client auth"]);
    let approved = conditioned(&plain, "Approved");
    assert_eq!(decided(&plain), Step::Nothing);
    assert!(matches!(decided(&approved), Step::Sign(_)));
    assert_eq!(decided(&conditioned(&plain, "Denied")), Step::Nothing);
    assert_eq!(decided(&conditioned(&approved, "Failed")), Step::Nothing);
    let mut issued = approved.clone();
    issued.status.as_mut().unwrap().certificate = Some(ByteString(b"c".to_vec()));
    assert_eq!(decided(&issued), Step::Nothing);
    let mut other = approved;
    other.spec.signer_name = "example.org/signer".to_owned();
    assert_eq!(decided(&other), Step::Nothing, "somebody else signs it");
}

#[test]
fn a_certificate_lasts_as_long_as_asked_for_within_bounds() {
    let lifetime = |seconds| {
        let mut request = conditioned(&request(CLIENT, "jane", "dev", vec![], &["client auth"]), "Approved");
        request.spec.expiration_seconds = seconds;
        match decided(&request) {
            Step::Sign(order) => order.lifetime.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    let year = 365 * 24 * 3600;
    assert_eq!([None, Some(3600), Some(1), Some(i32::MAX)].map(lifetime), [year, 3600, 600, year]);
}

#[test]
fn what_a_kubelet_asks_for_itself_is_approved_by_the_right_that_fits() {
    let rights = |user: &str, usages: &[&str]| {
        let mut request = request(KUBELET_CLIENT, "system:node:n1", "system:nodes", vec![], usages);
        request.spec.username = Some(user.to_owned());
        match decided(&request) {
            Step::Review(reviews) => reviews.iter().map(|review| review.subresource).collect(),
            _ => Vec::new(),
        }
    };
    let usages = ["digital signature", "client auth"];
    assert_eq!(rights("system:node:n1", &usages), ["selfnodeclient", "nodeclient"]);
    assert_eq!(rights("system:bootstrap:abcdef", &usages), ["nodeclient"]);
    assert!(rights("system:node:n1", &["client auth"]).is_empty());
    let serving = request(
        KUBELET_SERVING,
        "system:node:n1",
        "system:nodes",
        vec![SanType::DnsName(ascii("n1"))],
        &["digital signature", "server auth"],
    );
    assert!(matches!(decided(&serving), Step::Vouch(_)), "no right does, but what is known of the node");
}

#[test]
fn what_is_over_is_removed_in_time() {
    let plain = request(CLIENT, "jane", "dev", vec![], &["client auth"]);
    let approved = conditioned(&plain, "Approved");
    let hour = Some(now() + 1.hour());
    assert_eq!(due(&plain), Some(now() + 24.hours()));
    assert_eq!((due(&conditioned(&plain, "Denied")), due(&conditioned(&approved, "Failed"))), (hour, hour));
    assert_eq!(due(&approved), None, "it may still be signed by somebody");
    let issued = |end: Timestamp| {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_second().cast_unsigned());
        let text = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let mut issued = approved.clone();
        issued.status.as_mut().unwrap().certificate = Some(ByteString(text.into_bytes()));
        issued
    };
    assert_eq!(due(&issued(now() + 2.hours())), hour);
    assert_eq!(due(&issued(now() + 10.minutes())), Some(now() + 10.minutes()));
    let mut timeless = conditioned(&plain, "Denied");
    timeless.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_update_time = None::<Time>;
    assert_eq!(due(&timeless), None);
}

#[test]
fn no_node_has_a_name_of_the_api_server() {
    let client = |node: &str| {
        let user = format!("system:node:{node}");
        request(KUBELET_CLIENT, &user, "system:nodes", vec![], &["digital signature", "client auth"])
    };
    let server = |node: &str, name: &str| {
        let (user, names) = (format!("system:node:{node}"), vec![SanType::DnsName(ascii(name))]);
        request(KUBELET_SERVING, &user, "system:nodes", names, &["digital signature", "server auth"])
    };
    let violation = |name: &str| Violation::Reserved(name.to_owned());
    for (request, name) in [
        (client("kubernetes"), "kubernetes"),
        (client("localhost"), "localhost"),
        (server("kubernetes", "kubernetes"), "kubernetes"),
        (server("n1", "localhost"), "localhost"),
    ] {
        assert_eq!(decided(&request), Step::Deny(violation(name)));
        assert_eq!(
            decided(&conditioned(&request, "Approved")),
            Step::Fail(violation(name)),
            "somebody has approved it"
        );
        assert_eq!(decided(&conditioned(&request, "Denied")), Step::Nothing);
    }
    assert!(matches!(decided(&client("n1")), Step::Review(_)));
    assert!(matches!(decided(&server("n1", "n1")), Step::Vouch(_)));
    let person = request(CLIENT, "system:node:kubernetes", "dev", vec![], &["client auth"]);
    assert_eq!(decided(&person), Step::Nothing, "that is for people to approve");
}
