//! Authentication: who makes a request.
//!
//! Called per connection with the client certificate that TLS has verified, and per request with the headers. A
//! certificate's common name is the user and its organizations are the groups; a bearer token is looked up in the static
//! table, among bootstrap tokens, then read as the token of a service account; somebody with neither is anonymous. Credentials that are wrong are
//! an error, never anonymous.

mod account;
mod bootstrap;
mod impersonation;
mod jws;
mod legacy;
mod static_tokens;

use api::status::ApiError;
use api::user::UserInfo;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::subject_names;
use crate::server::ApiServer;

pub use account::Issuer;
pub(crate) use account::{Bound, Grant, Issued};
pub use jws::{KeyError, SigningKeys};
pub use legacy::SecretToken;
pub use static_tokens::{StaticTokens, TokenFileError};

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) user: UserInfo,
    /// Those of the audiences in question that the token is for.
    pub(crate) audiences: Vec<String>,
}

/// Why a token is not taken; the words are upstream's and reach whoever asks by a TokenReview.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Nothing that is known here.
    #[error("invalid bearer token")]
    Unknown,
    /// It was made here, or says so, but is not good (any more).
    #[error("[invalid bearer token, {0}]")]
    Refused(String),
    /// What must be looked at could not be.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// The user of a client certificate whose chain and validity TLS has checked.
pub fn certificate_user(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let (name, groups) = subject_names(&certificate);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(UserInfo::authenticated(&name.filter(|name| !name.is_empty())?, &groups))
}

impl ApiServer {
    /// The user of a request on a connection with (or without) a client certificate; 401 if the request shows
    /// credentials that nobody knows.
    pub(crate) async fn authenticate(
        &self,
        certificate: Option<&UserInfo>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, ApiError> {
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(UserInfo::anonymous()) };
        let token = value.to_str().ok().and_then(bearer).ok_or_else(ApiError::unauthorized)?;
        match self.token_user(token, self.config.issuer.audiences()).await {
            Ok(known) => Ok(known.user),
            Err(TokenError::Api(error)) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a bearer token was refused");
                Err(ApiError::unauthorized())
            }
        }
    }

    /// Whose token it is, if it is for one of these audiences.
    pub(crate) async fn token_user(&self, token: &str, audiences: &[String]) -> Result<Known, TokenError> {
        let listed = match self.config.tokens.user(token) {
            Some(user) => Some(user.clone()),
            None => self.bootstrapper(token).await?,
        };
        if let Some(user) = listed {
            // Such tokens are for this server, and for nobody else.
            let audiences = common(self.config.issuer.audiences(), audiences);
            return if audiences.is_empty() { Err(TokenError::Unknown) } else { Ok(Known { user, audiences }) };
        }
        self.account_of(token, audiences).await
    }
}

/// What both lists name, in the order of the first.
fn common(ours: &[String], wanted: &[String]) -> Vec<String> {
    ours.iter().filter(|one| wanted.contains(one)).cloned().collect()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
