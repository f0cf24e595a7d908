//! What a registry demands before it answers, and how to comply.
//!
//! Challenges as in RFC 9110 §11.6.1; the token exchange as in `distribution/docs/spec/auth/token.md`.

use std::fmt;

use base64::Engine;
use http::HeaderValue;

/// What a registry wants to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of an `Authorization` header; not shown in logs.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let pair = format!("{}:{}", self.username, self.password);
        secret(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }
}

/// The value of an `Authorization` header for a token; not shown in logs.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One way to authenticate that a `WWW-Authenticate` header offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// All known ones of a header, tokens first: where both are offered, those are what registries mean.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = header.trim_start();
        while let Some((scheme, after)) = take_token(rest) {
            let (parameters, after) = take_parameters(after);
            let get = |name: &str| {
                let wanted = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                wanted.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                let service = get("service");
                found.extend(get("realm").map(|realm| Self::Bearer { realm, service, scope: get("scope") }));
            } else if scheme.eq_ignore_ascii_case("basic") {
                found.push(Self::Basic);
            }
            rest = after.trim_start_matches([' ', '\t', ',']);
        }
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found
    }

    /// Where to ask for the token of a `Bearer` challenge.
    pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
        let separator = if realm.contains('?') { '&' } else { '?' };
        let service = service.map(|service| format!("service={}&", escape(service))).unwrap_or_default();
        format!("{realm}{separator}{service}scope={}", escape(scope))
    }
}

fn take_token(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// `name=value` pairs up to the next scheme, which is a token that no `=` follows.
fn take_parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = take_token(start) else { return (parameters, start) };
        let Some(after) = after.trim_start().strip_prefix('=') else { return (parameters, start) };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => take_token(after).map_or((String::new(), after), |(value, after)| (value.to_owned(), after)),
        };
        parameters.push((name.to_owned(), value));
        rest = after;
    }
}

fn take_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, &text[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// RFC 3986 §2.3: everything but unreserved characters is escaped, except what registries expect to read plainly.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn the_challenge_of_docker_hub_is_understood() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: text("registry.docker.io"),
            scope: text("repository:library/busybox:pull"),
        };
        assert_eq!(Challenge::parse(header), [expected]);
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        let parsed = Challenge::parse(r#"Basic realm="a, \"b\"", Negotiate, bearer realm=https"#);
        let bearer = Challenge::Bearer { realm: "https".to_owned(), service: None, scope: None };
        assert_eq!(parsed, [bearer, Challenge::Basic]);
    }

    #[test]
    fn the_address_of_a_token_is_escaped() {
        let url = Challenge::token_url("https://auth.example/token?x=1", Some("my registry"), "repository:a/b:pull");
        assert_eq!(url, "https://auth.example/token?x=1&service=my%20registry&scope=repository:a/b:pull");
    }

    #[test]
    fn passwords_are_not_shown() {
        let credentials = Credentials { username: "ann".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{credentials:?}{:?}", credentials.basic()).contains("hunter2"));
        assert_eq!(credentials.basic().unwrap().to_str().unwrap(), "Basic YW5uOmh1bnRlcjI=");
    }

    proptest! {
        #[test]
        fn no_header_panics_or_loops(header in "[ -~]{0,80}") {
            let _ = Challenge::parse(&header);
        }
    }
}
