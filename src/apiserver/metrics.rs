//! `/metrics`: what this server has done, in the text format of Prometheus. A small set: what is said here is counted here,
//! and nothing else of upstream's many names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use api::resources;

use crate::VersionInfo;
use crate::request::RequestInfo;

/// A kind of request, as far as it is told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    code: u16,
}

/// Requests that were answered. Names are those of built-in kinds, so that clients cannot make more of them.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<Kind, u64>>);

const VERBS: [&str; 8] = ["CREATE", "DELETE", "DELETECOLLECTION", "GET", "LIST", "PATCH", "UPDATE", "WATCH"];

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, info: &RequestInfo, code: u16) {
        let word = match info {
            RequestInfo::Path { verb, .. } => verb,
            RequestInfo::Resource(request) => &request.verb,
        };
        let verb = VERBS.into_iter().find(|verb| verb.eq_ignore_ascii_case(word)).unwrap_or("other");
        let row = match info {
            RequestInfo::Path { .. } => None,
            RequestInfo::Resource(request) => resources::find(&request.group, &request.version, &request.resource),
        };
        let kind = match (row, info) {
            (Some(row), RequestInfo::Resource(request)) => {
                let subresource = row.subresource(&request.subresource).map_or("", |subresource| subresource.name);
                let (group, version, resource) = (row.group, row.version, row.plural);
                Kind { verb, group, version, resource, subresource, code }
            }
            _ => Kind { verb, group: "", version: "", resource: "", subresource: "", code },
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// All that is known.
    pub(crate) fn render(&self, version: &VersionInfo) -> String {
        let mut text = String::new();
        let version = serde_json::to_value(version).unwrap_or_default();
        let of = |field: &str| version[field].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "# HELP kubernetes_build_info What this is. The count is always 1.\n# TYPE kubernetes_build_info gauge\n\
             kubernetes_build_info{{git_version={:?},major={:?},minor={:?},platform={:?}}} 1",
            of("gitVersion"),
            of("major"),
            of("minor"),
            of("platform"),
        );
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(
            "# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out for each verb, group, \
             version, resource, subresource and code.\n# TYPE apiserver_request_total counter\n",
        );
        for (Kind { verb, group, version, resource, subresource, code }, count) in counts.iter() {
            let _ = writeln!(
                text,
                "apiserver_request_total{{code=\"{code}\",group={group:?},resource={resource:?},\
                 subresource={subresource:?},verb={verb:?},version={version:?}}} {count}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    #[test]
    fn requests_are_counted_by_names_that_clients_do_not_choose() {
        let requests = Requests::default();
        let count = |method: &Method, path: &str, code| {
            requests.count(&RequestInfo::parse(method, path, &Query::default()), code);
        };
        count(&Method::GET, "/api/v1/pods", 200);
        count(&Method::GET, "/api/v1/pods", 200);
        count(&Method::GET, "/api/v1/namespaces/d/pods/x/log", 404);
        count(&Method::GET, "/api/v1/namespaces/d/pods/x/strange", 404);
        count(&Method::GET, "/apis/a.b/v1/c", 404);
        count(&Method::GET, "/apis/a.d/v1/e", 404);
        count(&Method::from_bytes(b"STRANGE").unwrap(), "/x", 404);
        let text = requests.render(&VersionInfo::of_release("0.0.0"));
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("apiserver_request_total")).collect();
        let of = |labels: &str, count| format!("apiserver_request_total{{{labels}}} {count}");
        let wanted = [
            of(r#"code="404",group="",resource="pods",subresource="",verb="GET",version="v1""#, 1),
            of(r#"code="404",group="",resource="pods",subresource="log",verb="GET",version="v1""#, 1),
            of(r#"code="200",group="",resource="pods",subresource="",verb="LIST",version="v1""#, 2),
            of(r#"code="404",group="",resource="",subresource="",verb="LIST",version="""#, 2),
            of(r#"code="404",group="",resource="",subresource="",verb="other",version="""#, 1),
        ];
        for line in &wanted {
            assert!(lines.contains(&line.as_str()), "{line} is not in {text}");
        }
        assert_eq!(lines.len(), wanted.len());
    }
}
