//! Custom resources: kinds that a CustomResourceDefinition brings at run time, as rows like all others.
//!
//! [`definition`] is the row of the definitions themselves. [`rows`] makes one row per served version of a definition; what
//! such a row does beyond its names is [`Custom`], which the functions of [`Resource`] ask. Schemas are read when first
//! needed. It deliberately knows nothing of where definitions are stored, nor of when a kind is served: the API server
//! asks [`status`] for that.
//!
//! ```text
//! request   decode → prune, metadata into form → default → check (schema, lists, embedded objects)
//! storage   prune and default by the version that was stored → version of the request
//! ```
//! Where a webhook makes one version of another, the last step is the API server's; [`Resource::is_converted_elsewhere`]
//! tells.

mod check;
mod columns;
mod default;
pub(super) mod definition;
mod embedded;
mod format;
mod jsonpath;
mod layout;
mod lists;
mod pattern;
mod prune;
mod published;
mod rules;
mod schema;
pub mod status;
mod structure;
mod unknown;
mod validate;
mod words;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::Value;

use self::columns::PrinterColumn;
use self::jsonpath::JsonPath as Path;
use self::schema::Schema;
use super::path::{items, present, put, text};
use super::scale::{Scale, Selector};
use super::{ALL_VERBS, BLANK, Generation, Resource, SCALE, STATUS_VERBS, Subresource, Verb};
use crate::status::{ApiError, FieldError};

pub(crate) use self::format::{duration, uri as is_uri};
pub use self::jsonpath::JsonPath;
pub use self::layout::Place;
pub(crate) use self::pattern::compile as regex;
pub use self::unknown::unknown_fields;
pub use self::words::TooManyNames;

/// What a definition says of one of its versions.
#[derive(Debug)]
struct Version {
    name: &'static str,
    /// The schema as it was given, as text: a fraction of the size of its parsed form, which is made when first needed.
    source: Box<str>,
    schema: OnceLock<Schema>,
}

impl Version {
    fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| Schema::root(&self.source()))
    }

    fn source(&self) -> Value {
        serde_json::from_str(&self.source).unwrap_or_default()
    }
}

/// What makes a row that of a custom resource.
#[derive(Debug)]
pub struct Custom {
    /// All versions; objects may be stored in each.
    versions: Arc<[Version]>,
    /// Which of them the row is for.
    own: usize,
    /// In which of them objects are stored.
    stored: usize,
    /// Whether a webhook makes objects of one version those of another.
    elsewhere: bool,
    columns: Vec<PrinterColumn>,
    selectable: Vec<(String, JsonPath)>,
    /// Told to whoever uses a version that goes away.
    deprecation: Option<String>,
    /// Of all that decides what objects are.
    fingerprint: u64,
}

/// The rows of a definition that is valid and in order, the preferred version first.
///
/// # Errors
/// If no more names can be kept.
pub fn rows(definition: &Value) -> Result<Vec<Arc<Resource>>, TooManyNames> {
    let declared = items(&definition["spec"], "versions");
    let versions = declared.iter().map(version).collect::<Result<Arc<[_]>, _>>()?;
    let stored = storage_version(declared);
    let mut served: Vec<usize> = (0..declared.len()).filter(|index| declared[*index]["served"] == true).collect();
    served.sort_by_key(|index| std::cmp::Reverse(priority(versions[*index].name)));
    served.into_iter().map(|own| row_of(definition, &versions, own, stored).map(Arc::new)).collect()
}

/// The row of objects that are stored in a version, or in that of storage if there is none of this name, whether it is
/// served or not: to it they are what they are, so that nobody has to convert them. None if there is no version at all.
///
/// # Errors
/// If no more names can be kept.
pub fn row_as_stored(definition: &Value, name: &str) -> Result<Option<Resource>, TooManyNames> {
    let declared = items(&definition["spec"], "versions");
    let versions = declared.iter().map(version).collect::<Result<Arc<[_]>, _>>()?;
    let own = versions.iter().position(|version| version.name == name).unwrap_or_else(|| storage_version(declared));
    if own >= versions.len() {
        return Ok(None);
    }
    row_of(definition, &versions, own, own).map(Some)
}

/// What differs where a definition says something else of its kind, however often its status and metadata are written.
fn fingerprint(definition: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    definition["spec"].hash(&mut hasher);
    definition["status"]["acceptedNames"].hash(&mut hasher);
    hasher.finish()
}

fn storage_version(declared: &[Value]) -> usize {
    declared.iter().position(|version| version["storage"] == true).unwrap_or(0)
}

fn row_of(definition: &Value, versions: &Arc<[Version]>, own: usize, stored: usize) -> Result<Resource, TooManyNames> {
    let spec = &definition["spec"];
    let declared = &items(spec, "versions")[own];
    let custom = Custom {
        versions: Arc::clone(versions),
        own,
        stored,
        elsewhere: text(&spec["conversion"], "strategy") == "Webhook",
        columns: columns::read(declared),
        selectable: selectable(declared),
        deprecation: deprecation(definition, declared),
        fingerprint: fingerprint(definition),
    };
    row(definition, declared, custom)
}

/// Sorts rows as discovery lists them: by group, the preferred version of each first.
pub fn in_order(rows: &mut [Arc<Resource>]) {
    rows.sort_by_key(|row| (row.group, std::cmp::Reverse(priority(row.version)), row.plural));
}

fn version(declared: &Value) -> Result<Version, TooManyNames> {
    let name = words::word(text(declared, "name"))?;
    let source = declared["schema"]["openAPIV3Schema"].to_string().into_boxed_str();
    Ok(Version { name, source, schema: OnceLock::new() })
}

fn row(definition: &Value, declared: &Value, custom: Custom) -> Result<Resource, TooManyNames> {
    let spec = &definition["spec"];
    // What has been accepted is served; what is only wished for is not.
    let names = &definition["status"]["acceptedNames"];
    let (group, kind) = (words::word(text(spec, "group"))?, words::word(text(names, "kind"))?);
    let version = custom.versions[custom.own].name;
    let subresources = &declared["subresources"];
    let has_status = present(subresources, "status");
    let scale = scale(&subresources["scale"])?;
    let mut below = Vec::new();
    if has_status {
        below.push(Subresource { name: "status", group, version, kind, verbs: STATUS_VERBS });
    }
    if scale.is_some() {
        below.push(SCALE);
    }
    let terminating = present(&definition["metadata"], "deletionTimestamp");
    Ok(Resource {
        group,
        version,
        kind,
        list_kind: words::word(text(names, "listKind"))?,
        plural: words::word(text(names, "plural"))?,
        singular: words::word(text(names, "singular"))?,
        short_names: words::list(&schema::words(&names["shortNames"]))?,
        categories: words::list(&schema::words(&names["categories"]))?,
        namespaced: spec["scope"] == "Namespaced",
        verbs: if terminating { WITHOUT_CREATE } else { ALL_VERBS },
        subresources: words::subresources(&below)?,
        scale,
        has_status,
        generation: Generation::ButStatus,
        unconditional_update: false,
        custom: Some(Arc::new(custom)),
        ..BLANK
    })
}

/// What can still be done once the definition is being deleted.
const WITHOUT_CREATE: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// Versions in the order of preference: released ones first, then betas, then alphas, newer ones first, other names last
/// (`k8s.io/apimachinery/pkg/version.CompareKubeAwareVersionStrings`).
fn priority(version: &str) -> (u8, u32, u32, std::cmp::Reverse<&str>) {
    let other = (0, 0, 0, std::cmp::Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(end);
    let Ok(major) = major.parse() else { return other };
    let staged = |rank, minor: &str| minor.parse().map_or(other, |minor| (rank, major, minor, std::cmp::Reverse("")));
    match (stage, stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
        ("", ..) => (3, major, 0, std::cmp::Reverse("")),
        (_, Some(minor), _) => staged(2, minor),
        (_, _, Some(minor)) => staged(1, minor),
        _ => other,
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> Result<&'static str, TooManyNames> {
    words::word(&path.replace('.', "/"))
}

fn scale(declared: &Value) -> Result<Option<Scale>, TooManyNames> {
    if !declared.is_object() {
        return Ok(None);
    }
    let selector = match text(declared, "labelSelectorPath") {
        "" => Selector::Unsaid,
        path => Selector::Text(pointer(path)?),
    };
    let (wanted, actual) =
        (pointer(text(declared, "specReplicasPath"))?, pointer(text(declared, "statusReplicasPath"))?);
    Ok(Some(Scale { wanted, actual, selector }))
}

fn selectable(declared: &Value) -> Vec<(String, JsonPath)> {
    let fields = items(declared, "selectableFields").iter().map(|field| text(field, "jsonPath"));
    fields.filter_map(|path| Some((path.trim_start_matches('.').to_owned(), Path::parse(path).ok()?))).collect()
}

fn deprecation(definition: &Value, declared: &Value) -> Option<String> {
    if declared["deprecated"] != true {
        return None;
    }
    let (group, kind) = (text(&definition["spec"], "group"), text(&definition["spec"]["names"], "kind"));
    let usual = || format!("{group}/{} {kind} is deprecated", text(declared, "name"));
    Some(declared["deprecationWarning"].as_str().map_or_else(usual, str::to_owned))
}

impl Custom {
    fn version(&self) -> &Version {
        &self.versions[self.own]
    }

    /// The schema as it was given.
    fn source(&self) -> Value {
        self.version().source()
    }

    /// Whether it is by the same words of a definition.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.fingerprint, self.own) == (other.fingerprint, other.own)
    }

    /// What to tell users of a deprecated version.
    pub fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    /// Brings what a client sent into the form of the version; returns the sentences of what does not belong there.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let schema = self.version().schema();
        let mut unknown = prune::prune(schema, object);
        unknown.extend(embedded::conform(schema, object)?);
        unknown.sort();
        Ok(unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect())
    }

    pub(super) fn fill(&self, object: &mut Value) {
        default::fill(self.version().schema(), object);
    }

    /// What is wrong with an object; `old` is what it replaces.
    pub(super) fn check(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let schema = self.version().schema();
        let mut errors = validate::check(schema, new, old, "");
        errors.extend(lists::check(schema, new));
        errors.extend(embedded::check(schema, new));
        // Rules may rely on what the schema says otherwise.
        if errors.is_empty() {
            errors = rules::check(schema, new, old);
        }
        errors
    }

    /// The version in which objects are stored.
    pub(super) fn stored_version(&self) -> &'static str {
        self.versions[self.stored].name
    }

    /// Whether somebody else makes objects of one version those of another.
    pub(super) fn is_converted_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// The schema of the version that an object says to be of.
    fn schema_of(&self, object: &Value) -> Option<&Schema> {
        let version = text(object, "apiVersion").rsplit('/').next().unwrap_or_default();
        self.versions.iter().find(|known| known.name == version).map(Version::schema)
    }

    /// Drops what an object's own version does not have.
    pub(super) fn prune(&self, object: &mut Value) {
        if let Some(schema) = self.schema_of(object) {
            prune::prune(schema, object);
        }
    }

    /// A stored object by the schema of the version in which it was stored.
    pub(super) fn complete_stored(&self, object: &mut Value) {
        if let Some(schema) = self.schema_of(object) {
            prune::prune(schema, object);
            default::fill(schema, object);
        }
    }

    /// A stored object as one of the row's version, of which it differs in name only.
    pub(super) fn of_stored(&self, object: &mut Value) {
        self.complete_stored(object);
        if text(object, "apiVersion").rsplit('/').next() != Some(self.version().name) {
            prune::prune(self.version().schema(), object);
        }
    }

    pub(super) fn columns(&self) -> Vec<Value> {
        columns::definitions(&self.columns)
    }

    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(&self.columns, object, now)
    }

    pub(super) fn field_names(&self) -> impl Iterator<Item = &str> {
        self.selectable.iter().map(|(name, _)| name.as_str())
    }

    /// The text of a selectable field: empty where it is absent.
    pub(super) fn field(&self, object: &Value, name: &str) -> Option<String> {
        let (_, path) = self.selectable.iter().find(|(own, _)| own == name)?;
        Some(match path.find(object).first() {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(value) => value.to_string(),
        })
    }
}

/// Checks the numbers that `scale` reads (`pkg/registry/customresource/validator.go`).
pub(super) fn check_scale(scale: &Scale, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for place in [scale.wanted, scale.actual] {
        let Some(value) = object.pointer(place) else { continue };
        let field = place.replace('/', ".");
        match value.as_i64() {
            Some(count) if count < 0 => {
                errors.push(FieldError::invalid(field, value, "should be a non-negative integer"));
            }
            Some(count) if count > i64::from(i32::MAX) => {
                let detail = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(field, value, &detail));
            }
            Some(_) => {}
            None => errors.push(FieldError::invalid(field, value, "should be an integer")),
        }
    }
    errors
}

/// Puts back what a change through `status` may not touch.
pub(super) fn keep_metadata(new: &mut Value, old: &Value) {
    let managed = new["metadata"]["managedFields"].clone();
    put(new, "metadata", &old["metadata"]);
    put(&mut new["metadata"], "managedFields", &managed);
}

/// Whether anything but metadata differs, and but status where that is a subresource.
pub(super) fn differs(new: &Value, old: &Value, has_status: bool) -> bool {
    fn rest(object: &Value, has_status: bool) -> impl Iterator<Item = (&String, &Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(move |(name, _)| *name != "metadata" && !(has_status && *name == "status"))
    }
    !rest(new, has_status).eq(rest(old, has_status))
}

#[cfg(test)]
mod tests;
