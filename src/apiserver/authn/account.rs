//! Tokens of service accounts: what they say, and whether it is still true.
//!
//! Follows `pkg/serviceaccount/{claims,jwt,util}.go`. A token is good while its account lives, and the pod, secret or node
//! that it is bound to, each with the same uid: whoever deletes one of them ends the token. Clocks may differ by
//! [`LEEWAY`]. Invariant: nothing of a token is believed before its signature has been checked.

use api::status::ApiError;
use api::user::UserInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jws::{Compact, SigningKeys};
use super::{Known, TokenError, common, legacy};
use crate::object::meta;
use crate::server::ApiServer;

/// How far clocks may differ, in seconds (`jwt.DefaultLeeway`).
const LEEWAY: i64 = 60;

/// Who signs tokens, and for whom they are by default.
#[derive(Debug)]
pub struct Issuer {
    audiences: [String; 1],
    pub(crate) keys: SigningKeys,
}

impl Issuer {
    /// The issuer of a cluster with this domain, e.g. `cluster.local`; its URL is also the server's own audience.
    pub fn new(domain: &str, keys: SigningKeys) -> Self {
        Self { audiences: [format!("https://kubernetes.default.svc.{domain}")], keys }
    }

    /// Its name, a URL.
    pub(crate) fn url(&self) -> &str {
        &self.audiences[0]
    }

    /// The audiences of tokens for this server.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }
}

/// What a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

impl Bound {
    pub(crate) fn to(object: &Value) -> Self {
        Self { name: meta(object, "name").to_owned(), uid: meta(object, "uid").to_owned() }
    }
}

/// The claims that are Kubernetes' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Bound>,
    pub(crate) serviceaccount: Bound,
    /// When the client should have fetched another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// A token in the making.
#[derive(Debug)]
pub(crate) struct Issued<'a> {
    pub(crate) audiences: &'a [String],
    pub(crate) lifetime: i64,
    pub(crate) id: String,
    pub(crate) grant: Grant,
}

/// All claims, in the order in which upstream writes them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    exp: i64,
    #[serde(default)]
    iat: i64,
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Grant,
    #[serde(default)]
    nbf: i64,
    sub: String,
}

/// One audience may stand without a list (RFC 7519, section 4.1.3).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn list(&self) -> &[String] {
        match self {
            Self::Many(many) => many,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

impl Issuer {
    /// Signs a token that is good from now on.
    pub(crate) fn issue(&self, token: Issued<'_>, now: Timestamp) -> Result<String, ApiError> {
        let now = now.as_second();
        let Issued { audiences, lifetime, id, grant } = token;
        let claims = Claims {
            aud: Audience::Many(audiences.to_vec()),
            exp: now + lifetime,
            iat: now,
            iss: self.url().to_owned(),
            jti: id,
            sub: user_name(&grant.namespace, &grant.serviceaccount.name),
            nbf: now,
            kubernetes: grant,
        };
        let text = serde_json::to_string(&claims).map_err(ApiError::internal)?;
        self.keys.sign(&text).ok_or_else(|| ApiError::internal("the token could not be signed"))
    }
}

pub(super) fn user_name(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

fn refused(text: impl Into<String>) -> TokenError {
    TokenError::Refused(text.into())
}

fn invalidated() -> TokenError {
    refused("service account token has been invalidated")
}

impl ApiServer {
    /// The account whose token it is.
    pub(super) async fn account_of(&self, token: &str, audiences: &[String]) -> Result<Known, TokenError> {
        #[derive(Deserialize)]
        struct Origin {
            iss: String,
        }
        let issuer = &self.config.issuer;
        let compact = Compact::parse(token).ok_or(TokenError::Unknown)?;
        let origin: Origin = serde_json::from_slice(&compact.claims).map_err(|_| TokenError::Unknown)?;
        if origin.iss == legacy::ISSUER {
            // It is for this server, and for nobody else.
            let audiences = common(issuer.audiences(), audiences);
            return match audiences.is_empty() {
                true => Err(TokenError::Unknown),
                false => self.account_of_secret(token, &compact, audiences).await,
            };
        }
        if origin.iss != issuer.url() {
            return Err(TokenError::Unknown);
        }
        let claims = issuer.keys.verify(&compact).ok_or_else(|| refused("invalid signature, no keys found"))?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|error| refused(error.to_string()))?;
        let common = common(claims.aud.list(), audiences);
        if common.is_empty() {
            let (of, wanted) = (claims.aud.list(), audiences);
            return Err(refused(format!("token audiences {of:?} is invalid for the target audiences {wanted:?}")));
        }
        let now = self.config.clock.now().as_second();
        if now - LEEWAY > claims.exp {
            return Err(refused("service account token has expired"));
        }
        if now + LEEWAY < claims.nbf {
            return Err(refused("service account token is not valid yet"));
        }
        self.check_bound(&claims.kubernetes).await?;
        Ok(Known { user: user(&claims), audiences: common })
    }

    /// Whether everything that a token depends on is still there.
    async fn check_bound(&self, grant: &Grant) -> Result<(), TokenError> {
        let (namespace, own) = (&grant.namespace, &grant.serviceaccount);
        let account = match self.living("serviceaccounts", namespace, &own.name).await? {
            Living::Yes(account) => account,
            Living::Never => return Err(refused(format!("serviceaccounts {:?} not found", own.name))),
            Living::Deleted => {
                return Err(refused(format!("service account {namespace}/{} has been deleted", own.name)));
            }
        };
        if meta(&account, "uid") != own.uid {
            let uid = meta(&account, "uid");
            return Err(refused(format!("service account UID ({uid}) does not match claim ({})", own.uid)));
        }
        // The node of a pod is told with it; it is what the token depends on only if nothing else is.
        let node = grant.node.as_ref().filter(|_| grant.pod.is_none() && grant.secret.is_none());
        let further = [
            ("secrets", "secret", "Secret", namespace.as_str(), grant.secret.as_ref()),
            ("pods", "pod", "Pod", namespace, grant.pod.as_ref()),
            ("nodes", "node", "Node", "", node),
        ];
        for (plural, word, kind, namespace, bound) in further {
            let Some(bound) = bound else { continue };
            let Living::Yes(found) = self.living(plural, namespace, &bound.name).await? else {
                return Err(invalidated());
            };
            let uid = meta(&found, "uid");
            if uid != bound.uid {
                let text =
                    format!("{kind} UID ({uid}) does not match service account {word} ref claim ({})", bound.uid);
                return Err(refused(text));
            }
        }
        Ok(())
    }

    pub(super) async fn living(&self, plural: &str, namespace: &str, name: &str) -> Result<Living, ApiError> {
        let row = api::resources::find("", "v1", plural);
        let row = row.ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
        let found = match self.read(row, namespace, name).await {
            Ok((found, _)) => found,
            Err(error) if error.code == 404 => return Ok(Living::Never),
            Err(error) => return Err(error),
        };
        // A pod is marked with the moment by which it will have ended.
        let deleted = meta(&found, "deletionTimestamp").parse::<Timestamp>().ok();
        let gone = deleted.is_some_and(|at| at.as_second() < self.config.clock.now().as_second() - LEEWAY);
        Ok(if gone { Living::Deleted } else { Living::Yes(found) })
    }
}

/// Whether an object is still there.
pub(super) enum Living {
    Yes(Value),
    Deleted,
    Never,
}

/// The user that an account is.
pub(super) fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    let own = format!("system:serviceaccounts:{namespace}");
    let mut user = UserInfo::authenticated(&user_name(namespace, name), &["system:serviceaccounts", &own]);
    uid.clone_into(&mut user.uid);
    user
}

/// The user of a token that is good (`ServiceAccountInfo.UserInfo`).
fn user(claims: &Claims) -> UserInfo {
    const OWN: &str = "authentication.kubernetes.io/";
    let grant = &claims.kubernetes;
    let account = &grant.serviceaccount;
    let mut user = account_user(&grant.namespace, &account.name, &account.uid);
    let mut tell = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("{OWN}{key}"), vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        tell("credential-id", format!("JTI={}", claims.jti));
    }
    for (word, bound) in [("pod", &grant.pod), ("node", &grant.node)] {
        if let Some(bound) = bound {
            tell(&format!("{word}-name"), bound.name.clone());
            tell(&format!("{word}-uid"), bound.uid.clone());
        }
    }
    user
}
