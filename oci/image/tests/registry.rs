//! A real registry: Debian's `docker-registry`, on loopback with a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::TestImage;
use crate::image::Digest;

/// A running registry; ends with it.
pub(super) struct Registry {
    process: Child,
    _directory: tempfile::TempDir,
    /// `127.0.0.1:port`
    pub(super) address: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// None, with a note, if this host has none.
    #[expect(clippy::disallowed_methods, reason = "the registry is a program of the host")]
    pub(super) fn start(test: &str) -> Option<Self> {
        let Some(program) = find_program("docker-registry") else {
            eprintln!("SKIP {test}: docker-registry is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let storage = directory.path().join("storage");
        let configuration = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut command = std::process::Command::new(program);
        command.arg("serve").arg(configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',']).next()?.to_owned())
        });
        let address = address.expect("docker-registry says where it listens");
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Some(Self { process, _directory: directory, address, client })
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: &[u8],
    ) -> http::Response<hyper::body::Incoming> {
        let request = Request::builder().method(method).uri(url).header("content-type", content_type);
        self.client.request(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await.unwrap()
    }

    async fn push_blob(&self, repository: &str, blob: &[u8]) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let started = self.send(Method::POST, &url, "application/octet-stream", b"").await;
        assert_eq!(started.status(), StatusCode::ACCEPTED);
        let location = started.headers()["location"].to_str().unwrap();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", Digest::of(blob));
        let done = self.send(Method::PUT, &url, "application/octet-stream", blob).await;
        assert_eq!(done.status(), StatusCode::CREATED);
    }

    /// Pushes an image under a tag.
    pub(super) async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.blobs() {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, "application/vnd.oci.image.manifest.v1+json", &image.manifest).await;
    }

    pub(super) async fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let done = self.send(Method::PUT, &url, media_type, manifest).await;
        assert_eq!(done.status(), StatusCode::CREATED);
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}
