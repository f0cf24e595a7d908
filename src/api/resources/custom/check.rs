//! Checks of definitions (`pkg/apis/apiextensions/validation` of apiextensions).
//!
//! Upstream's internal form has no schema per version if all versions have the same, and names fields accordingly; so do
//! the messages here.

use serde_json::Value;

use super::jsonpath::JsonPath;
use super::structure;
use crate::names;
use crate::resources::path::{Path, items, present, text};
use crate::resources::{registration, rule};
use crate::status::FieldError;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Fields by which objects of one version can be selected.
const MAX_SELECTABLE: usize = 8;
/// Versions of one definition; upstream has no limit but that of the size.
const MAX_VERSIONS: usize = 100;

/// What is wrong with the `spec` of a definition, and with its name.
pub(super) fn definition(definition: &Value) -> Vec<FieldError> {
    let (spec, path) = (&definition["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    let name = text(&definition["metadata"], "name");
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", &name.into(), "must be spec.names.plural+\".\"+spec.group"));
    }
    check_group(group, &path.child("group"), &mut errors);
    let scope = path.child("scope");
    errors.extend(rule::required_one_of(&scope, text(spec, "scope"), &["Cluster", "Namespaced"]));
    check_versions(spec, &path, &mut errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        errors.extend(rule::not_empty(&path.child("names").child(field), text(&spec["names"], field)));
    }
    names(&spec["names"], &path.child("names"), &mut errors);
    check_conversion(&spec["conversion"], &path.child("conversion"), &mut errors);
    if spec["preserveUnknownFields"] == true {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(path.child("preserveUnknownFields"), &true.into(), detail));
    }
    errors
}

fn check_group(group: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let wrong = names::dns1123_subdomain(group);
    let detail = if group.is_empty() {
        return errors.push(FieldError::required(path, ""));
    } else if !wrong.is_empty() {
        wrong.join(",")
    } else if !group.contains('.') {
        "should be a domain with at least one dot".to_owned()
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, &group.into(), &detail));
}

fn check_versions(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (versions, list) = (items(spec, "versions"), path.child("versions"));
    if versions.len() > MAX_VERSIONS {
        return errors.push(FieldError::too_many(&list, versions.len(), MAX_VERSIONS));
    }
    let mut known: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let (name, at) = (text(version, "name"), list.index(index));
        joined(name, names::dns1035_label(name), &at.child("name"), "", errors);
        if version["schema"]["openAPIV3Schema"].is_null() {
            let path = at.child("schema").child("openAPIV3Schema");
            errors.push(FieldError::required(path, "schemas are required"));
        }
        if version["deprecationWarning"].is_string() {
            deprecation(version, &at, errors);
        }
        known.push(name);
    }
    let invalid = |detail: &str| FieldError::invalid(&list, &spec["versions"], detail);
    if known.iter().enumerate().any(|(index, name)| known[..index].contains(name)) {
        errors.push(invalid("must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.push(invalid("must have exactly one version marked as storage version"));
    }
    for (field, top) in
        [("schema", "validation"), ("subresources", ""), ("additionalPrinterColumns", ""), ("selectableFields", "")]
    {
        let shared = versions.windows(2).all(|pair| pair[0][field] == pair[1][field]);
        let top = if top.is_empty() { field } else { top };
        for (index, version) in versions.iter().enumerate().take(if shared { 1 } else { versions.len() }) {
            let at = if shared { path.child(top) } else { list.index(index).child(field) };
            part(version, field, &at, errors);
        }
    }
}

/// One of the parts of a version that all versions may share.
fn part(version: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let value = &version[field];
    if value.is_null() {
        return;
    }
    match field {
        "schema" if value["openAPIV3Schema"].is_null() => {}
        "schema" => errors.extend(structure::check(&value["openAPIV3Schema"], &path.child("openAPIV3Schema"))),
        "subresources" => check_scale(&value["scale"], path, errors),
        "additionalPrinterColumns" => {
            for (index, column) in items(version, field).iter().enumerate() {
                check_column(column, &path.index(index), errors);
            }
        }
        _ => check_selectable(version, path, errors),
    }
}

/// `IsDNS1035Label` and the like, all sentences in one error.
fn joined(value: &str, sentences: Vec<String>, path: &Path, before: &str, errors: &mut Vec<FieldError>) {
    if !sentences.is_empty() {
        errors.push(FieldError::invalid(path, &value.into(), &format!("{before}{}", sentences.join(","))));
    }
}

/// Names, wished for or accepted.
pub(super) fn names(names: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const CASE: &str = "may have mixed case, but should otherwise match: ";
    for field in ["plural", "singular"] {
        let name = text(names, field);
        if !name.is_empty() {
            joined(name, names::dns1035_label(name), &path.child(field), "", errors);
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(names, field);
        if !name.is_empty() {
            joined(name, names::dns1035_label(&name.to_lowercase()), &path.child(field), CASE, errors);
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in items(names, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            joined(name, names::dns1035_label(name), &path.child(field).index(index), "", errors);
        }
    }
    let (kind, list) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(path.child("listKind"), &list.into(), detail));
    }
}

fn deprecation(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (warning, path) = (text(version, "deprecationWarning"), path.child("deprecationWarning"));
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(&path, &warning.into(), detail));
    if version["deprecated"] != true {
        invalid("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    }
    for (index, char) in warning.char_indices().filter(|(_, char)| char.is_control()).take(1) {
        invalid(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index} ({char:?})"
        ));
    }
}

/// `validateCustomResourceConversion`; the fields have the names of upstream's internal form.
fn check_conversion(conversion: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (webhook, strategy) = (&conversion["webhook"], text(conversion, "strategy"));
    let (client, reviews) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    errors.extend(rule::required_one_of(&path.child("strategy"), strategy, &["None", "Webhook"]));
    if strategy == "Webhook" {
        match present(webhook, "clientConfig") {
            true => registration::check_client(&webhook["clientConfig"], &client, errors),
            false => errors.push(FieldError::required(client, "required when strategy is set to Webhook")),
        }
        registration::check_review_versions(webhook, "conversionReviewVersions", &reviews, errors);
        return;
    }
    const DETAIL: &str = "should not be set when strategy is not set to Webhook";
    if present(webhook, "clientConfig") {
        errors.push(FieldError::forbidden(client, DETAIL));
    }
    if !items(webhook, "conversionReviewVersions").is_empty() {
        errors.push(FieldError::forbidden(reviews, DETAIL));
    }
}

/// A path of fields; the error is a sentence.
fn simple_path(path: &str) -> Result<JsonPath, String> {
    if !path.starts_with('.') {
        return Err("must be a simple json path starting with .".to_owned());
    }
    JsonPath::parse(path).map_err(|error| format!("is not a JSONPath that this server reads: {error}"))
}

fn check_scale(scale: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if scale.is_null() {
        return;
    }
    for (field, part, required) in
        [("specReplicasPath", ".spec", true), ("statusReplicasPath", ".status", true), ("labelSelectorPath", "", false)]
    {
        let (value, path) = (text(scale, field), path.child(&format!("scale.{field}")));
        if value.is_empty() {
            errors.extend(required.then(|| FieldError::required(&path, "")));
            continue;
        }
        let invalid = |detail: &str| FieldError::invalid(&path, &value.into(), detail);
        match simple_path(value) {
            Err(detail) => errors.push(invalid(&detail)),
            Ok(_) if !part.is_empty() && !value.starts_with(&format!("{part}.")) => {
                errors.push(invalid(&format!("should be a json path under {part}")));
            }
            Ok(_) if part.is_empty() && !value.starts_with(".spec.") && !value.starts_with(".status.") => {
                errors.push(invalid("should be a json path under either .status or .spec"));
            }
            Ok(read) if read.fields().is_none() => errors.push(invalid("must be a json path in the dot notation")),
            Ok(_) => {}
        }
    }
}

fn check_column(column: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("name"), text(column, "name")));
    let must_be = |words: &[&str]| format!("must be one of {}", words.join(","));
    match text(column, "type") {
        "" => errors.push(FieldError::required(path.child("type"), &must_be(&COLUMN_TYPES))),
        word if COLUMN_TYPES.contains(&word) => {}
        word => errors.push(FieldError::invalid(path.child("type"), &word.into(), &must_be(&COLUMN_TYPES))),
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.push(FieldError::invalid(path.child("format"), &format.into(), &must_be(&COLUMN_FORMATS)));
    }
    let at = path.child("JSONPath");
    match text(column, "jsonPath") {
        "" => errors.push(FieldError::required(&at, "")),
        value => {
            errors.extend(simple_path(value).err().map(|detail| FieldError::invalid(&at, &value.into(), &detail)));
        }
    }
}

fn check_selectable(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut known: Vec<Vec<String>> = Vec::new();
    for (index, field) in items(version, "selectableFields").iter().enumerate() {
        let (value, path) = (text(field, "jsonPath"), path.index(index).child("jsonPath"));
        if value.is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        let mut invalid = |detail: &str| errors.push(FieldError::invalid(&path, &value.into(), detail));
        let read = simple_path(value);
        let fields = read.as_ref().ok().and_then(JsonPath::fields);
        let Some(fields) = fields.filter(|fields| !fields.is_empty()) else {
            invalid(&format!(
                "is an invalid path: {}",
                read.err().unwrap_or_else(|| "only fields can be named".to_owned())
            ));
            continue;
        };
        let mut schema = &version["schema"]["openAPIV3Schema"];
        for name in &fields {
            schema = match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => schema,
                (None, any @ Value::Object(_)) => any,
                (None, _) => &Value::Null,
            };
        }
        if fields.first() == Some(&"metadata") {
            invalid("must not point to fields in metadata");
        } else if schema.is_null() {
            invalid(&format!("is an invalid path: does not refer to a valid field: {value}"));
        } else if !matches!(text(schema, "type"), "string" | "integer" | "boolean") {
            invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        if known.contains(&fields) {
            errors.push(FieldError::duplicate(&path, &value.into()));
        } else {
            known.push(fields);
        }
    }
    if known.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, known.len(), MAX_SELECTABLE));
    }
}
