//! Bearer tokens from a file.

use std::collections::HashMap;

use api::user::UserInfo;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_user_uid_and_groups() {
        let tokens = StaticTokens::parse("# comment\nabc, jane, 7,\"dev,ops\"\n\nxyz,joe,8\n").unwrap();
        let jane = tokens.user("abc").unwrap();
        assert_eq!((jane.username.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.user("xyz").unwrap().groups, ["system:authenticated"]);
        assert_eq!(tokens.user("nope"), None);
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
