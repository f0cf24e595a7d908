//! Authentication: who makes a request.
//!
//! Called per connection with the client certificate that TLS has verified, and per request with the headers. A
//! certificate's common name is the user and its organizations are the groups; a bearer token is looked up in the
//! static table; somebody with neither is anonymous. Credentials that are wrong are an error, never anonymous.

use std::collections::HashMap;

use api::status::ApiError;
use api::user::UserInfo;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::subject_names;

/// Why a token file was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// Fewer columns than token, user and UID.
    #[error("line {line} of the token file has fewer than three columns")]
    Columns { line: usize },
    /// An empty token would let in everybody who sends an empty header.
    #[error("line {line} of the token file has an empty token or user")]
    Empty { line: usize },
    /// The same token for two users.
    #[error("line {line} of the token file repeats a token")]
    Repeated { line: usize },
    /// A quote that is not closed.
    #[error("line {line} of the token file has a quote that is not closed")]
    Quote { line: usize },
}

/// Bearer tokens from a file, as kube-apiserver's `--token-auth-file`: `token,user,uid,"group1,group2"`.
#[derive(Default)]
pub struct StaticTokens {
    users: HashMap<String, UserInfo>,
}

impl StaticTokens {
    /// Reads the file's text.
    ///
    /// # Errors
    /// If a line is malformed; its number is said, its content never.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (index, row) in text.lines().enumerate() {
            let line = index + 1;
            if row.trim().is_empty() || row.starts_with('#') {
                continue;
            }
            let columns = columns(row).ok_or(TokenFileError::Quote { line })?;
            let [token, user, uid, rest @ ..] = columns.as_slice() else {
                return Err(TokenFileError::Columns { line });
            };
            if token.is_empty() || user.is_empty() {
                return Err(TokenFileError::Empty { line });
            }
            let groups: Vec<&str> =
                rest.first().map_or("", String::as_str).split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
            let mut info = UserInfo::authenticated(user, &groups);
            info.uid.clone_from(uid);
            if users.insert(token.clone(), info).is_some() {
                return Err(TokenFileError::Repeated { line });
            }
        }
        Ok(Self { users })
    }
}

impl StaticTokens {
    /// Whose token it is.
    pub(crate) fn user(&self, token: &str) -> Option<&UserInfo> {
        self.users.get(token)
    }
}

/// The columns of one CSV line; none if a quote is not closed.
fn columns(line: &str) -> Option<Vec<String>> {
    let (mut columns, mut quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let current = columns.last_mut().expect("there is always a column");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                current.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            other => current.push(other),
        }
    }
    let trimmed = columns.into_iter().map(|column| column.trim().to_owned()).collect();
    (!quoted).then_some(trimmed)
}

/// The user of a client certificate whose chain and validity TLS has checked.
pub fn certificate_user(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let (name, groups) = subject_names(&certificate);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(UserInfo::authenticated(&name.filter(|name| !name.is_empty())?, &groups))
}

/// The user of a request on a connection with (or without) a client certificate.
///
/// # Errors
/// 401 if the request shows credentials that nobody knows.
pub fn request_user(
    certificate: Option<&UserInfo>,
    headers: &HeaderMap,
    tokens: &StaticTokens,
) -> Result<UserInfo, ApiError> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(UserInfo::anonymous()) };
    let token = value.to_str().ok().and_then(bearer).ok_or_else(ApiError::unauthorized)?;
    tokens.users.get(token).cloned().ok_or_else(ApiError::unauthorized)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn a_token_gives_user_uid_and_groups() {
        let tokens = StaticTokens::parse("# comment\nabc, jane, 7,\"dev,ops\"\n\nxyz,joe,8\n").unwrap();
        let jane = request_user(None, &with_token("Bearer abc"), &tokens).unwrap();
        assert_eq!((jane.username.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        let joe = request_user(None, &with_token("bearer xyz"), &tokens).unwrap();
        assert_eq!(joe.groups, ["system:authenticated"]);
    }

    #[test]
    fn wrong_credentials_are_refused_and_none_are_anonymous() {
        let tokens = StaticTokens::parse("abc,jane,7").unwrap();
        for value in ["Bearer nope", "Bearer", "Basic YTpi"] {
            assert_eq!(request_user(None, &with_token(value), &tokens).unwrap_err().code, 401, "{value}");
        }
        assert_eq!(request_user(None, &HeaderMap::new(), &tokens).unwrap(), UserInfo::anonymous());
    }

    #[test]
    fn malformed_token_files_are_refused_with_their_line() {
        for (text, wanted) in [
            ("a,b", "line 1 of the token file has fewer than three columns"),
            ("a,b,c\n,b,c", "line 2 of the token file has an empty token or user"),
            ("a,b,c\na,d,e", "line 2 of the token file repeats a token"),
            ("a,b,c,\"x", "line 1 of the token file has a quote that is not closed"),
        ] {
            assert_eq!(StaticTokens::parse(text).err().unwrap().to_string(), wanted);
        }
    }
}
