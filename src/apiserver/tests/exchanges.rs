//! Whole HTTP exchanges as files: requests in, the exact answers out (`testdata/apiserver/*.http`).
//!
//! A file is a sequence of exchanges in one fresh server. `UPDATE_EXPECT=1` rewrites the answers.
//!
//! ```text
//! >>> USER METHOD PATH
//! Header: value
//! (an empty line, then the body if there is one; `(N bytes)` is a body of so many)
//! <<< CODE CONTENT-TYPE
//! the answer; JSON is indented
//!
//! >>> WAIT SECONDS
//! ```
//!
//! The user `network` has to show who it is.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::resources;
use api::user::UserInfo;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::world::{Answer, World, admin, node};

struct Exchange {
    head: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Exchange {
    fn parse(text: &str) -> Self {
        let (head, rest) = text.split_once('\n').unwrap();
        let mut lines = rest.lines();
        let headers = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = lines.collect::<Vec<_>>().join("\n");
        Self { head: head.to_owned(), headers, body: body.trim().to_owned() }
    }

    fn render(&self) -> String {
        let mut text = format!(">>> {}\n", self.head);
        for (name, value) in &self.headers {
            writeln!(text, "{name}: {value}").unwrap();
        }
        if !self.body.is_empty() {
            write!(text, "\n{}\n", self.body).unwrap();
        }
        text
    }

    fn user(&self) -> (UserInfo, &str) {
        let (user, line) = self.head.split_once(' ').unwrap();
        let user = match user {
            "admin" => admin(),
            "anonymous" => UserInfo::anonymous(),
            other => other.strip_prefix("node:").map_or_else(|| UserInfo::authenticated(other, &[]), node),
        };
        (user, line)
    }
}

impl Exchange {
    async fn send(&self, world: &World) -> Answer {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let many = self.body.strip_prefix('(').and_then(|body| body.strip_suffix(" bytes)"));
        let body = many.map_or_else(|| self.body.clone(), |count| "x".repeat(count.parse().unwrap()));
        let Some(line) = self.head.strip_prefix("network ") else {
            let (user, line) = self.user();
            return world.send(user, line, &headers, &body).await;
        };
        let (method, path) = line.split_once(' ').unwrap();
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(path), |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (parts, body) = Arc::clone(&world.server).authenticated(None, request).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }
}

async fn play(text: &str) -> String {
    let world = World::new().await;
    let mut played = String::new();
    for block in text.split(">>> ").skip(1) {
        let exchange = Exchange::parse(block.split("<<< ").next().unwrap());
        if let Some(seconds) = exchange.head.strip_prefix("WAIT ") {
            tokio::time::advance(Duration::from_secs(seconds.trim().parse().unwrap())).await;
            writeln!(played, "{}", exchange.render()).unwrap();
            continue;
        }
        let answer = exchange.send(&world).await;
        let body = serde_json::from_str::<Value>(&answer.text)
            .map_or_else(|_| answer.text.trim().to_owned(), |document| format!("{document:#}"));
        let content_type = answer.headers["content-type"].to_str().unwrap();
        writeln!(played, "{}<<< {} {content_type}", exchange.render(), answer.code).unwrap();
        for name in ["Warning", "Retry-After", "WWW-Authenticate", "Allow"] {
            for value in answer.headers.get_all(name) {
                writeln!(played, "{name}: {}", value.to_str().unwrap()).unwrap();
            }
        }
        writeln!(played, "{body}\n").unwrap();
    }
    played
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/apiserver");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "http")).collect();
    files.sort();
    files
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_as_recorded() {
    let files = files();
    assert!(!files.is_empty());
    for path in files {
        let recorded = std::fs::read_to_string(&path).unwrap();
        let played = play(&recorded).await;
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, played).unwrap();
        } else {
            assert_eq!(played, recorded, "{}: run with UPDATE_EXPECT=1 to accept", path.display());
        }
    }
}

#[test]
fn discovery_is_recorded_of_every_group() {
    let recorded = std::fs::read_to_string(files().into_iter().find(|path| path.ends_with("discovery.http")).unwrap());
    let recorded = recorded.unwrap();
    for row in resources::all() {
        let paths = if row.group.is_empty() {
            vec!["/api".to_owned(), format!("/api/{}", row.version)]
        } else {
            vec![format!("/apis/{}", row.group), format!("/apis/{}/{}", row.group, row.version)]
        };
        for path in paths {
            assert!(recorded.contains(&format!(">>> jane GET {path}\n")), "{path}");
        }
    }
}
