//! `POST` of `serviceaccounts/x/token`: a token of the account, answered and kept nowhere
//! (`pkg/registry/core/serviceaccount/storage/token.go`).

use api::resources::{self, tokenrequest};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::admission::{self, Subject};
use crate::authn::{Bound, Grant, Issued};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::object::metadata_mut;

const KIND: Kind<'static> = Kind { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", custom: None };
/// What kubelets ask for the token that every pod has (`WarnOnlyBoundTokenExpirationSeconds`).
const USUAL: i64 = 60 * 60 + 7;
/// How long such a token is good nevertheless, for clients that do not read it again (`ExpirationExtensionSeconds`), and
/// how long any token may be asked for.
const LONGEST: i64 = 365 * 24 * 60 * 60;

pub(super) async fn request(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
    // Nothing is stored in any case; a trial run is answered with what would be.
    let dry = body::dry_run(call.query.all("dryRun"), "CreateOptions")?;
    let decoded = body::decode(bytes, &call.headers, KIND, validation)?;
    let (mut object, mut warnings) = (decoded.object, decoded.warnings);
    admission::token(call, &object).await?;
    let (account, _) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    place(call, &mut object)?;
    tokenrequest::default(&mut object);
    let subject = Subject { operation: "CREATE", kind: KIND };
    admission::beside(call, subject, &mut object, dry).await?;
    let issuer = &call.server.config.issuer;
    if object["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        object["spec"]["audiences"] = json!(issuer.audiences());
    }
    let wrong = tokenrequest::validate(&object);
    if !wrong.is_empty() {
        return Err(ApiError::invalid(KIND.group, KIND.kind, "", &wrong));
    }
    let mut grant = Grant {
        namespace: call.namespace().to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Bound::to(&account),
        warnafter: None,
    };
    bind(call, &object["spec"]["boundObjectRef"], &mut grant).await?;

    let mut asked = object["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
    if asked > LONGEST {
        warnings.push(format!("requested expiration of {asked} seconds shortened to {LONGEST} seconds"));
        asked = LONGEST;
        object["spec"]["expirationSeconds"] = json!(asked);
    }
    let audiences: Vec<String> = serde_json::from_value(object["spec"]["audiences"].clone()).unwrap_or_default();
    let now = call.now();
    let mut lifetime = asked;
    if asked == USUAL && grant.pod.is_some() && audiences == issuer.audiences() {
        grant.warnafter = Some(now.as_second() + asked);
        lifetime = LONGEST;
    }
    let id = call.server.config.entropy.uuid();
    let token = issuer.issue(Issued { audiences: &audiences, lifetime, id, grant }, now)?;
    let end = now + std::time::Duration::from_secs(u64::try_from(asked).unwrap_or_default());
    let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    object["status"] = json!({ "token": token, "expirationTimestamp": end });
    Ok(Outcome { code: 201, object, warnings })
}

/// Gives the request the account's name and namespace, which it may not contradict.
fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let now = call.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let metadata = metadata_mut(object);
    for (field, word, own) in [("name", "name", call.name()), ("namespace", "namespace", call.namespace())] {
        match metadata.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" => {
                metadata.insert(field.to_owned(), own.into());
            }
            given if given == own => {}
            given => {
                let text =
                    format!("metadata.{word} {given:?} does not match the {word} of the service account {own:?}");
                return Err(ApiError::bad_request(text));
            }
        }
    }
    metadata.insert("creationTimestamp".to_owned(), now.into());
    Ok(())
}

/// Binds a token to the object that is named.
async fn bind(call: &Call, reference: &Value, grant: &mut Grant) -> Result<(), ApiError> {
    if reference.is_null() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let core = !version.contains('/');
    let find = async |plural: &str, namespace: &str, name: &str| {
        let row = resources::find("", "v1", plural).ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
        Ok::<_, ApiError>(call.server.read(row, namespace, name).await?.0)
    };
    let bound = match kind {
        "Pod" if core => {
            let pod = find("pods", call.namespace(), name).await?;
            let (own, other) = (call.name(), pod["spec"]["serviceAccountName"].as_str().unwrap_or_default());
            if own != other {
                let text = format!(
                    "cannot bind token for serviceaccount {own:?} to pod running with serviceaccount {other:?}"
                );
                return Err(ApiError::bad_request(text));
            }
            grant.node = match pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                None => None,
                Some(node) => match find("nodes", "", node).await {
                    Ok(found) => Some(Bound::to(&found)),
                    // A pod may name a node that has gone.
                    Err(error) if error.code == 404 => Some(Bound { name: node.to_owned(), uid: String::new() }),
                    Err(error) => return Err(error),
                },
            };
            grant.pod.insert(Bound::to(&pod))
        }
        "Secret" if core => grant.secret.insert(Bound::to(&find("secrets", call.namespace(), name).await?)),
        "Node" if core => grant.node.insert(Bound::to(&find("nodes", "", name).await?)),
        _ => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(text));
        }
    };
    let (asked, uid) = (text("uid"), &bound.uid);
    if !asked.is_empty() && asked != uid {
        let text = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record ({uid}). The object might \
             have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", kind, name, &text));
    }
    Ok(())
}
