//! Tokens of service accounts that lie in Secrets and do not end, as they were before TokenRequest.
//!
//! Follows `pkg/serviceaccount/legacy.go`. Such a token is good while its Secret has it and its account lives. They are made
//! only for Secrets of type `kubernetes.io/service-account-token`, which somebody must ask for.

use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::account::{Living, account_user, user_name};
use super::jws::Compact;
use super::{Known, TokenError};
use crate::object::{is_terminating, meta};
use crate::server::ApiServer;

/// Who issues such tokens, whatever the cluster is called.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// Marks a Secret whose token is not to be taken any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What a token of a Secret says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretToken {
    /// Namespace of both.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub namespace: String,
    /// The Secret that has the token.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub secret: String,
    /// Whose token it is.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub account: String,
    /// Which of the accounts that had this name.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub account_uid: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(flatten)]
    token: SecretToken,
    #[serde(default)]
    sub: String,
}

fn refused(text: impl Into<String>) -> TokenError {
    TokenError::Refused(text.into())
}

impl ApiServer {
    /// Signs a token that lies in a Secret. Whether somebody may have it is the caller's to know.
    ///
    /// # Errors
    /// If the key does not sign.
    pub fn secret_token(&self, token: SecretToken) -> Result<String, ApiError> {
        let claims = Claims { iss: ISSUER.to_owned(), sub: user_name(&token.namespace, &token.account), token };
        let text = serde_json::to_string(&claims).map_err(ApiError::internal)?;
        let signed = self.config.issuer.keys.sign(&text);
        signed.ok_or_else(|| ApiError::internal("the token could not be signed"))
    }

    /// The account whose token it is, by a Secret that has it.
    pub(super) async fn account_of_secret(
        &self,
        token: &str,
        compact: &Compact<'_>,
        audiences: Vec<String>,
    ) -> Result<Known, TokenError> {
        let keys = &self.config.issuer.keys;
        let claims = keys.verify(compact).ok_or_else(|| refused("invalid signature, no keys found"))?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|error| refused(error.to_string()))?;
        let own = claims.token;
        if claims.sub.is_empty() || claims.sub != user_name(&own.namespace, &own.account) {
            return Err(refused("sub claim is invalid"));
        }
        for (claim, word) in [
            (&own.namespace, "namespace"),
            (&own.secret, "secretName"),
            (&own.account, "serviceAccountName"),
            (&own.account_uid, "serviceAccountUID"),
        ] {
            if claim.is_empty() {
                return Err(refused(format!("{word} claim is missing")));
            }
        }
        match self.living("secrets", &own.namespace, &own.secret).await? {
            Living::Yes(secret) => check_secret(&secret, token, &own)?,
            Living::Deleted | Living::Never => return Err(refused("Token has been invalidated")),
        }
        match self.living("serviceaccounts", &own.namespace, &own.account).await? {
            Living::Yes(account) if is_terminating(&account) => {
                return Err(refused(format!("ServiceAccount {}/{} has been deleted", own.namespace, own.account)));
            }
            Living::Yes(account) if meta(&account, "uid") != own.account_uid => {
                let uid = meta(&account, "uid");
                let text = format!("ServiceAccount UID ({uid}) does not match claim ({})", own.account_uid);
                return Err(refused(text));
            }
            Living::Yes(_) => {}
            Living::Deleted | Living::Never => {
                return Err(refused(format!("serviceaccounts {:?} not found", own.account)));
            }
        }
        Ok(Known { user: account_user(&own.namespace, &own.account, &own.account_uid), audiences })
    }
}

fn check_secret(secret: &Value, token: &str, own: &SecretToken) -> Result<(), TokenError> {
    if is_terminating(secret) {
        return Err(refused("Token has been invalidated"));
    }
    let stored = STANDARD.decode(secret["data"]["token"].as_str().unwrap_or_default()).unwrap_or_default();
    // Hashes are compared, lest the time that it takes tells how much of a guess was right.
    if digest(&SHA256, &stored).as_ref() != digest(&SHA256, token.as_bytes()).as_ref() {
        return Err(refused("Token does not match server's copy"));
    }
    if !secret["metadata"]["labels"][INVALID_SINCE].is_null() {
        let SecretToken { namespace, secret, account, .. } = own;
        let text = format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. \
             Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        );
        return Err(refused(text));
    }
    Ok(())
}
