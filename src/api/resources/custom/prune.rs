//! Removes fields that a schema does not specify (`pkg/apiserver/schema/pruning` of upstream).

use serde_json::Value;

use super::schema::{Additional, Schema};

/// Fields of a whole object that a schema need not specify.
pub(super) const OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// No more are named, as for built-in types.
const MAX_NAMED: usize = 100;

/// Prunes a whole object and names what was removed.
pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut pruned = Pruned(Vec::new());
    node(Some(schema), object, true, "", &mut pruned);
    pruned.0
}

/// Prunes a value that stands where the schema says.
pub(super) fn prune_value(schema: &Schema, value: &mut Value) {
    node(Some(schema), value, schema.embedded, "", &mut Pruned(Vec::new()));
}

struct Pruned(Vec<String>);

impl Pruned {
    fn name(&mut self, path: String) {
        if self.0.len() < MAX_NAMED {
            self.0.push(path);
        }
    }
}

fn node(schema: Option<&Schema>, value: &mut Value, is_object: bool, path: &str, pruned: &mut Pruned) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                if is_object && OBJECT.contains(&name.as_str()) {
                    return true;
                }
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let own = schema.and_then(|schema| schema.field(name));
                if let Some(own) = own {
                    node(Some(own), value, own.embedded, &path, pruned);
                    return true;
                }
                if schema.is_some_and(|schema| schema.preserve) {
                    return true;
                }
                if schema.is_some_and(|schema| matches!(schema.additional, Additional::Allowed(true))) {
                    node(None, value, false, &path, pruned);
                    return true;
                }
                pruned.name(path);
                false
            });
        }
        Value::Array(items) => {
            let own = schema.and_then(|schema| schema.items.as_deref());
            if own.is_none() && schema.is_some_and(|schema| schema.preserve) {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                let embedded = own.is_some_and(|own| own.embedded);
                node(own, item, embedded, &format!("{path}[{index}]"), pruned);
            }
        }
        _ => {}
    }
}
