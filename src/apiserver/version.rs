//! What `/version` says.

use serde::Serialize;

/// `k8s.io/apimachinery/pkg/version.Info`; all fields are strings.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// Of the API, e.g. `1`.
    pub major: String,
    /// Of the API, e.g. `36`.
    pub minor: String,
    /// A semantic version that starts with the API's, e.g. `v1.36.0+coracle-0.1.0`.
    pub git_version: String,
    /// Commit of this build; empty if unknown.
    pub git_commit: String,
    /// `clean`, `dirty` or empty.
    pub git_tree_state: String,
    /// Moment of this build; empty in a reproducible one.
    pub build_date: String,
    /// Clients print it only; a compiler's version.
    pub go_version: String,
    /// Clients print it only.
    pub compiler: String,
    /// Operating system and architecture in Go's words, e.g. `linux/amd64`.
    pub platform: String,
}

impl VersionInfo {
    /// The API version that Coracle implements, for a release of Coracle such as `0.1.0`.
    pub fn of_release(release: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            major: "1".to_owned(),
            minor: "36".to_owned(),
            git_version: format!("v1.36.0+coracle-{release}"),
            git_commit: String::new(),
            git_tree_state: String::new(),
            build_date: String::new(),
            go_version: String::new(),
            compiler: "rustc".to_owned(),
            platform: format!("{}/{architecture}", std::env::consts::OS),
        }
    }
}
