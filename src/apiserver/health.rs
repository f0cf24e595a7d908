//! `/version`, `/healthz`, `/livez` and `/readyz`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use http::Response;
use http::header::HeaderValue;
use store::Key;

use crate::Body;
use crate::query::Query;
use crate::respond::{TEXT, full, no_such_path};
use crate::server::ApiServer;

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// The answer of a health path; none for another path.
pub(crate) async fn answer(server: &ApiServer, path: &str, query: &Query) -> Option<Response<Body>> {
    let (endpoint, check) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let endpoint = ENDPOINTS.into_iter().find(|known| *known == endpoint)?;
    let results = checks(server, endpoint).await;
    if !check.is_empty() {
        let found = results.iter().find(|(name, _)| *name == check);
        return Some(match found {
            None => no_such_path(),
            Some((_, true)) => plain(200, "ok".to_owned()),
            Some((_, false)) => plain(500, format!("internal server error: {check} failed\n")),
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut healthy = true;
    for (name, passed) in &results {
        let left_out = excluded.contains(name);
        healthy &= *passed || left_out;
        let (mark, word) = match (passed, left_out) {
            (_, true) => ("+", "excluded: ok"),
            (true, false) => ("+", "ok"),
            (false, false) => ("-", "failed: reason withheld"),
        };
        let _ = writeln!(text, "[{mark}]{name} {word}");
    }
    let verdict = if healthy { "passed" } else { "failed" };
    Some(match (healthy, query.has("verbose")) {
        (true, false) => plain(200, "ok".to_owned()),
        (true, true) => plain(200, format!("{text}{endpoint} check {verdict}\n")),
        (false, _) => plain(500, format!("{text}{endpoint} check {verdict}\n")),
    })
}

/// The checks of an endpoint and whether they pass.
async fn checks(server: &ApiServer, endpoint: &str) -> Vec<(&'static str, bool)> {
    let mut results = vec![("ping", true)];
    if endpoint != "livez" {
        let probe = Key("/namespaces//default".to_owned());
        results.push(("store", server.config.store.get(&probe).await.is_ok()));
        results.push(("poststarthook/start-system-namespaces", server.started.load(Ordering::Acquire)));
    }
    if endpoint == "readyz" {
        results.push(("shutdown", !server.closing.is_cancelled()));
    }
    results
}

fn plain(code: u16, text: String) -> Response<Body> {
    let mut response = full(code, TEXT, text);
    response.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    response
}
