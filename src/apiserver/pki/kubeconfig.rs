//! Client configuration files with everything embedded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Credential;

/// What a kubeconfig says.
#[derive(Debug)]
pub struct Kubeconfig<'a> {
    /// Address of the API server, e.g. `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// Name of the cluster and the context.
    pub cluster: &'a str,
    /// Name of the user entry.
    pub user: &'a str,
    /// The authority that signed the server's certificate, PEM.
    pub authority: &'a str,
    /// The user's certificate and key.
    pub credential: &'a Credential,
}

impl Kubeconfig<'_> {
    /// The file's text: JSON, which is YAML, so that no name needs quoting rules.
    pub fn render(&self) -> String {
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": self.cluster, "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(self.authority),
            }}],
            "users": [{ "name": self.user, "user": {
                "client-certificate-data": STANDARD.encode(&self.credential.certificate),
                "client-key-data": STANDARD.encode(self.credential.key()),
            }}],
            "contexts": [{ "name": self.cluster, "context": { "cluster": self.cluster, "user": self.user } }],
            "current-context": self.cluster,
            "preferences": {},
        });
        format!("{document:#}\n")
    }
}
