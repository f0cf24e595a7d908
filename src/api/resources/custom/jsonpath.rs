//! The paths of printer columns and selectable fields: what `k8s.io/client-go/util/jsonpath` reads of one value, without
//! its templates.
//!
//! ```text
//! .a.b  ['a']  .a\.b  [0]  [-1]  [1:3]  [0,2]  [*]  .*  ..a  [?(@.a == "b")]
//! ```
//! Evaluation is bounded: no path finds more than a thousand values.

use serde_json::Value;

use super::validate::{compare, equal};

/// A path may find no more.
const MAX_FOUND: usize = 1000;
/// A path may have no more.
const MAX_STEPS: usize = 64;
/// A path may be no longer.
const MAX_LENGTH: usize = 4096;

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Fields(Vec<String>),
    Index(Vec<i64>),
    Slice(Option<i64>, Option<i64>, i64),
    Every,
    Deep,
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    path: JsonPath,
    /// None asks whether there is any.
    test: Option<(Comparison, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    Path(JsonPath),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path that starts with `.` or `[`; the error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("is longer than {MAX_LENGTH} bytes"));
        }
        let mut parser = Parser { rest: text, depth: 0 };
        let path = parser.path()?;
        if parser.rest.is_empty() { Ok(path) } else { Err(format!("unexpected {:?}", parser.rest)) }
    }

    /// The fields of a path that consists of nothing else.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// The values at the path, in their order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
                if next.len() > MAX_FOUND {
                    next.truncate(MAX_FOUND);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn apply<'v>(&self, value: &'v Value, found: &mut Vec<&'v Value>) {
        match self {
            Self::Field(name) => found.extend(value.get(name)),
            Self::Fields(names) => found.extend(names.iter().filter_map(|name| value.get(name))),
            Self::Index(indexes) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                found.extend(indexes.iter().filter_map(|index| items.get(place(*index, items.len())?)));
            }
            Self::Slice(from, to, step) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let end = |bound: Option<i64>, default: usize| match bound {
                    None => default,
                    Some(bound) if bound < 0 => place(bound, items.len()).unwrap_or(0),
                    Some(bound) => usize::try_from(bound).unwrap_or(usize::MAX).min(items.len()),
                };
                let (from, to) = (end(*from, 0), end(*to, items.len()));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                found.extend(items.get(from..to).into_iter().flatten().step_by(step));
            }
            Self::Every => match value {
                Value::Array(items) => found.extend(items),
                Value::Object(fields) => found.extend(fields.values()),
                _ => {}
            },
            Self::Deep => {
                let mut open = vec![value];
                while let Some(value) = open.pop() {
                    if found.len() > MAX_FOUND {
                        return;
                    }
                    found.push(value);
                    match value {
                        Value::Array(items) => open.extend(items.iter().rev()),
                        Value::Object(fields) => open.extend(fields.values().rev()),
                        _ => {}
                    }
                }
            }
            Self::Filter(filter) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                found.extend(items.iter().filter(|item| filter.admits(item)));
            }
        }
    }
}

/// A place in a list; negative ones count from its end.
fn place(index: i64, len: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

impl Filter {
    fn admits(&self, item: &Value) -> bool {
        let found = self.path.find(item);
        let Some((comparison, operand)) = &self.test else { return !found.is_empty() };
        let Some(left) = found.first() else { return false };
        let right = match operand {
            Operand::Literal(value) => value,
            Operand::Path(path) => match path.find(item).first() {
                Some(value) => value,
                None => return false,
            },
        };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => Some(compare(a, b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match comparison {
            Comparison::Equal => equal(left, right),
            Comparison::Unequal => !equal(left, right),
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn path(&mut self) -> Result<JsonPath, String> {
        let mut steps = Vec::new();
        loop {
            if steps.len() > MAX_STEPS {
                return Err(format!("has more than {MAX_STEPS} steps"));
            }
            if let Some(rest) = self.rest.strip_prefix("..") {
                steps.push(Step::Deep);
                self.rest = rest;
                if !rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                // A dot before a bracket, or alone, says nothing.
                if !rest.is_empty() && !rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(self.bracket()?);
            } else {
                return Ok(JsonPath(steps));
            }
        }
    }

    /// A name up to the next step; a backslash makes what follows part of it.
    fn name(&mut self) -> Result<Step, String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => name.extend(chars.next().map(|(_, char)| char)),
                '.' | '[' | ']' | ' ' | '=' | '!' | '<' | '>' | ')' | '(' | ',' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        let is_empty = end == 0;
        self.rest = &self.rest[end..];
        match name.as_str() {
            _ if is_empty => Err("a name is missing".to_owned()),
            "*" => Ok(Step::Every),
            _ => Ok(Step::Field(name)),
        }
    }

    fn bracket(&mut self) -> Result<Step, String> {
        if let Some(rest) = self.rest.strip_prefix("?(") {
            self.rest = rest;
            return self.filter();
        }
        if self.rest.starts_with(['\'', '"']) {
            let mut names = vec![self.quoted()?];
            while self.take(",") {
                names.push(self.quoted()?);
            }
            self.expect("]")?;
            return Ok(if names.len() == 1 { Step::Field(names.remove(0)) } else { Step::Fields(names) });
        }
        let (inner, rest) = self.rest.split_once(']').ok_or("a bracket is not closed")?;
        self.rest = rest;
        if inner.trim() == "*" {
            return Ok(Step::Every);
        }
        let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text:?} is no whole number"));
        if inner.contains(':') {
            let bound =
                |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(number).transpose();
            let mut parts = inner.splitn(3, ':');
            let (from, to, step) = (bound(parts.next())?, bound(parts.next())?, bound(parts.next())?.unwrap_or(1));
            return if step > 0 { Ok(Step::Slice(from, to, step)) } else { Err("step must be > 0".to_owned()) };
        }
        inner.split(',').map(number).collect::<Result<_, _>>().map(Step::Index)
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.depth += 1;
        if self.depth > 8 {
            return Err("filters are nested too deep".to_owned());
        }
        let path = self.relative()?;
        self.space();
        let test = match self.comparison() {
            None => None,
            Some(comparison) => {
                self.space();
                Some((comparison, self.operand()?))
            }
        };
        self.space();
        self.expect(")")?;
        self.expect("]")?;
        self.depth -= 1;
        Ok(Step::Filter(Filter { path, test }))
    }

    fn relative(&mut self) -> Result<JsonPath, String> {
        self.space();
        self.expect("@")?;
        self.path()
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let words = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        words.into_iter().find(|(word, _)| self.take(word)).map(|(_, comparison)| comparison)
    }

    fn operand(&mut self) -> Result<Operand, String> {
        if self.rest.starts_with('@') {
            return self.relative().map(Operand::Path);
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted().map(|text| Operand::Literal(text.into()));
        }
        let end = self.rest.find([')', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match serde_json::from_str::<Value>(word) {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Operand::Literal(value)),
            _ => Err(format!("{word:?} is neither a text in quotes nor a number nor a truth value")),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.rest.chars().next().filter(|char| matches!(char, '\'' | '"')).ok_or("a quote is missing")?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => text.extend(chars.next().map(|(_, char)| char)),
                char if char == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                char => text.push(char),
            }
        }
        Err("a quote is not closed".to_owned())
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn take(&mut self, word: &str) -> bool {
        self.rest.strip_prefix(word).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.take(word) { Ok(()) } else { Err(format!("{word:?} is missing before {:?}", self.rest)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::JsonPath;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "spec": {"a": [1, 2, 3, 4], "b.c": {"d/e": "x"}, "n": null},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 3}, {"type": "Other", "status": "False", "n": 5}]},
        });
        let cases = [
            (".spec.a", json!([[1, 2, 3, 4]])),
            (".spec.a[0]", json!([1])),
            (".spec.a[-1]", json!([4])),
            (".spec.a[-9]", json!([])),
            (".spec.a[1:3]", json!([2, 3])),
            (".spec.a[::2]", json!([1, 3])),
            (".spec.a[0,2]", json!([1, 3])),
            (".spec.a[*]", json!([1, 2, 3, 4])),
            (r".spec.b\.c.d/e", json!(["x"])),
            (".spec['b.c'].d/e", json!(["x"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type == 'Other')].status", json!(["False"])),
            (".status.conditions[?(@.n > 3)].type", json!(["Other"])),
            (".status.conditions[?(@.n != 3)].type", json!(["Other"])),
            (".status.conditions[?(@.none)].type", json!([])),
            (".status.conditions[*]['type','n']", json!(["Ready", 3, "Other", 5])),
            ("..type", json!(["Ready", "Other"])),
            (".none.at.all", json!([])),
            (".spec.n", json!([null])),
        ];
        for (path, expected) in cases {
            let found: Value = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["spec", ".a[", ".a[x]", ".a[?(@.b=='c']", ".a['b", ".a[?(@.b==c)]", ".a]", ".a[::0]", ".a b"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
        assert!(JsonPath::parse(&"[?(@".repeat(1000)).is_err());
    }
}
