//! Passing a request on to the server of its group, and the answer back.
//!
//! After `handler_proxy.go` of kube-aggregator: problems are told as plain text, as there.

use std::net::IpAddr;
use std::sync::Arc;

use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;

use super::Remote;
use crate::Body;
use crate::fairness::Permit;
use crate::proxy::{self, Sent};
use crate::query::decode;
use crate::respond;
use crate::server::ApiServer;

/// What clients must never say themselves begins so.
const REMOTE: &str = "x-remote-";

/// A request that goes on.
pub(crate) struct Passed<'a> {
    pub(crate) user: &'a UserInfo,
    pub(crate) parts: Parts,
    pub(crate) body: Sent,
    /// Where the client is, if not in this process.
    pub(crate) client: Option<IpAddr>,
    /// Held as long as the answer takes.
    pub(crate) permit: Permit,
}

/// Passes a request on and its answer back.
pub(crate) async fn forward(
    server: &Arc<ApiServer>,
    remote: &Remote,
    passed: Passed<'_>,
) -> Result<Response<Body>, ApiError> {
    if !is_plain(passed.parts.uri.path()) {
        return Err(ApiError::bad_request(
            "the segments of the path must not contain \"/\" and not be \".\" or \"..\"",
        ));
    }
    if !remote.is_available {
        return Ok(refused(503, "service unavailable"));
    }
    let Passed { user, mut parts, body, client, permit } = passed;
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| proxy::asks_for_upgrade(&parts.headers));
    proxy::prepare(&mut parts.headers, &parts.uri, client, upgrade.is_some());
    introduce(&mut parts.headers, user);
    parts.headers.insert(HOST, HeaderValue::from_str(&remote.host()).map_err(ApiError::internal)?);
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse().map_err(ApiError::internal)?;
    *request.headers_mut() = parts.headers;
    let stream = match remote.dial(server).await {
        Ok(stream) => stream,
        Err(problem) => {
            tracing::debug!(apiservice = remote.name, problem, "the server of a group is not reached");
            return Ok(refused(503, &format!("error trying to reach service: {problem}")));
        }
    };
    if let Some(upgrade) = upgrade {
        return proxy::join_over(server, upgrade, stream, request, permit).await;
    }
    match proxy::send_over(stream, request).await {
        Ok(mut response) => {
            proxy::bare(response.headers_mut());
            Ok(permit.follow(response))
        }
        Err(problem) => Ok(refused(503, &format!("error trying to reach service: {problem}"))),
    }
}

/// Whether whoever decodes the path before he divides it reads the same as this server, which has divided it first and
/// asked whether the user may do that.
fn is_plain(path: &str) -> bool {
    let mut segments = path.split('/').map(|segment| decode(segment, false));
    segments.all(|segment| !segment.contains('/') && segment != "." && segment != "..")
}

/// Says for whom this server asks, and nothing that the client has said of that.
pub(super) fn introduce(headers: &mut HeaderMap, user: &UserInfo) {
    let said: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(REMOTE)).cloned().collect();
    said.iter().for_each(|name| drop(headers.remove(name)));
    let mut say = |name: &str, value: &str| {
        // A name that no header can carry would be another user's without what is left out.
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    };
    say("x-remote-user", &user.username);
    if !user.uid.is_empty() {
        say("x-remote-uid", &user.uid);
    }
    user.groups.iter().for_each(|group| say("x-remote-group", group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        values.iter().for_each(|value| say(&name, value));
    }
}

/// A key as the name of a header has it (`headerKeyEscape` of client-go).
fn escaped(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let spell = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    key.bytes().map(spell).collect()
}

fn refused(code: u16, text: &str) -> Response<Body> {
    let mut response = respond::full(code, respond::TEXT, Bytes::from(format!("{text}\n")));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_say_who_it_is_to_others() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-a", "X-Remote-Anything"] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("admin"));
        }
        let mut user = UserInfo::authenticated("jane", &["devs"]);
        user.extra.insert("example.org/Scope%".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        introduce(&mut headers, &user);
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        let expected = [
            "x-remote-extra-example.org%2fscope%25: a",
            "x-remote-extra-example.org%2fscope%25: b",
            "x-remote-group: devs",
            "x-remote-group: system:authenticated",
            "x-remote-user: jane",
        ];
        assert_eq!(shown, expected);
    }
}
