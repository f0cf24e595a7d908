//! Parts of objects and operations of JSON patches, as expressions make them, and what comes of them in JSON.
//!
//! After `k8s.io/apiserver/pkg/cel/mutation` and `…/admission/plugin/policy/mutating/patch`. An object is put together of
//! parts that are named after the place where they stand (`Object.spec{…}` in the field `spec` of `Object{…}`), which is
//! looked at when all of it is there. Invariant: what is made is no larger than a request may be, however often an
//! expression uses the same part.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::eval::{Budget, EvalError, Result, none};
use super::parser::{Constant, Fold, Node};
use super::time;
use super::value::Val;

/// The type of a whole object; those of its parts have the fields that lead there behind it.
pub(super) const OBJECT: &str = "Object";
/// The type of an operation of a JSON patch, its fields, and the only one of these that is no text.
pub(super) const PATCH: &str = "JSONPatch";
pub(super) const FIELDS: [&str; 4] = ["op", "path", "from", VALUE];
pub(super) const VALUE: &str = "value";
/// Most bytes of JSON that are made of one value; that of a request.
const LARGEST: usize = 3 * 1024 * 1024;
/// Deepest nesting; variables may nest deeper than one expression can.
const DEEPEST: usize = 100;
/// Most places of one value that are told to be wrong.
const MOST_WRONG: usize = 100;

/// Something that an expression makes.
#[derive(Debug, Clone)]
pub struct Made<'v> {
    pub(super) name: String,
    pub(super) fields: Vec<(Rc<str>, Val<'v>)>,
}

impl<'v> Made<'v> {
    pub(super) fn get(&self, name: &str) -> Option<Val<'v>> {
        self.fields.iter().find(|(own, _)| **own == *name).map(|(_, value)| value.clone())
    }

    /// Refuses an operation whose parts are not what they must be.
    pub(super) fn check(&self) -> Result<()> {
        let is_wrong = |(name, value): &&(Rc<str>, Val<'v>)| &**name != VALUE && value.as_text().is_none();
        match self.fields.iter().filter(|_| self.name == PATCH).find(is_wrong) {
            Some((name, value)) => {
                none(format!("unexpected type {} for JSONPatchType '{name}' field", value.type_name()))
            }
            None => Ok(()),
        }
    }

    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> std::result::Result<bool, EvalError> {
        if self.name != other.name || self.fields.len() != other.fields.len() {
            return Ok(false);
        }
        for (name, value) in &self.fields {
            match other.get(name) {
                Some(theirs) if value.equals(&theirs, budget)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// What the value of an expression must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Anything.
    Anything,
    /// True or false.
    Truth,
    /// A text.
    Text,
    /// What is laid over an object.
    Configuration,
    /// The operations of a JSON patch.
    Operations,
}

impl Wanted {
    fn type_name(self) -> Option<&'static str> {
        Some(match self {
            Self::Anything => return None,
            Self::Truth => "bool",
            Self::Text => "string",
            Self::Configuration => OBJECT,
            Self::Operations => "list(JSONPatch)",
        })
    }

    /// Refuses an expression that is plainly of another kind; of many it is known only when they have a value.
    pub(super) fn check(self, node: &Node) -> std::result::Result<(), String> {
        let Some(wanted) = self.type_name() else { return Ok(()) };
        match kind(node) {
            Some(kind) if kind != wanted => Err(format!("must evaluate to {wanted}")),
            _ => Ok(()),
        }
    }
}

/// The type of an expression's value, as CEL writes it, where the expression alone shows it.
pub(super) fn kind(node: &Node) -> Option<String> {
    const TRUTHS: [&str; 8] = ["_==_", "_!=_", "_<=_", "_>=_", "_<_", "_>_", "!_", "@in"];
    Some(match node {
        Node::Constant(constant) => {
            let name = match constant {
                Constant::Null => "null",
                Constant::Bool(_) => "bool",
                Constant::Int(_) => "int",
                Constant::Uint(_) => "uint",
                Constant::Double(_) => "double",
                Constant::Text(_) => "string",
                Constant::Bytes(_) => "bytes",
            };
            name.to_owned()
        }
        Node::Struct { name, .. } => name.clone(),
        Node::If { then, otherwise, .. } => kind(then).or_else(|| kind(otherwise))?,
        Node::List(items) => format!("list({})", items.iter().find_map(|(item, _)| kind(item))?),
        Node::Map(_) => "map".to_owned(),
        Node::And(..) | Node::Or(..) | Node::Has { .. } => "bool".to_owned(),
        Node::Fold { fold: Fold::All | Fold::Exists | Fold::ExistsOne, .. } => "bool".to_owned(),
        Node::Fold { fold: Fold::Filter, of, .. } => kind(of).filter(|kind| kind.starts_with("list"))?,
        Node::Fold { fold: Fold::Map, result, .. } => format!("list({})", kind(result.as_deref()?)?),
        Node::Call { name, .. } if TRUTHS.contains(&name.as_str()) => "bool".to_owned(),
        Node::Call { name, arguments } if name == "_+_" => arguments.iter().find_map(kind)?,
        _ => return None,
    })
}

/// The configuration that an expression made, to be laid over an object; else a sentence.
pub fn configuration(value: &Val<'_>) -> std::result::Result<Value, String> {
    let Val::Made(made) = value else {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", value.type_name()));
    };
    if made.name != OBJECT {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", made.name));
    }
    check_places(value)?;
    Json::default().of(value)
}

/// The operations of the JSON patch that an expression made; else a sentence.
pub fn operations(value: &Val<'_>) -> std::result::Result<Value, String> {
    let items = value.items().ok_or("type mismatch: JSONPatchType.expression should evaluate to array")?;
    let mut made = Json::default();
    let operation = |item: &Val<'_>| match item {
        Val::Made(operation) if operation.name == PATCH => {
            operation.get(VALUE).iter().try_for_each(check_places)?;
            // What is no text was refused when the operation was made; an empty origin is none.
            let text = |field: &str| operation.get(field).and_then(|value| value.as_text().map(str::to_owned));
            let mut json = json!({ "op": text("op").unwrap_or_default(), "path": text("path").unwrap_or_default() });
            if let Some(from) = text("from").filter(|from| !from.is_empty()) {
                json["from"] = from.into();
            }
            if let Some(value) = operation.get(VALUE) {
                let refused = |text: String| {
                    format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {text}")
                };
                json[VALUE] = made.of(&value).map_err(refused)?;
            }
            made.pay(json["path"].to_string().len())?;
            Ok(json)
        }
        other => Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
            other.type_name()
        )),
    };
    items.iter().map(operation).collect()
}

/// Whether the parts of an object stand where their names say (`CheckTypeNamesMatchFieldPathNames`).
fn check_places(value: &Val<'_>) -> std::result::Result<(), String> {
    let Val::Made(made) = value else { return Ok(()) };
    let (mut wrong, mut left) = (Vec::new(), LARGEST);
    places(value, &mut made.name.clone(), &mut wrong, &mut left, 0);
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

/// Looks at no more places than there may be bytes, and tells of no more than [`MOST_WRONG`].
fn places(value: &Val<'_>, path: &mut String, wrong: &mut Vec<String>, left: &mut usize, depth: usize) {
    *left = left.saturating_sub(1);
    let depth = depth + 1;
    match value {
        _ if *left == 0 || depth > DEEPEST || wrong.len() == MOST_WRONG => {}
        Val::Made(made) => {
            if made.name != *path {
                wrong.push(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    made.name
                ));
            }
            for (name, value) in &made.fields {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                places(value, path, wrong, left, depth);
                path.truncate(length);
            }
        }
        Val::List(items) => items.iter().for_each(|item| places(item, path, wrong, left, depth)),
        Val::Map(entries) => entries.iter().for_each(|(_, value)| places(value, path, wrong, left, depth)),
        Val::Optional(Some(inner)) => places(inner, path, wrong, left, depth),
        _ => {}
    }
}

/// JSON that grows.
#[derive(Default)]
struct Json {
    bytes: usize,
    depth: usize,
}

impl Json {
    fn pay(&mut self, bytes: usize) -> std::result::Result<(), String> {
        self.bytes += bytes;
        if self.bytes > LARGEST { Err(format!("the value is larger than {LARGEST} bytes")) } else { Ok(()) }
    }

    fn of(&mut self, value: &Val<'_>) -> std::result::Result<Value, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("the value is deeper than {DEEPEST} levels"));
        }
        let json = self.inner(value);
        self.depth -= 1;
        json
    }

    fn inner(&mut self, value: &Val<'_>) -> std::result::Result<Value, String> {
        self.pay(2)?;
        Ok(match value {
            Val::Null => Value::Null,
            Val::Bool(truth) => json!(truth),
            Val::Int(number) => json!(number),
            Val::Uint(number) => json!(number),
            // A number without a fraction is written without one, as in Go.
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
            Val::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => json!(*number as i64),
            Val::Double(number) => json!(number),
            Val::Text(text) => self.text(text)?,
            Val::Bytes(bytes) => self.text(&STANDARD.encode(bytes))?,
            Val::Timestamp(stamp) => self.text(&time::shown(*stamp))?,
            Val::Duration(nanos) => self.text(&time::seconds(*nanos))?,
            Val::Object(fields, _) => self.object(fields)?,
            Val::Array(items, _) => self.array(items)?,
            Val::List(items) => items.iter().map(|item| self.of(item)).collect::<std::result::Result<_, _>>()?,
            Val::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| match key.as_text() {
                    Some(key) => self.entry(key, value),
                    None => Err(format!("map key is of type {}, not string", key.type_name())),
                });
                Value::Object(entries.collect::<std::result::Result<_, _>>()?)
            }
            Val::Made(made) => {
                let fields = made.fields.iter().map(|(name, value)| self.entry(name, value));
                Value::Object(fields.collect::<std::result::Result<_, _>>()?)
            }
            other => return Err(format!("unsupported type {}", other.type_name())),
        })
    }

    fn entry(&mut self, name: &str, value: &Val<'_>) -> std::result::Result<(String, Value), String> {
        self.pay(name.len())?;
        Ok((name.to_owned(), self.of(value)?))
    }

    fn text(&mut self, text: &str) -> std::result::Result<Value, String> {
        self.pay(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    /// What stands there is looked at before it is copied.
    fn object(&mut self, fields: &Map<String, Value>) -> std::result::Result<Value, String> {
        fields.iter().try_for_each(|(name, value)| self.pay(name.len()).and_then(|()| self.measure(value)))?;
        Ok(Value::Object(fields.clone()))
    }

    fn array(&mut self, items: &[Value]) -> std::result::Result<Value, String> {
        items.iter().try_for_each(|item| self.measure(item))?;
        Ok(Value::Array(items.to_vec()))
    }

    fn measure(&mut self, value: &Value) -> std::result::Result<(), String> {
        self.pay(2)?;
        match value {
            Value::String(text) => self.pay(text.len()),
            Value::Array(items) => items.iter().try_for_each(|item| self.measure(item)),
            Value::Object(fields) => {
                fields.iter().try_for_each(|(name, value)| self.pay(name.len()).and_then(|()| self.measure(value)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Program, Scope};
    use super::*;

    fn eval<T>(
        text: &str,
        object: &Value,
        made: fn(&Val<'_>) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let scope = Scope { variables: vec![("object", None)], patches: true };
        let value =
            Program::compile(text, &scope)?.eval(&[("object", Val::of(object, None))], &mut Budget::new(1_000_000));
        made(&value.map_err(|error| error.to_string())?)
    }

    #[test]
    fn a_configuration_is_made_of_parts_with_the_names_of_their_places() {
        let object = json!({ "spec": { "replicas": 3, "labels": { "a": "b" } } });
        let made = |text: &str| eval(text, &object, configuration);
        let text = "Object{ spec: Object.spec{ replicas: object.spec.replicas * 2, ?paused: optional.none(),
            ?set: optional.of(1.0), labels: object.spec.labels, list: [Object.spec.list{ name: 'x' }, ],
            map: { 'k': Object.spec.map{ __namespace__: b'x' } } } }";
        let expected = json!({ "spec": {
            "replicas": 6, "set": 1, "labels": { "a": "b" }, "list": [{ "name": "x" }], "map": { "k": { "namespace": "eA==" } },
        } });
        assert_eq!(made(text), Ok(expected));
        assert_eq!(made("has(Object{a: 1}.a) ? Object{a: Object{a: 2}.a} : Object{}"), Ok(json!({ "a": 2 })));
        assert_eq!(
            made("Object{a: 1} == Object{a: 1} && Object.b{} != Object.c{} ? Object{} : Object.a{}"),
            Ok(json!({}))
        );
        let wrong = "type mismatch: unexpected type name \"Object.spec.wrong\", expected \"Object.spec.selector\", which \
                     matches field name path from root Object type";
        assert_eq!(made("Object{spec: Object.spec{selector: Object.spec.wrong{}}}"), Err(wrong.to_owned()));
        assert!(made("object").unwrap_err().starts_with("unsupported return type"));
        assert!(made("Object.spec{}").unwrap_err().starts_with("unsupported return type"));
        assert_eq!(made("Object{a: {1: 2}}"), Err("map key is of type int, not string".to_owned()));
        assert_eq!(made("Object{a: type(1)}"), Err("unsupported type type".to_owned()));
        for text in
            ["Object{a: 1, a: 2}", "Object{a 1}", "Thing{}", "Object.{}", "Objects{}", "Object.a", "Object{} {}"]
        {
            assert!(made(text).is_err(), "{text}");
        }
        assert!(Program::compile("Object{}", &Scope::default()).is_err(), "nothing is patched there");
    }

    #[test]
    fn a_json_patch_is_made_of_operations() {
        let object = json!({ "metadata": { "labels": { "a/b": "c" } } });
        let made = |text: &str| eval(text, &object, operations);
        let text =
            "[JSONPatch{op: 'test', path: '/a', value: null}] + object.metadata.labels.map(k, JSONPatch{op: 'add',
            path: '/metadata/annotations/' + jsonpatch.escapeKey('~' + k), value: Object.metadata{x: [1u, true]}})";
        let expected = json!([
            { "op": "test", "path": "/a", "value": null },
            { "op": "add", "path": "/metadata/annotations/~0a~1b", "value": { "x": [1, true] } },
        ]);
        assert_eq!(made(text), Ok(expected));
        let moved = json!([{ "op": "move", "path": "/a", "from": "/b" }, { "op": "remove", "path": "" }]);
        assert_eq!(
            made("[JSONPatch{op: 'move', path: '/a', from: '/b'}, JSONPatch{op: 'remove', from: ''}]"),
            Ok(moved)
        );
        let wrong = "expected type of field 'op' is 'string' but provided type is 'int'";
        assert_eq!(made("[JSONPatch{op: 1}]"), Err(wrong.to_owned()));
        assert_eq!(
            made("[JSONPatch{path: object}]"),
            Err("unexpected type map for JSONPatchType 'path' field".to_owned())
        );
        assert_eq!(made("[JSONPatch{other: 1}]"), Err("undefined field 'other'".to_owned()));
        assert!(made("[1]").unwrap_err().ends_with("got element of int"));
        assert!(made("1").is_err() && made("[JSONPatch{value: Object.a{b: Object.b{}}}]").is_err());
    }

    #[test]
    fn what_is_made_is_no_larger_than_a_request() {
        let object = json!("x".repeat(1 << 20));
        let made = eval("Object{a: [object, object, object, object]}", &object, configuration);
        assert_eq!(made, Err(format!("the value is larger than {LARGEST} bytes")));
        let mut deep = Val::Null;
        for _ in 0..200 {
            deep = Val::list(vec![deep]);
        }
        assert!(Json::default().of(&deep).unwrap_err().contains("deeper"));
    }

    #[test]
    fn an_expression_of_another_kind_is_refused_when_it_is_written() {
        let scope = Scope { variables: vec![("object", None)], patches: true };
        let check = |text: &str, wanted| Program::compile_for(text, &scope, wanted).map(drop);
        for (text, wanted) in [
            ("object.a", Wanted::Configuration),
            ("true ? Object{} : object.b", Wanted::Configuration),
            ("true ? [] : [JSONPatch{}]", Wanted::Operations),
            ("object.l.map(x, JSONPatch{path: x})", Wanted::Operations),
            ("!object.a || has(object.b) && object.l.all(x, x > 1)", Wanted::Truth),
            ("'a' + object.b", Wanted::Text),
        ] {
            assert_eq!(check(text, wanted), Ok(()), "{text}");
        }
        let refused = |kind: &str| Err(format!("must evaluate to {kind}"));
        assert_eq!(check("1", Wanted::Truth), refused("bool"));
        assert_eq!(check("object.a == 1", Wanted::Text), refused("string"));
        assert_eq!(check("Object.spec{}", Wanted::Configuration), refused("Object"));
        assert_eq!(check("{'spec': 1}", Wanted::Configuration), refused("Object"));
        assert_eq!(check("[Object{}]", Wanted::Operations), refused("list(JSONPatch)"));
        assert!(check("1 +", Wanted::Truth).unwrap_err().starts_with("compilation failed: "));
    }
}
