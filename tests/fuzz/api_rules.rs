//! What definitions of kinds bring in text: rules in CEL, JSONPaths of columns, and whole schemas with their patterns.

use api::cel::{self, Budget, Program, Scope, Val};
use api::resources::custom::{self, JsonPath};
use api::resources::find;
use serde_json::{Value, json};

pub(crate) const WORDS: &[&str] = &[
    "self",
    "oldSelf",
    ".all(x, ",
    ".exists(k, v, ",
    ".map(x, x)",
    "has(self.a)",
    " ? ",
    " : ",
    " in ",
    "==",
    "&&",
    "||",
    "[?0]",
    ".?a",
    "optional.of(",
    "Object{a: ",
    "[JSONPatch{op: 'add', path: ",
    "Object.b{?c: ",
    "matches('",
    "quantity('1Ki')",
    "[?(@.a=='b')]",
    "[*]",
    "..",
    "[1:-1]",
    "{\"type\":\"object\",\"properties\":{\"a\":",
    "\"x-kubernetes-preserve-unknown-fields\":true",
    "\"x-kubernetes-validations\":[{\"rule\":\"self.a\"}]",
    "\"pattern\":\"^[a-z]{1,3}$\"",
    "\"default\":",
];

/// Steps of one evaluation: few, so that a campaign sees many.
const STEPS: u64 = 10_000;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    rule(text);
    path(text);
    schema(text);
}

fn object() -> Value {
    json!({"a": [1, "x", null, {"b": true}], "b": {"c": 1.5, "d": "2026-01-02T03:04:05Z"}, "c": "text"})
}

/// What compiles ends, with a value or a sentence.
fn rule(text: &str) {
    let scope = Scope { variables: vec![("self", None), ("oldSelf", None)], patches: true };
    match Program::compile(text, &scope) {
        Ok(program) => {
            let object = object();
            let variables = [("self", Val::of(&object, None)), ("oldSelf", Val::of(&object, None))];
            let mut budget = Budget::new(STEPS);
            if let Ok(value) = program.eval(&variables, &mut budget) {
                // What a policy would make of it, or a sentence.
                let made = [cel::configuration(&value), cel::operations(&value)];
                made.iter().for_each(|made| assert!(made.as_ref().err().is_none_or(|error| !error.is_empty())));
            }
            assert!(budget.left() < STEPS, "{text:?} costs nothing");
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

fn path(text: &str) {
    match JsonPath::parse(text) {
        Ok(path) => assert!(path.find(&object()).len() <= 1001, "{text:?}"),
        Err(error) => assert!(!error.is_empty()),
    }
}

/// A definition that is accepted gives a row whose objects settle.
fn schema(text: &str) {
    let Ok(schema) = api::json::parse(text.as_bytes()) else { return };
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema.value}}]},
        "status": {"acceptedNames": names},
    });
    let row = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("definitions have a row");
    if !(row.validate)(&definition).is_empty() {
        return;
    }
    let rows = custom::rows(&definition).expect("one kind has few names");
    for row in rows {
        let Some(custom) = &row.custom else { continue };
        let mut once = object();
        if custom.decode(&mut once).is_err() {
            continue;
        }
        row.fill_defaults(&mut once);
        let mut twice = once.clone();
        assert_eq!(custom.decode(&mut twice).map(|unknown| unknown.len()).unwrap_or(0), 0, "{text:?}");
        row.fill_defaults(&mut twice);
        assert_eq!(twice, once, "{text:?}");
        let _ = row.check(&once);
    }
}
