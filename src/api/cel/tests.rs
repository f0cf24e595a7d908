use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Budget, EvalError, Program, Scope, Val};

fn run(text: &str, object: &Value) -> Result<bool, String> {
    let scope = Scope { variables: vec![("self", None)], ..Scope::default() };
    let program = Program::compile(text, &scope)?;
    match program.eval(&[("self", Val::of(object, None))], &mut Budget::new(100_000)) {
        Ok(Val::Bool(truth)) => Ok(truth),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn expressions_are_true_that_upstream_finds_true() {
    let object = json!({
        "n": 3, "big": 7.5, "s": "héllo", "list": [1, 2, 3], "names": ["b", "a"], "empty": [],
        "map": {"a": 1, "b": 2}, "nested": {"x": {"y": true}}, "items": [{"name": "a", "v": 1}, {"name": "b", "v": 2}],
        "dash-name": 1, "namespace": "x",
    });
    let cases = include_str!("../../../testdata/api/cel/true.txt");
    for case in cases.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert_eq!(run(case, &object), Ok(true), "{case}");
    }
}

#[test]
fn expressions_that_cannot_be_compiled_or_have_no_value_say_why() {
    let object = json!({"n": 3, "list": [1], "s": "x"});
    let cases = [
        ("self.n >", "Syntax error: unexpected end"),
        ("self.n > 1 )", "Syntax error: unexpected ')'"),
        ("unknown > 1", "undeclared reference to 'unknown' (in container '')"),
        (
            "frobnicate(self)",
            "undeclared reference to 'frobnicate' (in container ''): this server has no such function",
        ),
        (
            "self.s.format([1]) == ''",
            "undeclared reference to 'format' (in container ''): this server has no such function",
        ),
        ("size(self, 1) == 1", "found no matching overload for 'size' applied to 2 arguments"),
        ("self.none == 1", "no such key: none"),
        ("self.list[1] == 1", "index out of bounds: 1"),
        ("self.n + 's' == 1", "no such overload"),
        ("self.n / 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        ("self.s.matches('(')", "error parsing regexp: unclosed group: `(`"),
        ("package == 1", "Syntax error: reserved identifier: package"),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text, &object), Err(expected.to_owned()), "{text}");
    }
    assert!(run(&"(".repeat(1000), &object).unwrap_err().contains("recursion limit"));
    assert!(run(&format!("1{}", "+1".repeat(5000)), &object).unwrap_err().contains("recursion limit"));
}

#[test]
fn no_expression_goes_on_for_long() {
    let list: Vec<u32> = (0..1000).collect();
    let object = json!({"l": list, "s": "a".repeat(100_000)});
    for text in [
        "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d >= 0))))",
        "self.l.map(a, self.l).map(a, a.map(b, self.l)).size() > 0",
        "self.l.map(a, self.s + self.s + self.s).join('').size() > 0",
        "self.l.all(a, self.s.matches('(a?){100}a{100}'))",
        "self.l.map(a, self.l) == self.l.map(a, self.l)",
    ] {
        let scope = Scope { variables: vec![("self", None)], ..Scope::default() };
        let program = Program::compile(text, &scope).unwrap();
        let result = program.eval(&[("self", Val::of(&object, None))], &mut Budget::new(100_000));
        assert_eq!(result.map(|_| ()), Err(EvalError::Budget), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_compiled_or_refused(text in "[a-z0-9 .()\\[\\]{}?:,'\"&|!<>=+*/%-]{0,60}") {
        let _ = run(&text, &json!({"a": [1, "x", null], "b": {"c": 1.5}}));
    }
}
