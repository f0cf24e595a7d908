//! Every field of every kind, and what is done about it: `testdata/fields.txt`.
//!
//! The rows are those of the schema, all paths but metadata and status, and the test fails on a missing or superfluous
//! one. What a row says is tried: an object with that field set is sent, and must be refused because of it, stored with a
//! warning that names it, or stored without. `UPDATE_EXPECT=1` adds missing rows with what the server says of them (`?`
//! where a person must tell implemented from stored) and removes those of fields that are gone.
//!
//! ```text
//! [group/version Kind]
//! path state          a value of the field is made up from its type, and what it requires beside it
//! path state = JSON   this value; a path may have several rows, which differ in it
//! path state + JSON   a made-up value, in an object that has this as well (a merge patch)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use api::patch::PatchType;
use api::resources::{self, Resource};
use api::schema::{self, Base, Field, Shape, TypeRef};
use serde_json::{Value, json};

use super::rows::{collection, is_kept};
use super::world::{Answer, World, sample_of};

/// What becomes of a field that a client sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Somebody here acts on it.
    Implemented,
    /// Nobody here is meant to: it is kept for its readers.
    Stored,
    /// It is kept, and its writer told that nothing follows.
    Warned,
    /// The object is not accepted.
    Refused,
    /// Nobody has said yet.
    Unknown,
}

impl State {
    const WORDS: [(Self, &str); 5] = [
        (Self::Implemented, "implemented"),
        (Self::Stored, "stored"),
        (Self::Warned, "warned"),
        (Self::Refused, "refused"),
        (Self::Unknown, "?"),
    ];

    fn parse(word: &str) -> Self {
        Self::WORDS.into_iter().find(|(_, own)| *own == word).unwrap_or_else(|| panic!("no state {word}")).0
    }

    fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(own, _)| *own == self).unwrap().1
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
struct Row {
    path: String,
    state: State,
    /// What follows the state.
    sample: String,
}

impl Row {
    fn parse(line: &str) -> Self {
        let mut words = line.splitn(3, ' ');
        let path = words.next().unwrap().to_owned();
        let state = State::parse(words.next().unwrap_or_else(|| panic!("no state: {line}")));
        Self { path, state, sample: words.next().unwrap_or_default().to_owned() }
    }

    fn of(path: &str) -> Self {
        Self { path: path.to_owned(), state: State::Unknown, sample: String::new() }
    }
}

/// The table: rows in the order of the file, by the words between brackets.
type Table = BTreeMap<String, Vec<Row>>;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(file)
}

fn read() -> Table {
    let mut table = Table::new();
    let mut kind = String::new();
    for line in std::fs::read_to_string(data("fields.txt")).unwrap_or_default().lines().filter(|line| !line.is_empty())
    {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => name.clone_into(&mut kind),
            None => table.entry(kind.clone()).or_default().push(Row::parse(line)),
        }
    }
    table
}

fn print(table: &Table) -> String {
    let mut text = String::new();
    for (kind, rows) in table {
        writeln!(text, "{}[{kind}]", if text.is_empty() { "" } else { "\n" }).unwrap();
        for row in rows {
            let sample = if row.sample.is_empty() { String::new() } else { format!(" {}", row.sample) };
            writeln!(text, "{} {}{sample}", row.path, row.state.word()).unwrap();
        }
    }
    text
}

/// All paths below a type. A type that is met again within itself is not looked into, nor is a template of pods or a volume
/// within another object, whose fields are those of `Pod` and `PersistentVolume`.
fn paths(of: TypeRef, at: &str, within: &mut Vec<TypeRef>, found: &mut Vec<String>) {
    for field in of.fields() {
        if at.is_empty() && ["apiVersion", "kind", "metadata", "status"].contains(&field.name) {
            continue;
        }
        let suffix = match field.shape {
            Shape::One => "",
            Shape::List => "[]",
            Shape::Map | Shape::MapOfLists => "{}",
        };
        let dot = if at.is_empty() { "" } else { "." };
        let path = format!("{at}{dot}{}{suffix}", field.name);
        found.push(path.clone());
        let Base::Type(inner) = field.base else { continue };
        let is_volume = inner.short_name() == "PersistentVolumeSpec" && !at.is_empty();
        let is_known =
            within.contains(&inner) || is_volume || ["PodTemplateSpec", "ObjectMeta"].contains(&inner.short_name());
        if !is_known {
            within.push(inner);
            paths(inner, &path, within, found);
            within.pop();
        }
    }
}

/// A value of a field: what its type requires, or anything that is not a zero value.
fn made_up(field: &Field) -> Value {
    let one = match field.base {
        Base::String => json!("x"),
        Base::Bytes => json!("eA=="),
        Base::Bool => json!(true),
        Base::Int32 | Base::Int64 | Base::IntOrString | Base::Double => json!(1),
        Base::Quantity => json!("1"),
        Base::Time => json!("2026-01-02T03:04:05Z"),
        Base::MicroTime => json!("2026-01-02T03:04:05.000000Z"),
        Base::Duration => json!("1s"),
        Base::Raw | Base::FieldsV1 => json!({}),
        Base::Type(inner) => required(inner),
    };
    match field.shape {
        Shape::One => one,
        Shape::List => json!([one]),
        Shape::Map => json!({ "x": one }),
        Shape::MapOfLists => json!({ "x": [one] }),
    }
}

fn required(of: TypeRef) -> Value {
    if let Some((_, sample)) = samples().iter().find(|(name, _)| name == of.short_name()) {
        return sample[0].clone();
    }
    let fields = of.fields().iter().filter(|field| field.required);
    fields.map(|field| (field.name.to_owned(), made_up(field))).collect::<serde_json::Map<_, _>>().into()
}

/// Values that types and fields need to be valid: `testdata/field-samples.txt`, lines of a type or field, its value, and
/// what a field needs beside it.
fn samples() -> &'static [(String, Vec<Value>)] {
    static SAMPLES: LazyLock<Vec<(String, Vec<Value>)>> = LazyLock::new(|| {
        let text = std::fs::read_to_string(data("field-samples.txt")).unwrap();
        let parse = |line: &str| {
            let (name, values) = line.split_once(' ').unwrap();
            let values = serde_json::Deserializer::from_str(values).into_iter().collect::<Result<Vec<Value>, _>>();
            (name.to_owned(), values.unwrap_or_else(|error| panic!("{error}: {line}")))
        };
        text.lines().map(parse).collect()
    });
    &SAMPLES
}

/// Whether a field is one of several of which an object has one.
fn is_alternative(of: TypeRef, field: &str) -> bool {
    match of.short_name() {
        "Volume" => field != "name",
        "EnvFromSource" => field != "prefix",
        "EnvVarSource" | "LifecycleHandler" | "VolumeProjection" => true,
        "Probe" => ["exec", "grpc", "httpGet", "tcpSocket"].contains(&field),
        "DownwardAPIVolumeFile" => ["fieldRef", "resourceFieldRef"].contains(&field),
        "PersistentVolumeSpec" => of.field(field).is_some_and(|field| match field.base {
            Base::Type(inner) => inner.short_name().ends_with("VolumeSource"),
            _ => false,
        }),
        "NetworkPolicyPeer" | "ServiceBackendPort" => true,
        "PodDisruptionBudgetSpec" => ["maxUnavailable", "minAvailable"].contains(&field),
        "PodFailurePolicyRule" => ["onExitCodes", "onPodConditions"].contains(&field),
        "IngressBackend" => ["resource", "service"].contains(&field),
        "WebhookClientConfig" => ["service", "url"].contains(&field),
        "VolumeAttachmentSource" => true,
        "MetricSpec" => field != "type",
        "ParamRef" => ["name", "selector"].contains(&field),
        _ => false,
    }
}

/// Puts a value at a path of an object, with what the types on the way require.
fn put(object: &mut Value, of: TypeRef, path: &str, value: Option<Value>) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let name = step.trim_end_matches("[]").trim_end_matches("{}");
    let field = of.field(name).unwrap();
    if is_alternative(of, name) {
        object.as_object_mut().unwrap().retain(|own, _| own == name || !is_alternative(of, own));
    }
    let full = format!("{}.{name}", of.short_name());
    let sample = samples().iter().find(|(own, _)| *own == full).map(|(_, values)| values.as_slice());
    let made_up = || sample.map_or_else(|| made_up(field), |values| values[0].clone());
    if value.is_some() && rest.is_none() {
        object[name] = value.unwrap_or_default();
        return;
    }
    for (beside, value) in sample.and_then(|values| values.get(1)?.as_object()).into_iter().flatten() {
        object[beside] = value.clone();
    }
    if object[name].is_null() {
        object[name] = made_up();
    }
    let (Some(rest), Base::Type(inner)) = (rest, field.base) else { return };
    let next = match field.shape {
        Shape::One => &mut object[name],
        Shape::List => &mut object[name][0],
        Shape::Map | Shape::MapOfLists => object[name].as_object_mut().unwrap().values_mut().next().unwrap(),
    };
    put(next, inner, rest, value);
}

/// The object that tries a row.
fn object(kind: &Resource, of: TypeRef, row: &Row) -> Value {
    let (mut object, _) = sample_of(kind);
    (object["apiVersion"], object["kind"]) = (json!(kind.api_version()), json!(kind.kind));
    if kind.kind == "Pod" {
        object["spec"]["volumes"] = json!([{ "name": "x", "emptyDir": {} }]);
    }
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {row:?}"));
    if let Some(beside) = row.sample.strip_prefix("+ ") {
        object = api::patch::apply(PatchType::Merge, None, &object, beside.as_bytes()).unwrap();
    }
    put(&mut object, of, &row.path, row.sample.strip_prefix("= ").map(parse));
    object
}

/// Sends an object; nothing of it is kept.
async fn send(world: &World, kind: &Resource, object: &Value, row: &Row) -> Answer {
    let path = collection(kind, "default");
    if kind.kind == "Pod" && row.path.starts_with("spec.ephemeralContainers") {
        let part = json!({ "spec": { "ephemeralContainers": object["spec"]["ephemeralContainers"] } });
        let target = if row.sample.contains("claimName") {
            "claiming"
        } else if row.sample.contains("hostUsers") {
            "apart"
        } else {
            "debugged"
        };
        return world.patch(&format!("{path}/{target}/ephemeralcontainers?dryRun=All"), "merge-patch", part).await;
    }
    world.ask(&format!("POST {path}?dryRun=All&fieldValidation=Strict"), object.clone()).await
}

/// A path as rows have it: `spec.containers[0].resources.limits[cpu]` is `spec.containers[].resources.limits{}`.
fn general(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((key, after)) = after.split_once(']') else { break };
        write!(text, "{before}{}", if key.bytes().all(|byte| byte.is_ascii_digit()) { "[]" } else { "{}" }).unwrap();
        rest = after;
    }
    text + rest
}

/// Whether what is said of a path says something of the row's.
fn concerns(said: &str, row: &Row) -> bool {
    let (said, own) = (general(said), row.path.trim_end_matches("[]").trim_end_matches("{}"));
    // Upstream says of an Event what its fields are called where it is kept.
    let mut kept = ["count", "firstTimestamp", "lastTimestamp", "source"].into_iter();
    if kept.any(|kept| said == kept && own.to_lowercase().starts_with(&format!("deprecated{}", kept.to_lowercase()))) {
        return true;
    }
    let is_above = |above: &str, below: &str| {
        below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
    };
    is_above(&said, own) || is_above(own, &said)
}

/// What the server made of it: warned or refused, or neither (`Unknown`).
fn verdict(kind: &Resource, row: &Row, answer: &Answer) -> Result<State, String> {
    let warnings = answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap());
    let warnings: Vec<&str> = warnings.map(|text| text.trim_start_matches("299 - \"").trim_end_matches('"')).collect();
    if answer.code >= 400 {
        let status = answer.json();
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        let of_row = |cause: &&Value| concerns(cause["field"].as_str().unwrap_or_default(), row);
        return if causes.iter().any(|cause| of_row(&cause)) { Ok(State::Refused) } else { Err(answer.text.clone()) };
    }
    let of_kind = !(kind.warn)(&json!({})).is_empty();
    let of_row = warnings.iter().any(|text| text.split_once(": ").is_some_and(|(path, _)| concerns(path, row)));
    Ok(if of_row || of_kind { State::Warned } else { State::Unknown })
}

/// What is wrong with a row; with `update`, it is mended where the server knows.
fn judge(kind: &Resource, row: &mut Row, answer: &Answer, update: bool) -> Option<String> {
    let found = verdict(kind, row, answer);
    let agrees = match (&found, row.state) {
        (_, State::Unknown) | (Err(_), _) => false,
        (Ok(State::Unknown), own) => matches!(own, State::Implemented | State::Stored),
        (Ok(found), own) => *found == own,
    };
    if update && !agrees {
        row.state = if matches!(found, Ok(State::Warned)) { State::Warned } else { State::Unknown };
    }
    (!agrees).then(|| format!("{} {} {}: {found:?}: {}", kind.kind, row.path, row.state.word(), answer.text))
}

async fn try_kind(world: &World, kind: &Resource, rows: &mut Vec<Row>, update: bool) -> Vec<String> {
    let of = schema::lookup(kind.group, kind.version, kind.kind).unwrap();
    let mut wanted = Vec::new();
    paths(of, "", &mut vec![of], &mut wanted);
    let known: BTreeSet<String> = rows.iter().map(|row| row.path.clone()).collect();
    let mut problems = Vec::new();
    if update {
        let old = std::mem::take(rows);
        for path in &wanted {
            let own: Vec<Row> = old.iter().filter(|row| row.path == *path).cloned().collect();
            rows.extend(if own.is_empty() { vec![Row::of(path)] } else { own });
        }
    }
    problems.extend(
        wanted.iter().filter(|path| !known.contains(*path)).map(|path| format!("{}: no row {path}", kind.kind)),
    );
    for row in rows {
        if !wanted.contains(&row.path) {
            problems.push(format!("{}: no field {}", kind.kind, row.path));
            continue;
        }
        let object = object(kind, of, row);
        let answer = send(world, kind, &object, row).await;
        problems.extend(judge(kind, row, &answer, update));
    }
    problems
}

#[tokio::test(start_paused = true)]
async fn every_field_is_implemented_stored_warned_of_or_refused_as_the_table_says() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let world = World::new().await;
    let mut debugged = super::world::sample("Pod", "debugged");
    debugged["spec"]["volumes"] = json!([{ "name": "x", "emptyDir": {} }]);
    let named = |extra: Value| {
        let mut object = json!({ "metadata": { "name": "x" } });
        object.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
        object
    };
    let mut claiming = debugged.clone();
    claiming["metadata"]["name"] = json!("claiming");
    claiming["spec"]["volumes"][0] = json!({ "name": "x", "persistentVolumeClaim": { "claimName": "x" } });
    let mut apart = debugged.clone();
    apart["metadata"]["name"] = json!("apart");
    apart["spec"]["hostUsers"] = json!(false);
    let label = json!({ "metadata": { "labels": { "resource.kubernetes.io/admin-access": "true" } } });
    world.patch("/api/v1/namespaces/default", "merge-patch", label).await.expect(200);
    for (path, object) in [
        ("/api/v1/namespaces/default/pods", debugged),
        ("/api/v1/namespaces/default/pods", claiming),
        ("/api/v1/namespaces/default/pods", apart),
        ("/api/v1/namespaces/default/serviceaccounts", named(json!({}))),
        ("/apis/scheduling.k8s.io/v1/priorityclasses", named(json!({ "value": 9 }))),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            named(json!({ "handler": "x", "overhead": { "podFixed": { "cpu": "1" } } })),
        ),
    ] {
        world.ask(&format!("POST {path}"), object).await.expect(201);
    }
    let mut table = read();
    let mut problems = Vec::new();
    let mut kinds = BTreeSet::new();
    for kind in resources::all().iter().filter(|kind| is_kept(kind)) {
        let name = format!("{} {}", kind.api_version(), kind.kind);
        let rows = table.entry(name.clone()).or_default();
        problems.extend(try_kind(&world, kind, rows, update).await);
        kinds.insert(name);
    }
    problems.extend(table.keys().filter(|name| !kinds.contains(*name)).map(|name| format!("no kind {name}")));
    if update {
        table.retain(|name, _| kinds.contains(name));
        std::fs::write(data("fields.txt"), print(&table)).unwrap();
    }
    assert!(update || problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
