//! Who asks, and whether he may: questions to the API server (`authentication.k8s.io`, `authorization.k8s.io`).

use api::user::UserInfo;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use task::chain;

use super::attributes::Wish;
use crate::serve::Refusal;
use crate::shared::Shared;

/// The user of a bearer token.
pub(super) async fn authenticate(shared: &Shared, header: Option<&HeaderValue>) -> Result<UserInfo, Refusal> {
    let unknown = || Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
    let token = header.and_then(|header| bearer(header.to_str().ok()?)).ok_or_else(unknown)?;
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token },
    });
    let answer = ask(shared, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.map_err(|problem| {
        tracing::warn!(problem, "a token could not be reviewed");
        unknown()
    })?;
    let status = &answer["status"];
    if status["authenticated"] != true {
        return Err(unknown());
    }
    serde_json::from_value(status["user"].clone()).map_err(|_| unknown())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whether a user may do something with this node.
pub(super) async fn authorize(shared: &Shared, user: &UserInfo, wish: &Wish) -> Result<(), Refusal> {
    let node = &shared.config.node_name;
    for subresource in &wish.subresources {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
                "resourceAttributes": {
                    "verb": wish.verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": node,
                },
            },
        });
        let answer = ask(shared, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await;
        match answer {
            Ok(answer) if answer["status"]["allowed"] == true => return Ok(()),
            Ok(_) => {}
            Err(problem) => {
                tracing::warn!(problem, "the access of a user could not be reviewed");
                let text = words("Authorization error", user, wish);
                return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        }
    }
    Err(Refusal(StatusCode::FORBIDDEN, words("Forbidden", user, wish)))
}

fn words(what: &str, user: &UserInfo, wish: &Wish) -> String {
    let (name, verb, subresources) = (&user.username, wish.verb, wish.subresources.join(" "));
    format!("{what} (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n")
}

async fn ask(shared: &Shared, path: &str, review: &Value) -> Result<Value, String> {
    let client = shared.client.as_ref().ok_or_else(|| "there is no API server".to_owned())?;
    client.request(Method::POST, path, Some(review)).await.map_err(|error| chain(&error))
}
