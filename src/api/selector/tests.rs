use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FieldSelector, LabelSelector};

fn matches(selector: &str, labels: &Value) -> bool {
    LabelSelector::parse(selector).unwrap().matches(labels.as_object())
}

#[test]
fn label_selectors_select() {
    let labels = json!({"app": "web", "tier": "", "n": "5"});
    for selector in [
        "",
        "app",
        "app=web",
        "app==web",
        " app = web , n",
        "app!=db",
        "other!=x",
        "app in (db, web)",
        "app notin (db)",
        "other notin (db)",
        "!other",
        "! other",
        "tier=",
        "tier in ()",
        "tier in (,x)",
        "n>4",
        "n < 6",
        "app,!other,tier in (,)",
    ] {
        assert!(matches(selector, &labels), "{selector:?} selects");
    }
    for selector in ["!app", "app=db", "app!=web", "other", "other=x", "app in (db)", "app notin (web)", "n>5", "app>1"]
    {
        assert!(!matches(selector, &labels), "{selector:?} does not select");
    }
}

#[test]
fn malformed_label_selectors_are_refused_in_upstreams_words() {
    for (selector, message) in [
        ("app=web,", "found '', expected: identifier after ','"),
        (",app", "found ',', expected: !, identifier, or 'end of string'"),
        ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("app in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
        ("app=a b", "found 'b', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("app==(", "unable to parse requirement: found '(', expected: identifier"),
    ] {
        let error = LabelSelector::parse(selector).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, message), "{selector:?}");
    }
    let error = LabelSelector::parse("-a=b").unwrap_err();
    assert!(error.message.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"));
    let error = LabelSelector::parse("a=-").unwrap_err();
    assert!(
        error.message.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label")
    );
}

#[test]
fn label_selector_objects_select() {
    let labels = json!({"app": "web"});
    let check = |selector: Value| LabelSelector::from_object(&selector).unwrap().matches(labels.as_object());
    assert!(check(json!({})));
    assert!(!check(Value::Null));
    assert!(check(json!({"matchLabels": {"app": "web"}})));
    assert!(!check(json!({"matchLabels": {"app": "web", "x": "y"}})));
    assert!(check(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]})));
    assert!(!check(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})));
    let error = LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})).unwrap_err();
    assert_eq!(error.message, "\"Is\" is not a valid label selector operator");
}

#[test]
fn field_selectors_select() {
    let get = |field: &str| match field {
        "metadata.name" => Cow::Borrowed("a,b=c"),
        "status.phase" => Cow::Borrowed("Running"),
        _ => Cow::Borrowed(""),
    };
    for selector in [
        "",
        "metadata.name=a\\,b\\=c",
        "status.phase==Running,spec.nodeName=",
        "status.phase!=Failed,",
        ",status.phase!=x",
    ] {
        assert!(FieldSelector::parse(selector).unwrap().matches(get), "{selector:?}");
    }
    assert!(!FieldSelector::parse("status.phase!=Running").unwrap().matches(get));
    for (selector, message) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("a=\\b", "invalid field selector: invalid escape sequence: \\b"),
    ] {
        assert_eq!(FieldSelector::parse(selector).unwrap_err().message, message);
    }
}

proptest! {
    #[test]
    fn arbitrary_selectors_never_panic(text in "[a-z!=,()<> in\\\\]{0,30}|.*") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }
}
