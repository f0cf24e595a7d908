use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn check(input: &str, expected: &str) {
    let reference: Reference = input.parse().unwrap_or_else(|error| panic!("{input}: {error}"));
    assert_eq!(reference.to_string(), expected, "{input}");
    assert_eq!(expected.parse::<Reference>().unwrap(), reference, "{input} is not read back");
}

#[test]
fn familiar_names_get_their_registry_and_tag() {
    check("busybox", "docker.io/library/busybox:latest");
    check("busybox:1.36", "docker.io/library/busybox:1.36");
    check("user/app", "docker.io/user/app:latest");
    check("docker.io/busybox", "docker.io/library/busybox:latest");
    check("index.docker.io/busybox", "docker.io/library/busybox:latest");
    check("index.docker.io/user/app:v1", "docker.io/user/app:v1");
}

#[test]
fn the_first_part_is_a_registry_if_it_looks_like_a_host() {
    check("localhost/app", "localhost/app:latest");
    check("localhost:5000/app:v1", "localhost:5000/app:v1");
    check("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest");
    check("[::1]:5000/app", "[::1]:5000/app:latest");
    check("[2001:db8::1]/app", "[2001:db8::1]/app:latest");
    check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
    check("Registry/app", "Registry/app:latest");
    check("not-a-host/app", "docker.io/not-a-host/app:latest");
}

#[test]
fn a_digest_stands_alone_or_beside_a_tag() {
    check(&format!("busybox@sha256:{HEX}"), &format!("docker.io/library/busybox@sha256:{HEX}"));
    let both = format!("localhost:5000/app:v1@sha256:{HEX}");
    check(&both, &both);
    let reference: Reference = both.parse().unwrap();
    assert_eq!(reference.selector(), format!("sha256:{HEX}"));
    assert_eq!(reference.tagged(), None);
}

#[test]
fn separators_within_a_repository_are_those_of_the_grammar() {
    check("a.b/c-d__e_f--g.h", "a.b/c-d__e_f--g.h:latest");
    for wrong in ["a..b", "a___b", "a._b", "-a", "a-", "a.", "_a", "a//b", "a/", "/a", "localhost:x/a", "a@b"] {
        assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
    }
}

#[test]
fn errors_say_what_other_tools_say() {
    let message = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
    assert_eq!(message(""), "repository name must have at least one component");
    assert_eq!(message("busybox:"), "invalid reference format");
    assert_eq!(message("busybox:a b"), "invalid reference format");
    assert_eq!(message("BusyBox"), "invalid reference format: repository name (library/BusyBox) must be lowercase");
    assert_eq!(message(HEX), format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"));
    assert_eq!(message(&"a".repeat(300)), "repository name must not be more than 255 characters");
    assert!(message("a@sha256:12").starts_with("invalid reference format"));
    assert!(message(&format!("a:{}", "t".repeat(129))).starts_with("invalid reference format"));
}

#[test]
fn the_address_of_docker_hub_differs_from_its_name() {
    assert_eq!("busybox".parse::<Reference>().unwrap().api_host(), "registry-1.docker.io");
    assert_eq!("localhost:5000/app".parse::<Reference>().unwrap().api_host(), "localhost:5000");
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_and_read_back(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            let written = reference.to_string();
            prop_assert_eq!(written.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn names_by_the_grammar_are_read(
        host in "[a-z0-9]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?",
        path in "[a-z0-9]{1,5}([._]|__|-{1,3})[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
    ) {
        let text = format!("{host}/{path}:{tag}");
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(reference.to_string(), text);
        prop_assert_eq!(reference.domain(), host);
    }
}
