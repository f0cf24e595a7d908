//! What changes on the way: paths, headers, places of redirects, links of pages. Pure but for the body's wrapping.
//!
//! After `k8s.io/apimachinery/pkg/util/proxy/{transport,upgradeaware}.go` and Go's `httputil.ReverseProxy`. Unlike there
//! what is escaped in a path stays as the client wrote it, and a query goes along with a change of protocol too.

use std::net::IpAddr;

use api::status::ApiError;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, Uri};
use http_body_util::BodyExt;

use super::html::Page;
use crate::Body;
use crate::request::ResourceRequest;

/// What concerns one connection only (RFC 9110 §7.6.1, and what is written in spite of it).
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a browser would take as said by this server about itself.
const OF_ORIGIN: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Where a request came through and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passage {
    /// The path up to and with `proxy`, as the client sent it.
    prefix: String,
    /// What follows: empty, or a path with its slash.
    rest: String,
    /// With its question mark.
    query: String,
}

impl Passage {
    /// Divides an address behind as many segments as name the object.
    pub(super) fn new(uri: &Uri, request: &ResourceRequest) -> Self {
        let named = if request.namespace.is_empty() { 5 } else { 7 };
        let path = uri.path();
        let mut end = 0;
        for _ in 0..named {
            let rest = &path[end..];
            let start = rest.find(|character| character != '/').unwrap_or(rest.len());
            end += start + rest[start..].find('/').unwrap_or(rest.len() - start);
        }
        let (prefix, rest) = path.split_at(end);
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Self { prefix: prefix.to_owned(), rest: rest.to_owned(), query }
    }

    /// Whether relative links of an answer would lead beside it.
    pub(super) fn lacks_slash(&self) -> bool {
        self.rest.is_empty()
    }

    /// The same with a slash.
    pub(super) fn with_slash(&self) -> String {
        format!("{}/{}", self.prefix, self.query)
    }

    /// What follows.
    pub(super) fn path(&self) -> &str {
        &self.rest
    }

    /// Path and query at the other end.
    pub(super) fn target(&self) -> String {
        format!("{}{}", if self.rest.is_empty() { "/" } else { &self.rest }, self.query)
    }

    /// The path as the client knows it, cleaned.
    pub(super) fn forwarded_uri(&self) -> String {
        joined(&self.prefix, if self.rest.is_empty() { "/" } else { &self.rest })
    }
}

/// Whether a client wants another protocol.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    headers.contains_key(header::UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Makes the headers of a request those of the one that goes on.
pub(crate) fn prepare(headers: &mut HeaderMap, uri: &Uri, client: Option<IpAddr>, upgrades: bool) {
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| upgrades);
    drop_those_of_connection(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    // Nobody waits for a go-ahead here: the body goes on as it comes.
    headers.remove(header::EXPECT);
    headers.remove(header::AUTHORIZATION);
    let foreign: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    foreign.iter().for_each(|name| drop(headers.remove(name)));
    if let Some(authority) = uri.authority().filter(|_| !headers.contains_key(header::HOST)) {
        insert(headers, "host", authority.as_str());
    }
    if let Some(client) = client {
        let earlier = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<String> = earlier.map(str::to_owned).chain([client.to_string()]).collect();
        insert(headers, "x-forwarded-for", &chain.join(", "));
    }
}

/// Sets a header; a value that no header can have takes it away.
pub(super) fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

fn drop_those_of_connection(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|value| value.split(',')).filter_map(|n| n.trim().parse().ok()).collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    OF_CONNECTION.iter().for_each(|name| drop(headers.remove(*name)));
}

/// Takes from the headers of an answer what is not for the client.
pub(crate) fn bare(headers: &mut HeaderMap) {
    drop_those_of_connection(headers);
    OF_ORIGIN.iter().for_each(|name| drop(headers.remove(name)));
}

/// An answer as the client gets it; `backend` is who answered, `host` the name by which the client knows this server.
pub(super) fn answer(
    mut response: Response<Body>,
    passage: &Passage,
    backend: &str,
    host: &str,
) -> Result<Response<Body>, ApiError> {
    let headers = response.headers_mut();
    bare(headers);
    let links = Links { prefix: passage.prefix.clone(), backend: backend.to_owned(), host: host.to_owned() };
    if let Some(location) = headers.get(header::LOCATION).cloned() {
        if let Some(place) = location.to_str().ok().and_then(|place| links.rewritten(place)) {
            headers.insert(header::LOCATION, HeaderValue::from_str(&place).map_err(ApiError::internal)?);
        }
        return Ok(response);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "text/html" {
        return Ok(response);
    }
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|one| one.to_str().ok()).unwrap_or_default();
    let Some(page) = Page::new(encoding, links) else {
        tracing::debug!(encoding, "links of a page in an unknown encoding stay as they are");
        return Ok(response);
    };
    // Its length becomes another, and without a body (HEAD, 304) nobody knows it.
    headers.remove(header::CONTENT_LENGTH);
    Ok(response.map(|body| page.of(body).boxed()))
}

/// How addresses in answers are given the way through this server.
#[derive(Debug, Clone)]
pub(super) struct Links {
    prefix: String,
    backend: String,
    host: String,
}

impl Links {
    /// Another spelling of an address that would lead beside the way; none if it may stay.
    pub(super) fn rewritten(&self, address: &str) -> Option<String> {
        let (scheme, rest) = scheme_of(address);
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
        let is_foreign = !authority.is_empty() && authority != self.backend && authority != self.host;
        if is_foreign || !path.starts_with('/') || address.contains(|character: char| character.is_ascii_control()) {
            return None;
        }
        // A server that believes what it was told of its own address has written the whole of it.
        let kept = match !authority.is_empty() && authority == self.host {
            true => &address[..address.len() - rest.len()],
            false => "",
        };
        if path.starts_with(&self.prefix) {
            return (kept.is_empty() && !(scheme.is_empty() && authority.is_empty())).then(|| rest.to_owned());
        }
        Some(format!("{kept}{}{}", joined(&self.prefix, path), &rest[path.len()..]))
    }
}

#[cfg(test)]
pub(super) fn links_of(prefix: &str, backend: &str, host: &str) -> Links {
    Links { prefix: prefix.to_owned(), backend: backend.to_owned(), host: host.to_owned() }
}

/// A scheme (RFC 3986 §3.1) without its colon, and what follows that.
fn scheme_of(address: &str) -> (&str, &str) {
    let Some((scheme, rest)) = address.split_once(':') else { return ("", address) };
    let mut bytes = scheme.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if good { (scheme, rest) } else { ("", address) }
}

/// Both paths as one without `.`, `..` and doubled slashes; a slash at the end stays (`path.Join` of Go).
fn joined(prefix: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "/api/v1/namespaces/d/pods/web:80/proxy";

    fn passage(address: &str) -> Passage {
        let namespace = if address.contains("/namespaces/") { "d" } else { "" }.to_owned();
        Passage::new(&address.parse().unwrap(), &ResourceRequest { namespace, ..ResourceRequest::default() })
    }

    #[test]
    fn an_address_is_divided_behind_the_word_proxy() {
        let cases = [
            (POD.to_owned(), "/", true),
            (format!("{POD}/"), "/", false),
            (format!("{POD}/a/b/"), "/a/b/", false),
            (format!("{POD}/a%2Fb//c?x=1&y=%20"), "/a%2Fb//c?x=1&y=%20", false),
            (format!("{POD}/proxy/namespaces"), "/proxy/namespaces", false),
            (format!("/{POD}?q"), "/?q", true),
            ("/api/v1/nodes/n1:10250/proxy/pods".to_owned(), "/pods", false),
        ];
        for (address, target, lacks_slash) in cases {
            let passage = passage(&address);
            assert_eq!((passage.target().as_str(), passage.lacks_slash()), (target, lacks_slash), "{address}");
        }
        assert_eq!(passage(&format!("{POD}?a=b")).with_slash(), format!("{POD}/?a=b"));
        assert_eq!(passage(&format!("{POD}/x/../y//z/")).forwarded_uri(), format!("{POD}/y/z/"));
    }

    #[test]
    fn places_on_the_same_server_are_given_the_way_and_others_stay() {
        let links = links_of(POD, "10.0.0.9:80", "localhost:8001");
        let cases = [
            ("/", Some(format!("{POD}/"))),
            ("/login?next=/a", Some(format!("{POD}/login?next=/a"))),
            ("/a/../b/#x", Some(format!("{POD}/b/#x"))),
            ("http://10.0.0.9:80/a", Some(format!("{POD}/a"))),
            ("//10.0.0.9:80/a/", Some(format!("{POD}/a/"))),
            ("http://localhost:8001/a", Some(format!("http://localhost:8001{POD}/a"))),
            ("http://10.0.0.9/a", None),
            ("https://example.org/a", None),
            ("//example.org/a", None),
            ("a/b", None),
            ("", None),
            ("?x", None),
            ("#top", None),
            ("http://10.0.0.9:80", None),
            ("mailto:a@example.org", None),
            ("data:text/plain,/x", None),
            ("javascript:go()", None),
            ("/a\n/b", None),
        ];
        for (address, wanted) in cases {
            assert_eq!(links.rewritten(address), wanted, "{address}");
        }
        assert_eq!(links.rewritten(&format!("{POD}/a")), None);
        assert_eq!(links.rewritten(&format!("http://10.0.0.9:80{POD}/a")), Some(format!("{POD}/a")));
        assert_eq!(links.rewritten(&format!("http://localhost:8001{POD}/a")), None);
    }

    #[test]
    fn what_concerns_the_connection_or_this_server_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-own"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("authorization", "Bearer x"),
            ("impersonate-user", "x"),
            ("expect", "100-continue"),
            ("upgrade", "websocket"),
            ("x-forwarded-for", "192.0.2.1"),
            ("cookie", "a=b"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let (uri, client) = ("https://api:6443/x".parse().unwrap(), Some("192.0.2.7".parse().unwrap()));
        prepare(&mut headers, &uri, client, false);
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["cookie: a=b", "host: api:6443", "x-forwarded-for: 192.0.2.1, 192.0.2.7"]);
    }

    #[test]
    fn a_change_of_protocol_keeps_its_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(asks_for_upgrade(&headers));
        prepare(&mut headers, &"/x".parse().unwrap(), None, true);
        assert_eq!(
            (headers["connection"].to_str().unwrap(), headers["upgrade"].to_str().unwrap()),
            ("Upgrade", "websocket")
        );
    }
}
