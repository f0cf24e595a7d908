//! `coracle token`: what machines show that join the cluster.
//!
//! A token is kept as upstream's bootstrap tokens are, as a Secret of `kube-system`, and known by the API server as such; what
//! is handed over has the fingerprint of the cluster's authority beside it, so that whoever joins knows the server before
//! he says anything. A token for one node lets nobody join as another, and lasts: with it the node comes back after its
//! certificate has ended. A token for any node lasts a day unless told otherwise.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use api::user::{JOINERS, UserInfo};
use apiserver::Entropy;
use clap::Subcommand;
use client::{Client, DeleteOptions, Fingerprint, HttpsTransport, Key, Kubeconfig, ListOptions, Scope};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::{Clock, SystemClock, Tasks};

use super::Root;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// How long a token for any node lasts: that of `kubeadm token create`.
const USUAL: SignedDuration = SignedDuration::from_hours(24);

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new token, to be put into a file that only root of the joining machine can read
    #[command(after_help = "Example: coracle token create --node edge-2 > edge-2.token")]
    Create {
        /// The only node as which one may join with it; it lasts until it is deleted then
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// How long it lasts, like 24h or 30m, or 0 for ever [default: 24h, for ever with --node]
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List the tokens that there are, without their secrets
    #[command(after_help = "Example: coracle token list")]
    List,
    /// Delete a token; nodes that have joined stay
    #[command(after_help = "Example: coracle token delete abcdef")]
    Delete {
        /// Its first six letters, as `list` shows them, or all of it
        id: String,
    },
}

/// What is handed over to a machine that joins: `<id>.<secret>@<fingerprint of the authority>`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct JoinToken {
    /// What the API server knows.
    pub(super) bearer: String,
    /// The authority of its certificate.
    pub(super) authority: Fingerprint,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("bearer", &"redacted").field("authority", &self.authority).finish()
    }
}

impl FromStr for JoinToken {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (bearer, authority) = text.trim().split_once('@').context("it has no fingerprint after an '@'")?;
        let (id, secret) = bearer.split_once('.').unwrap_or_default();
        let is_plain = bearer.bytes().all(|byte| LETTERS.contains(&byte) || byte == b'.');
        ensure!(
            id.len() == 6 && secret.len() == 16 && is_plain,
            "it does not begin with six letters, a dot and sixteen letters"
        );
        Ok(Self { bearer: bearer.to_owned(), authority: authority.parse()? })
    }
}

impl JoinToken {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        text.parse().with_context(|| format!("{} holds no token of `coracle token create`", path.display()))
    }
}

/// Runs the command against the server of this host.
#[expect(clippy::print_stdout, reason = "what these commands print is their product")]
pub(super) async fn run(command: TokenCommand, root: &Root) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let path = root.instance()?.kubeconfig_path();
    let config = Kubeconfig::load(&path).and_then(|config| config.current()).context("has the server started?")?;
    let authority = Fingerprint::of_pem(&config.ca).context("the kubeconfig holds no certificate authority")?;
    let client = Client::new(Arc::new(HttpsTransport::new(config, &tasks)?), "coracle-token");
    match command {
        TokenCommand::Create { node, ttl, description } => {
            let end = end(ttl.as_deref(), node.as_deref(), SystemClock.now())?;
            let (id, secret) = (letters::<6>(), letters::<16>());
            let wish = Wish { id: &id, secret: &secret, node: node.as_deref(), end, description: &description };
            client.create(&wish.render()?).await.context("cannot make the token")?;
            println!("{id}.{secret}@{authority}");
        }
        TokenCommand::List => {
            let options = ListOptions::fields(&format!("type={TYPE}"));
            let secrets = client.list::<Secret>(&Scope::namespace(NAMESPACE), &options).await?;
            println!("{:<8}{:<24}{:<26}DESCRIPTION", "ID", "NODE", "EXPIRES");
            for secret in secrets.items {
                println!("{}", row(&secret));
            }
        }
        TokenCommand::Delete { id } => {
            let id = id.split('.').next().unwrap_or_default();
            let key = Key::namespaced(NAMESPACE, &format!("bootstrap-token-{id}"));
            match client.delete::<Secret>(&key, &DeleteOptions::default()).await {
                Err(error) if error.is_not_found() => bail!("there is no token {id:?}"),
                other => other?,
            }
            println!("deleted {id}");
        }
    }
    tasks.shutdown().await;
    Ok(())
}

/// When a token ends, if it does.
fn end(ttl: Option<&str>, node: Option<&str>, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    let lifetime = match ttl {
        Some("0") => return Ok(None),
        Some(text) => text.parse::<SignedDuration>().with_context(|| format!("--ttl {text:?}"))?,
        None if node.is_some() => return Ok(None),
        None => USUAL,
    };
    ensure!(lifetime.is_positive(), "--ttl is not positive");
    Ok(Some(now.checked_add(lifetime).context("--ttl is too long")?))
}

/// Letters that nobody guesses.
fn letters<const N: usize>() -> String {
    let entropy = Entropy::system();
    let mut text = String::with_capacity(N);
    while text.len() < N {
        let mut bytes = [0; N];
        entropy.fill(&mut bytes);
        // 252 is the last multiple of 36: beyond it some letters would be more likely than others.
        let even = bytes.iter().filter(|byte| **byte < 252);
        text.extend(even.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).take(N - text.len()));
    }
    text
}

/// A token to be made.
struct Wish<'a> {
    id: &'a str,
    secret: &'a str,
    node: Option<&'a str>,
    end: Option<Timestamp>,
    description: &'a str,
}

impl Wish<'_> {
    fn render(&self) -> anyhow::Result<Secret> {
        let mut groups = vec![JOINERS.to_owned()];
        if let Some(node) = self.node {
            let problems = api::names::dns1123_subdomain(node);
            ensure!(problems.is_empty(), "node name {node:?}: {}", problems.join("; "));
            groups.push(UserInfo::joiners_as(node));
        }
        let mut data = vec![
            ("token-id", self.id.to_owned()),
            ("token-secret", self.secret.to_owned()),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("auth-extra-groups", groups.join(",")),
        ];
        data.extend(self.end.map(|end| ("expiration", format!("{end:.0}"))));
        data.extend((!self.description.is_empty()).then(|| ("description", self.description.to_owned())));
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(format!("bootstrap-token-{}", self.id)),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            string_data: Some(data.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()),
            ..Secret::default()
        })
    }
}

/// A line of the list.
fn row(secret: &Secret) -> String {
    let data = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    };
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let groups = data("auth-extra-groups");
    let user = UserInfo::authenticated("", &groups.split(',').collect::<Vec<_>>());
    let node = user.joins_as().unwrap_or_else(|| "<any>".to_owned());
    format!("{:<8}{:<24}{:<26}{}", data("token-id"), node, or(data("expiration"), "<never>"), data("description"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_printed() {
        let pin = Fingerprint::of(b"authority");
        let text = format!("{}.{}@{pin}\n", letters::<6>(), letters::<16>());
        let token: JoinToken = text.parse().unwrap();
        assert_eq!(format!("{}@{}\n", token.bearer, token.authority), text);
        assert!(!format!("{token:?}").contains(&token.bearer), "it is a secret");
        for wrong in
            ["abcdef.0123456789abcdef".to_owned(), format!("abc.def@{pin}"), format!("ABCDEF.0123456789abcdef@{pin}")]
        {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_for_one_node_lasts_and_another_lasts_a_day() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let end = |ttl, node| end(ttl, node, now).ok().map(|end| end.map(|end| end.to_string()));
        assert_eq!(end(None, Some("edge")), Some(None));
        assert_eq!(end(None, None), Some(Some("2026-01-03T03:04:05Z".to_owned())));
        assert_eq!(end(Some("1h30m"), Some("edge")), Some(Some("2026-01-02T04:34:05Z".to_owned())));
        assert_eq!(end(Some("0"), None), Some(None));
        assert_eq!((end(Some("-1h"), None), end(Some("soon"), None)), (None, None));
    }

    #[test]
    fn a_token_for_one_node_gives_the_group_of_that_node_only() {
        let wish = |node| Wish { id: "abcdef", secret: "0123456789abcdef", node, end: None, description: "" }.render();
        let groups = |node| wish(node).unwrap().string_data.unwrap()["auth-extra-groups"].clone();
        assert_eq!(groups(None), JOINERS);
        assert_eq!(
            groups(Some("edge.example.org")),
            format!("{JOINERS},system:bootstrappers:coracle:node:edge:example:org")
        );
        assert!(wish(Some("Edge")).is_err());
    }
}
