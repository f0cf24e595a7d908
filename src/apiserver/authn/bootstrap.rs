//! Bootstrap tokens: what a machine shows that has nothing else yet, `id.secret` of a Secret in `kube-system`.
//!
//! Follows `plugin/pkg/auth/authenticator/token/bootstrap`. Whatever does not fit makes the token unknown; nobody is told
//! what was wrong with it.

use api::status::ApiError;
use api::user::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::object::is_terminating;
use crate::server::ApiServer;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

impl ApiServer {
    /// Who shows a bootstrap token; none if it is none, or not good.
    pub(super) async fn bootstrapper(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let Some((id, secret)) = parts(token) else { return Ok(None) };
        let row = api::resources::find("", "v1", "secrets").ok_or_else(|| ApiError::internal("no secrets"))?;
        match self.read(row, NAMESPACE, &format!("bootstrap-token-{id}")).await {
            Ok((found, _)) => Ok(user(&found, id, secret, self.config.clock.now())),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The two parts of a token: six and sixteen small letters or digits.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// The user that a Secret makes of whoever shows its token.
fn user(found: &Value, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let data = |key: &str| {
        let bytes = STANDARD.decode(found["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    // Hashes are compared, lest the time that it takes tells how much of a guess was right.
    let same =
        |one: &str, other: &str| digest(&SHA256, one.as_bytes()).as_ref() == digest(&SHA256, other.as_bytes()).as_ref();
    let end = data("expiration");
    let good = !is_terminating(found)
        && found["type"] == TYPE
        && same(&data("token-secret"), secret)
        && data("token-id") == id
        && (end.is_empty() || end.parse::<Timestamp>().is_ok_and(|end| now < end))
        && data("usage-bootstrap-authentication") == "true";
    if !good {
        return None;
    }
    let further = data("auth-extra-groups");
    let further: Vec<&str> = further.split(',').filter(|group| !group.is_empty()).collect();
    if !further.iter().all(|group| is_bootstrap_group(group)) {
        return None;
    }
    let groups: Vec<&str> = std::iter::once(GROUP).chain(further).collect();
    Some(UserInfo::authenticated(&format!("system:bootstrap:{id}"), &groups))
}

/// `BootstrapGroupPattern`: a token can give no other groups.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().last().is_some_and(letter)
        && rest.bytes().all(|byte| letter(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(change: &[(&str, &str)]) -> Option<Vec<String>> {
        let mut secret = json!({ "type": TYPE, "data": {} });
        let usual =
            [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        for (key, value) in usual.iter().chain(change) {
            secret["data"][*key] = STANDARD.encode(value).into();
        }
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let user = user(&secret, "abcdef", "0123456789abcdef", now)?;
        assert_eq!(user.username, "system:bootstrap:abcdef");
        Some(user.groups)
    }

    #[test]
    fn a_token_is_good_for_its_time_and_use_only() {
        let usual = Some(vec![GROUP.to_owned(), "system:authenticated".to_owned()]);
        assert_eq!(groups(&[]), usual);
        assert_eq!(groups(&[("expiration", "2026-01-02T03:04:06Z")]), usual);
        for wrong in [
            ("expiration", "2026-01-02T03:04:05Z"),
            ("expiration", "tomorrow"),
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdee"),
            ("usage-bootstrap-authentication", "false"),
        ] {
            assert_eq!(groups(&[wrong]), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_gives_groups_of_bootstrappers_and_no_others() {
        let with = groups(&[("auth-extra-groups", "system:bootstrappers:edge,system:bootstrappers:a:b")]).unwrap();
        assert_eq!(with[..3], [GROUP, "system:bootstrappers:edge", "system:bootstrappers:a:b"].map(str::to_owned));
        for wrong in ["system:masters", "system:bootstrappers:", "system:bootstrappers:X", "system:bootstrappers:a-"] {
            assert_eq!(groups(&[("auth-extra-groups", wrong)]), None, "{wrong}");
        }
    }

    #[test]
    fn only_tokens_of_the_right_form_are_looked_up() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in
            ["abcde.0123456789abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef", "a/../b.0"]
        {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
