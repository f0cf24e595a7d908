//! What a client asks of a deletion: `DeleteOptions`, and which finalizers of the garbage collector follow from them.

use api::resources::Dependents;
use api::status::{ApiError, FieldError};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::body;
use crate::object::metadata_mut;
use crate::query::Query;

/// Holds an object until the garbage collector has cut its dependents off.
const ORPHAN: &str = "orphan";
/// Holds an object until the garbage collector has removed the dependents that block it.
const FOREGROUND: &str = "foregroundDeletion";

/// What is to become of the dependents of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They follow it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a client asks of a deletion.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Seconds that the object gets.
    pub(crate) grace: Option<u64>,
    /// Only the object with this uid.
    pub(crate) uid: Option<String>,
    /// Only this state of it.
    pub(crate) version: Option<String>,
    /// Nothing is stored.
    pub(crate) dry: bool,
    /// What is to become of its dependents; none leaves it to the kind and to the object's finalizers.
    pub(crate) propagation: Option<Propagation>,
    /// The client wants to know by a 202 that the deletion goes on in the background.
    pub(crate) tells_accepted: bool,
}

impl Options {
    /// Options from the body, or from the query if there is none. A dry run may be asked for by either.
    pub(crate) fn read(bytes: &Bytes, headers: &HeaderMap, query: &Query) -> Result<Self, ApiError> {
        let mut options = if bytes.is_empty() {
            Self::of_value(&of_query(query)?)?
        } else {
            Self::of_value(&body::parse(bytes, &body::media_type(headers))?.value)?
        };
        options.dry |= body::dry_run(query.all("dryRun"), "DeleteOptions")?;
        Ok(options)
    }

    /// Options as `DeleteOptions` has them; null has none.
    pub(crate) fn of_value(given: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if text(&given["kind"]).is_some_and(|kind| kind != "DeleteOptions") {
            return Err(ApiError::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let grace = match &given["gracePeriodSeconds"] {
            Value::Null => None,
            // Upstream takes a negative period for the shortest one.
            value => match value.as_i64() {
                Some(seconds) => Some(u64::try_from(seconds).unwrap_or(1)),
                None => return Err(ApiError::bad_request("gracePeriodSeconds must be a whole number")),
            },
        };
        let listed = given["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let (orphan, policy) = (given["orphanDependents"].as_bool(), &given["propagationPolicy"]);
        Ok(Self {
            grace,
            uid: text(&given["preconditions"]["uid"]),
            version: text(&given["preconditions"]["resourceVersion"]),
            dry: body::dry_run(listed, "DeleteOptions")?,
            propagation: propagation(orphan, policy)?,
            tells_accepted: orphan == Some(false),
        })
    }
}

/// The options that stand in a query (`Convert_url_Values_To_v1_DeleteOptions`).
fn of_query(query: &Query) -> Result<Value, ApiError> {
    let mut given = json!({});
    if let Some(text) = query.get("gracePeriodSeconds") {
        let wrong = || ApiError::bad_request(format!("gracePeriodSeconds: {text:?} is no whole number"));
        given["gracePeriodSeconds"] = text.parse::<i64>().map_err(|_| wrong())?.into();
    }
    if query.has("orphanDependents") {
        given["orphanDependents"] = query.flag("orphanDependents").into();
    }
    if let Some(policy) = query.get("propagationPolicy") {
        given["propagationPolicy"] = policy.into();
    }
    if let Some(uid) = query.get("uid") {
        given["preconditions"]["uid"] = uid.into();
    }
    Ok(given)
}

fn propagation(orphan: Option<bool>, policy: &Value) -> Result<Option<Propagation>, ApiError> {
    let invalid = |error| Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
    match (orphan, policy.as_str()) {
        (Some(_), Some(_)) => {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            invalid(FieldError::invalid("propagationPolicy", policy, detail))
        }
        (Some(true), None) | (None, Some("Orphan")) => Ok(Some(Propagation::Orphan)),
        (Some(false), None) | (None, Some("Background")) => Ok(Some(Propagation::Background)),
        (None, Some("Foreground")) => Ok(Some(Propagation::Foreground)),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            invalid(FieldError::not_supported("propagationPolicy", policy, &known))
        }
    }
}

/// Gives an object that is to be deleted the finalizers that its deletion calls for, and takes those away that it does
/// not (`deletionFinalizersForGarbageCollection` of `k8s.io/apiserver/pkg/registry/generic/registry`).
pub(super) fn settle_finalizers(object: &mut Value, asked: Option<Propagation>, dependents: Dependents) {
    let before: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let by_finalizer = || {
        let foreground = has(FOREGROUND).then_some(Propagation::Foreground);
        has(ORPHAN).then_some(Propagation::Orphan).or(foreground)
    };
    let wanted = match dependents {
        Dependents::None => None,
        Dependents::Deleted => asked.or_else(by_finalizer),
        Dependents::Orphaned { .. } => asked.or_else(by_finalizer).or(Some(Propagation::Orphan)),
    };
    let wanted = match wanted {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) | None => None,
    };
    let is_ours = |finalizer: &Value| finalizer == ORPHAN || finalizer == FOREGROUND;
    let ours: Vec<&Value> = before.iter().filter(|finalizer| is_ours(finalizer)).collect();
    if ours == wanted.as_slice() {
        return;
    }
    let mut after: Vec<Value> = before.into_iter().filter(|finalizer| !is_ours(finalizer)).collect();
    after.extend(wanted.map(Value::from));
    let metadata = metadata_mut(object);
    if after.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), after.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORPHANED: Dependents = Dependents::Orphaned { warning: "" };

    fn settled(before: &[&str], asked: Option<Propagation>, dependents: Dependents) -> Value {
        let mut object = json!({ "metadata": { "finalizers": before } });
        settle_finalizers(&mut object, asked, dependents);
        object["metadata"]["finalizers"].clone()
    }

    #[test]
    fn what_is_asked_comes_before_what_the_object_says_and_that_before_what_the_kind_says() {
        use Propagation::{Background, Foreground, Orphan};
        let deleted = Dependents::Deleted;
        assert_eq!(settled(&["a"], Some(Foreground), deleted), json!(["a", "foregroundDeletion"]));
        assert_eq!(settled(&["foregroundDeletion", "a"], Some(Orphan), deleted), json!(["a", "orphan"]));
        assert_eq!(settled(&["orphan"], Some(Background), deleted), Value::Null);
        assert_eq!(settled(&["orphan", "a"], None, deleted), json!(["orphan", "a"]));
        assert_eq!(settled(&["a"], None, deleted), json!(["a"]));
        assert_eq!(settled(&["a"], None, ORPHANED), json!(["a", "orphan"]));
        assert_eq!(settled(&["foregroundDeletion"], None, ORPHANED), json!(["foregroundDeletion"]));
        assert_eq!(settled(&[], Some(Background), ORPHANED), json!([]));
        assert_eq!(settled(&["orphan"], Some(Foreground), Dependents::None), Value::Null);
    }

    #[test]
    fn a_query_says_the_same_as_a_body_and_both_words_for_orphans_together_are_refused() {
        let headers = HeaderMap::new();
        let read = |body: &str, query: &str| {
            Options::read(&Bytes::copy_from_slice(body.as_bytes()), &headers, &Query::parse(query))
        };
        let asked = read("", "propagationPolicy=Foreground&gracePeriodSeconds=-5&uid=u&dryRun=All").unwrap();
        assert_eq!((asked.propagation, asked.grace), (Some(Propagation::Foreground), Some(1)));
        assert_eq!((asked.uid.as_deref(), asked.dry, asked.tells_accepted), (Some("u"), true, false));
        let asked = read(r#"{"orphanDependents":false}"#, "propagationPolicy=Orphan").unwrap();
        assert_eq!((asked.propagation, asked.tells_accepted), (Some(Propagation::Background), true));
        assert_eq!(read("", "orphanDependents=true").unwrap().propagation, Some(Propagation::Orphan));
        let both = read(r#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#, "").unwrap_err();
        assert!(both.message.ends_with("orphanDependents and deletionPropagation cannot be both set"), "{both}");
        assert_eq!(read("", "propagationPolicy=Maybe").unwrap_err().code, 422);
        assert_eq!(read(r#"{"kind":"Pod"}"#, "").unwrap_err().code, 400);
        assert_eq!(read("", "gracePeriodSeconds=soon").unwrap_err().code, 400);
    }
}
