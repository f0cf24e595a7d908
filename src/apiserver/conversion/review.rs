//! ConversionReviews (`apiextensions.k8s.io/v1`, and `v1beta1` for webhooks that know nothing newer): pure.
//!
//! Of metadata a webhook may change labels and annotations and nothing else.

use std::collections::BTreeSet;

use api::names;
use api::status::FieldError;
use serde_json::{Map, Value, json};

/// What a webhook is asked.
pub(super) struct Review<'a> {
    pub(super) document: Value,
    version: &'static str,
    uid: String,
    objects: &'a [Value],
    wanted: &'a str,
}

/// A kind with its group and version, as upstream's messages name it.
fn name_of(object: &Value) -> String {
    named(text(object, "apiVersion"), text(object, "kind"))
}

fn named(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

impl<'a> Review<'a> {
    pub(super) fn new(version: &'static str, objects: &'a [Value], wanted: &'a str, uid: String) -> Self {
        let request = json!({ "uid": uid, "desiredAPIVersion": wanted, "objects": objects });
        let document = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"), "request": request,
        });
        Self { document, version, uid, objects, wanted }
    }

    fn sentence(&self, rest: &str) -> String {
        format!("conversion webhook for {} {rest}", self.objects.first().map(name_of).unwrap_or_default())
    }

    /// The message of a webhook that has given no answer.
    pub(super) fn failed(&self, why: &str) -> String {
        self.sentence(&format!("failed: {why}"))
    }

    /// The objects of an answer, in the order of those that were sent.
    pub(super) fn read(&self, mut answer: Value) -> Result<Vec<Value>, String> {
        self.check(&answer).map_err(|why| self.failed(&why))?;
        let Value::Array(mut converted) = answer["response"]["convertedObjects"].take() else {
            return Err(self.sentence(&format!("returned 0 objects, expected {}", self.objects.len())));
        };
        if converted.len() != self.objects.len() {
            let (got, expected) = (converted.len(), self.objects.len());
            return Err(self.sentence(&format!("returned {got} objects, expected {expected}")));
        }
        for (index, (object, original)) in converted.iter_mut().zip(self.objects).enumerate() {
            self.check_version(object, original, index)?;
            let [wrong, odd] = match self.objects {
                [_] => ["object".to_owned(), "metadata".to_owned()],
                _ => [format!("converted object at index {index}"), format!("metadata in object at index {index}")],
            };
            same_object(original, object).map_err(|why| self.sentence(&format!("returned invalid {wrong}: {why}")))?;
            restore(original, object).map_err(|why| self.sentence(&format!("returned invalid {odd}: {why}")))?;
        }
        Ok(converted)
    }

    /// Whether the answer is one, to this question, and says that it went well (`getConvertedObjectsFromResponse`).
    fn check(&self, answer: &Value) -> Result<(), String> {
        const EXPECTED: &str = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        let (is_v1, response) = (self.version == "v1", &answer["response"]);
        let got = name_of(answer);
        if is_v1 && got != EXPECTED {
            return Err(format!("expected webhook response of {EXPECTED}, got {got}"));
        }
        if response.is_null() {
            return Err("no response provided".to_owned());
        }
        let uid = text(response, "uid");
        if is_v1 && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        match (text(&response["result"], "status"), text(&response["result"], "message")) {
            ("Success", _) => Ok(()),
            (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
            (_, why) => Err(why.to_owned()),
        }
    }

    fn check_version(&self, object: &Value, original: &Value, index: usize) -> Result<(), String> {
        let what = if self.objects.len() == 1 { "object" } else { "converted object" };
        let wrong = |of: &str, expected: &str, got: &str| {
            let why = format!("invalid {of} (expected {expected}, received {got})");
            Err(self.sentence(&format!("returned invalid {what} at index {index}: {why}")))
        };
        let (version, kind) = (text(object, "apiVersion"), text(object, "kind"));
        if version != self.wanted {
            return wrong("groupVersion", self.wanted, version);
        }
        if kind != text(original, "kind") {
            return wrong("kind", text(original, "kind"), kind);
        }
        Ok(())
    }
}

/// Whether it is the same object still (`validateConvertedObject`).
fn same_object(original: &Value, object: &Value) -> Result<(), String> {
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, got) = (text(&original["metadata"], field), text(&object["metadata"], field));
        if expected != got {
            return Err(format!("must have the same {word}: {expected} != {got}"));
        }
    }
    Ok(())
}

/// Gives an object its metadata back, but for labels and annotations (`restoreObjectMeta`).
fn restore(original: &Value, object: &mut Value) -> Result<(), String> {
    let given = match object.get("metadata") {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", go_type(other))),
    };
    let mut metadata = original["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let own = match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(own)) => own,
            Some(other) => {
                return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(other)));
            }
        };
        if let Some((key, value)) = own.iter().find(|(_, value)| !value.is_string()) {
            let ty = go_type(value);
            return Err(format!("metadata.{field}[{key}] must be a string, but is {ty} in converted object"));
        }
        if metadata.get(field).and_then(Value::as_object) != Some(own) {
            check_words(field, own)?;
        }
        metadata.insert(field.to_owned(), Value::Object(own.clone()));
    }
    object["metadata"] = Value::Object(metadata);
    Ok(())
}

/// The rules of labels and annotations, for those that a webhook gave.
fn check_words(field: &str, words: &Map<String, Value>) -> Result<(), String> {
    let errors = match field {
        "labels" => names::validate_labels(Some(words), "metadata.labels"),
        // Upstream names the field so.
        _ => names::validate_annotations(Some(words), "metadata.annotation"),
    };
    let told: BTreeSet<String> =
        errors.iter().map(|FieldError { field, text, .. }| format!("{field}: {text}")).collect();
    match told.len() {
        0 => Ok(()),
        1 => Err(told.into_iter().collect()),
        _ => Err(format!("[{}]", told.into_iter().collect::<Vec<_>>().join(", "))),
    }
}

/// What Go calls the type of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
