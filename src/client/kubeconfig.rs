//! Kubeconfig files, as far as a program without a terminal can use them.
//!
//! Reads files when asked to, at start; nothing watches them. What would weaken TLS or needs a helper program
//! (`insecure-skip-tls-verify`, `exec`, `auth-provider`) is refused by name rather than ignored.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use crate::transport::https::{HttpsConfig, Identity};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The kubeconfig or a file that it names.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is no kubeconfig.
    #[error("{} is no kubeconfig", path.display())]
    Parse {
        /// The kubeconfig.
        path: PathBuf,
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A field holds something that is not base64.
    #[error("{field} is not base64")]
    Base64 {
        /// The field.
        field: &'static str,
        #[source]
        source: base64::DecodeError,
    },
    /// A name leads nowhere.
    #[error("kubeconfig has no {what} {name:?}")]
    Missing {
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A field that we do not honour.
    #[error("{field} is not supported in a kubeconfig")]
    Unsupported {
        /// The field.
        field: &'static str,
    },
}

/// A parsed kubeconfig.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    #[serde(skip)]
    folder: PathBuf,
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

impl Default for Kubeconfig {
    fn default() -> Self {
        let current_context = String::new();
        Self { folder: PathBuf::new(), current_context, contexts: vec![], clusters: vec![], users: vec![] }
    }
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(redacted)")
    }
}

impl Kubeconfig {
    /// Reads a kubeconfig file.
    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = serde_saphyr::from_str(&text)
            .map_err(|source| KubeconfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        path.parent().unwrap_or(Path::new("")).clone_into(&mut config.folder);
        Ok(config)
    }

    /// What the current context says.
    pub fn current(&self) -> Result<HttpsConfig, KubeconfigError> {
        let missing = |what, name: &str| KubeconfigError::Missing { what, name: name.to_owned() };
        let name = &self.current_context;
        let context = self.contexts.iter().find(|context| context.name == *name);
        let context = &context.ok_or_else(|| missing("context", name))?.context;
        let cluster = self.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
        if cluster.insecure_skip_tls_verify {
            return Err(KubeconfigError::Unsupported { field: "insecure-skip-tls-verify" });
        }
        let authority = "certificate-authority-data";
        let ca = self.data(authority, &cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let identity = match self.users.iter().find(|user| user.name == context.user) {
            Some(user) => self.identity(&user.user)?,
            None if context.user.is_empty() => Identity::Anonymous,
            None => return Err(missing("user", &context.user)),
        };
        let server_name = Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty());
        Ok(HttpsConfig { server: cluster.server.clone(), ca, server_name, identity })
    }

    fn identity(&self, user: &User) -> Result<Identity, KubeconfigError> {
        if user.exec.is_some() {
            return Err(KubeconfigError::Unsupported { field: "exec" });
        }
        if user.auth_provider.is_some() {
            return Err(KubeconfigError::Unsupported { field: "auth-provider" });
        }
        if !user.username.is_empty() {
            return Err(KubeconfigError::Unsupported { field: "username" });
        }
        let chain = self.data("client-certificate-data", &user.client_certificate_data, &user.client_certificate)?;
        if !chain.is_empty() {
            let key = self.data("client-key-data", &user.client_key_data, &user.client_key)?;
            return Ok(Identity::Certificate { chain, key });
        }
        if !user.token_file.is_empty() {
            return Ok(Identity::TokenFile(self.folder.join(&user.token_file)));
        }
        Ok(if user.token.is_empty() { Identity::Anonymous } else { Identity::Token(user.token.clone()) })
    }

    /// Inline data, or else a file relative to the kubeconfig's folder, or else nothing.
    fn data(&self, field: &'static str, inline: &str, file: &str) -> Result<Vec<u8>, KubeconfigError> {
        if !inline.is_empty() {
            let decoded = base64::engine::general_purpose::STANDARD.decode(inline);
            return decoded.map_err(|source| KubeconfigError::Base64 { field, source });
        }
        if file.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.folder.join(file);
        std::fs::read(&path).map_err(|source| KubeconfigError::Read { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cluster: &str, user: &str) -> Result<HttpsConfig, KubeconfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "the CA").unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             contexts: [{{name: here, context: {{cluster: c, user: u, namespace: x}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://host:6443', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n"
        );
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        Kubeconfig::load(&path).and_then(|config| config.current())
    }

    #[test]
    fn files_are_relative_to_the_kubeconfig_and_data_is_base64() {
        let config = load("certificate-authority: ca.pem", "token: secret").unwrap();
        assert_eq!(config.ca, b"the CA");
        assert!(matches!(config.identity, Identity::Token(token) if token == "secret"));
        let config =
            load("certificate-authority-data: dGhlIENB", "client-certificate-data: Y2VydA==, client-key-data: a2V5");
        let config = config.unwrap();
        assert_eq!(config.ca, b"the CA");
        assert!(matches!(config.identity, Identity::Certificate { chain, key } if chain == b"cert" && key == b"key"));
    }

    #[test]
    fn what_weakens_tls_or_runs_programs_is_refused_by_name() {
        for (cluster, user, refused) in [
            ("insecure-skip-tls-verify: true", "token: x", "insecure-skip-tls-verify"),
            ("tls-server-name: n", "exec: {command: aws}", "exec"),
            ("tls-server-name: n", "auth-provider: {name: gcp}", "auth-provider"),
        ] {
            let error = load(cluster, user).unwrap_err();
            assert!(matches!(error, KubeconfigError::Unsupported { field } if field == refused), "{error}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let config = load("tls-server-name: n", "token: hunter2").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
