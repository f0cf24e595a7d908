//! Who a node is: its certificates, how it gets the first ones, and how others take their place.
//!
//! ```text
//! token ──fingerprint──► authority (ca.pem) ──token──► client.pem ──────► API server as system:node:NAME
//!                                                          │ renewed by itself after 70 to 90 % of its time
//!                                                          └────► kubelet.pem: the kubelet's API, on request of the node
//! ```
//!
//! A certificate that has ended proves nothing: a node that was switched off for longer joins again, by its token. Keys are
//! made here, lie in files that only root can read, and never leave the host.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::user::NODES;
use apiserver::authn::certificate_user;
use apiserver::certified_key;
use apiserver::pki::{Asked, Credential, write_private};
use client::{
    AuthorityError, Client, ClientError, Fingerprint, HttpsConfig, HttpsTransport, Informer, Key, ListOptions, Scope,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::{SharedClock, Tasks};

use super::super::token::JoinToken;
use super::lifetime::{State, state};
use super::transport::{Rotating, Serving};

/// First and longest pause between tries.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often certificates are looked at: a host that sleeps does not count the time.
const LOOK: Duration = Duration::from_secs(3600);
/// How long an answer to a request is waited for.
const PATIENCE: Duration = Duration::from_secs(900);
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

/// A node of a cluster.
pub(super) struct Identity {
    /// Where certificates are kept.
    pub(super) folder: PathBuf,
    /// Address of the API server.
    pub(super) server: String,
    /// Name of the node.
    pub(super) name: String,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
}

/// A node that knows its cluster's authority.
pub(super) struct Member {
    own: Identity,
    authority: String,
    token: Option<JoinToken>,
}

/// A certificate to be asked for.
struct Wish<'a> {
    signer: &'static str,
    purpose: &'static str,
    names: &'a [String],
    addresses: &'a [IpAddr],
}

/// Where the certificate of a kubelet at these addresses is kept.
fn file_of(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    format!("kubelet-{}", addresses.join("+"))
}

/// The user that a certificate makes of who has it.
fn user_of(credential: &Credential) -> Option<String> {
    certificate_user(&credential.to_der()?.0).map(|user| user.username)
}

impl Identity {
    /// The user that the node is.
    fn user(&self) -> String {
        format!("system:node:{}", self.name)
    }

    /// Gets to know the authority, by the token or as it was known before.
    pub(super) async fn open(self, token: Option<JoinToken>) -> anyhow::Result<Member> {
        let folder = self.folder.clone();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("ca.pem");
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let authority = match (kept, &token) {
            (Some(kept), Some(token)) => {
                let same = Fingerprint::of_pem(kept.as_bytes()) == Some(token.authority);
                ensure!(
                    same,
                    "the token is of another cluster than this node; end the node's membership by coracle reset"
                );
                kept
            }
            (Some(kept), None) => kept,
            (None, None) => bail!("this node has not joined a cluster yet; give it a token by --token-file"),
            (None, Some(token)) => {
                let found = self.meet(token.authority).await?;
                write_private(&path, found.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
                found
            }
        };
        Ok(Member { own: self, authority, token })
    }

    async fn meet(&self, pin: Fingerprint) -> anyhow::Result<String> {
        let mut pause = PAUSE.0;
        loop {
            match client::authority(&self.server, pin).await {
                Ok(found) => return Ok(found),
                Err(error @ AuthorityError::Address(_)) => return Err(error).context("--server"),
                Err(error) => warn(&error.into(), "the server cannot be met, trying again"),
            }
            wait(&mut pause).await;
        }
    }
}

impl Member {
    /// The authority's certificate, PEM.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The way to the API server as the node, which joins now if it must.
    pub(super) async fn enrol(&self) -> anyhow::Result<HttpsTransport> {
        let mut pause = PAUSE.0;
        loop {
            if let Some(credential) = self.kept("client")?
                && self.state(&credential) != State::Ended
            {
                return self.transport(&credential);
            }
            match self.join().await {
                Ok(credential) => self.keep("client", &credential)?,
                Err(error) if is_hopeless(&error) => return Err(error),
                Err(error) => warn(&error, "the node has not joined, trying again"),
            }
            wait(&mut pause).await;
        }
    }

    /// Lets new certificates take the place of old ones, until the tasks end. The kubelet is known by all these addresses.
    pub(super) fn keep_fresh(
        self: &Arc<Self>,
        transport: &Arc<Rotating>,
        serving: Arc<Serving>,
        addresses: Vec<IpAddr>,
    ) {
        let client = Client::new(transport.clone(), &format!("coracle-agent/{}", self.own.name));
        let (member, rotating, own) = (Arc::clone(self), Arc::clone(transport), client.clone());
        self.own.tasks.spawn("client certificate", async move {
            let mut pause = PAUSE.0;
            loop {
                match member.renew_client(&own, &rotating).await {
                    Ok(next) => {
                        pause = PAUSE.0;
                        tokio::time::sleep(next).await;
                    }
                    Err(error) => {
                        warn(&error, "the node's certificate is not renewed, trying again");
                        wait(&mut pause).await;
                    }
                }
            }
        });
        let member = Arc::clone(self);
        self.own.tasks.spawn("kubelet certificate", async move {
            let mut pause = PAUSE.0;
            loop {
                match member.renew_serving(&client, &serving, &addresses).await {
                    Ok(next) => {
                        pause = PAUSE.0;
                        tokio::time::sleep(next).await;
                    }
                    Err(error) => {
                        warn(&error, "the kubelet has no certificate for its API, trying again");
                        wait(&mut pause).await;
                    }
                }
            }
        });
    }

    /// Renews the certificate if it is time, and says when to look again.
    async fn renew_client(&self, client: &Client, transport: &Rotating) -> anyhow::Result<Duration> {
        let state = self.kept("client")?.map_or(State::Ended, |credential| self.state(&credential));
        let next = match state {
            State::Good(at) => return Ok(self.until(at)),
            State::Due => self.ask(client, &Wish::client()).await?,
            State::Ended => self.join().await?,
        };
        self.keep("client", &next)?;
        transport.replace(self.transport(&next)?);
        tracing::info!("the node has a new certificate");
        Ok(PAUSE.0)
    }

    /// The same for the kubelet's API.
    async fn renew_serving(
        &self,
        client: &Client,
        serving: &Serving,
        addresses: &[IpAddr],
    ) -> anyhow::Result<Duration> {
        // A node that has moved is known by other addresses.
        let file = file_of(addresses);
        let kept = self.kept(&file)?;
        if let Some(kept) = &kept
            && let State::Good(at) = self.state(kept)
        {
            serving.replace(certified_key(&self.authority, kept)?);
            return Ok(self.until(at));
        }
        if let Some(kept) = kept.filter(|kept| self.state(kept) == State::Due) {
            serving.replace(certified_key(&self.authority, &kept)?);
        }
        let names = [self.own.name.clone()];
        let wish = Wish { signer: SERVING, purpose: "server auth", names: &names, addresses };
        let next = self.ask(client, &wish).await?;
        self.keep(&file, &next)?;
        tracing::info!("the kubelet has a new certificate for its API");
        Ok(Duration::ZERO)
    }

    /// A first certificate, by the token.
    async fn join(&self) -> anyhow::Result<Credential> {
        let Some(token) = &self.token else {
            return Err(Hopeless::NoToken(self.own.name.clone()).into());
        };
        let identity = client::Identity::Token(token.bearer.clone());
        let transport = self.transport_as(identity)?;
        let client = Client::new(Arc::new(transport), &format!("coracle-agent/{}", self.own.name));
        let asked = self.ask(&client, &Wish::client()).await;
        asked.map_err(|error| match error.downcast_ref::<ClientError>().and_then(ClientError::api) {
            Some(refusal) if refusal.code == 401 => Hopeless::Unknown(self.own.name.clone()).into(),
            Some(refusal) if refusal.code == 403 => Hopeless::Refused(refusal.message.clone()).into(),
            _ => error,
        })
    }

    /// Asks for a certificate and waits for it.
    async fn ask(&self, client: &Client, wish: &Wish<'_>) -> anyhow::Result<Credential> {
        let user = self.own.user();
        let asked = Asked::new(&user, NODES, wish.names, wish.addresses)?;
        let request = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(asked.request.clone().into_bytes()),
                signer_name: wish.signer.to_owned(),
                usages: Some(vec!["digital signature".to_owned(), wish.purpose.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let name = client.create(&request).await?.metadata.name.unwrap_or_default();
        let tasks = self.own.tasks.child();
        let answer = tokio::time::timeout(PATIENCE, answer(client, &tasks, &name)).await;
        tasks.stop();
        let answer = answer.with_context(|| format!("nobody has approved the request {name}"))?;
        Ok(asked.issued(answer?))
    }

    fn state(&self, credential: &Credential) -> State {
        state(credential.validity(), &self.own.name, self.own.clock.now())
    }

    fn until(&self, at: jiff::Timestamp) -> Duration {
        let left = Duration::try_from(at.duration_since(self.own.clock.now())).unwrap_or_default();
        left.clamp(PAUSE.0, LOOK)
    }

    /// What is kept for this node; a certificate of another name is as good as none.
    fn kept(&self, name: &str) -> anyhow::Result<Option<Credential>> {
        let path = self.own.folder.join(format!("{name}.pem"));
        let kept = Credential::kept(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(kept) = kept else { return Ok(None) };
        let user = user_of(&kept);
        if user.as_deref() == Some(&*self.own.user()) {
            return Ok(Some(kept));
        }
        tracing::warn!(path = %path.display(), user, node = self.own.name, "the kept certificate is not this node's");
        Ok(None)
    }

    fn keep(&self, name: &str, credential: &Credential) -> anyhow::Result<()> {
        let path = self.own.folder.join(format!("{name}.pem"));
        credential.keep(&path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn transport(&self, credential: &Credential) -> anyhow::Result<HttpsTransport> {
        let (chain, key) = (credential.certificate.clone().into_bytes(), credential.key().as_bytes().to_vec());
        self.transport_as(client::Identity::Certificate { chain, key })
    }

    fn transport_as(&self, identity: client::Identity) -> anyhow::Result<HttpsTransport> {
        let ca = self.authority.clone().into_bytes();
        let config = HttpsConfig { server: self.own.server.clone(), ca, server_name: None, identity };
        Ok(HttpsTransport::new(config, &self.own.tasks)?)
    }
}

impl Wish<'static> {
    fn client() -> Self {
        Self { signer: CLIENT, purpose: "client auth", names: &[], addresses: &[] }
    }
}

/// Why trying again does not help.
#[derive(Debug, thiserror::Error)]
enum Hopeless {
    #[error(
        "there is no good certificate of node {0}, and no token; on the server: coracle token create --node {0}; here: --token-file FILE"
    )]
    NoToken(String),
    #[error("the server does not know the token any more; on the server: coracle token create --node {0}")]
    Unknown(String),
    #[error("the server refuses: {0}")]
    Refused(String),
}

fn is_hopeless(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hopeless>().is_some()
}

/// The certificate that is issued on a request.
async fn answer(client: &Client, tasks: &Tasks, name: &str) -> anyhow::Result<String> {
    let own = ListOptions::fields(&format!("metadata.name={name}"));
    let requests: Informer<CertificateSigningRequest> = Informer::spawn(client, tasks, Scope::Cluster, own);
    let mut dirty = requests.subscribe();
    requests.synced().await;
    loop {
        let request = requests.get(&Key::cluster(name)).with_context(|| format!("the request {name} is gone"))?;
        let status = request.status.as_ref();
        if let Some(certificate) =
            status.and_then(|status| status.certificate.as_ref()).filter(|text| !text.0.is_empty())
        {
            return Ok(String::from_utf8(certificate.0.clone())?);
        }
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        if let Some(refusal) = conditions.iter().find(|condition| condition.type_ != "Approved") {
            let message = refusal.message.as_deref().unwrap_or_default();
            bail!("the request {name} was refused ({}): {message}", refusal.type_);
        }
        dirty.next().await;
    }
}

async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE.1);
}

fn warn(error: &anyhow::Error, what: &'static str) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    tracing::warn!(error = causes.join(": "), "{what}");
}

#[cfg(test)]
mod tests {
    use apiserver::Entropy;
    use apiserver::pki::{Pki, Subject};
    use task::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn a_node_of_another_name_is_not_known_by_the_certificate_that_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let pki = Pki::open(&folder.path().join("pki"), now, &Entropy::system()).unwrap();
        let credential = pki.mint(&Subject::client("system:node:edge-1", &[NODES]), now).unwrap();
        credential.keep(&folder.path().join("client.pem")).unwrap();
        let kept = |name: &str| {
            let own = Identity {
                folder: folder.path().to_owned(),
                server: "https://192.0.2.1:6443".to_owned(),
                name: name.to_owned(),
                clock: Arc::new(SystemClock),
                tasks: Tasks::new(),
            };
            let member = Member { own, authority: pki.certificate().to_owned(), token: None };
            member.kept("client").unwrap().is_some()
        };
        assert!(kept("edge-1"));
        assert!(!kept("edge-2") && !kept("edge") && !kept("edge-11"));
    }
}
