//! Laws of schemas that hold for any schema and any object.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::schema::Schema;
use super::{default, lists, prune, validate};

/// Any value of few names, so that schemas and objects meet.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..12).prop_map(Value::from),
        "[ab]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let fields = proptest::collection::btree_map("[a-d]|metadata|kind", inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Any schema; structural or not, the functions are total.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = (prop_oneof!["string", "integer", "object", "array"], any::<bool>(), proptest::option::of(value()))
        .prop_map(|(ty, nullable, default)| {
            let mut schema = json!({"type": ty, "nullable": nullable, "maximum": 5, "maxLength": 2, "enum": ["a", 3]});
            if let Some(default) = default {
                schema["default"] = default;
            }
            schema
        });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let properties = proptest::collection::btree_map("[a-d]", inner.clone(), 0..4);
        (properties, proptest::option::of(inner), any::<[bool; 4]>()).prop_map(|(properties, other, flags)| {
            let [preserve, embedded, any_name, list] = flags;
            let mut schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": preserve,
                "x-kubernetes-embedded-resource": embedded, "required": ["a"]});
            schema["properties"] = Value::Object(properties.into_iter().collect::<Map<_, _>>());
            match other {
                Some(other) if list => {
                    schema = json!({"type": "array", "items": other, "x-kubernetes-list-type": "set"});
                }
                Some(other) if any_name => schema["additionalProperties"] = other,
                Some(other) => schema["anyOf"] = json!([other, {"not": other}]),
                None => schema["additionalProperties"] = any_name.into(),
            }
            schema
        })
    })
}

/// Whether a default holds what its own schema would not let stand, which no accepted definition has.
fn is_settled(schema: &Schema) -> bool {
    let own = schema.default.as_ref().is_none_or(|own| {
        let mut pruned = own.clone();
        prune::prune_value(schema, &mut pruned);
        !own.is_null() && pruned == *own
    });
    let additional = match &schema.additional {
        super::schema::Additional::Of(inner) => is_settled(inner),
        _ => true,
    };
    own && additional && schema.properties.values().all(is_settled) && schema.items.as_deref().is_none_or(is_settled)
}

proptest! {
    #[test]
    fn pruning_and_filling_in_are_idempotent(schema in schema(), object in value()) {
        let schema = Schema::read(&schema);
        prop_assume!(is_settled(&schema));
        let mut once = object;
        prune::prune(&schema, &mut once);
        default::fill(&schema, &mut once);
        let mut twice = once.clone();
        prop_assert_eq!(prune::prune(&schema, &mut twice), Vec::<String>::new());
        default::fill(&schema, &mut twice);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn checks_are_total_and_what_stays_is_not_checked_again(schema in schema(), object in value(), old in value()) {
        let schema = Schema::read(&schema);
        let _ = lists::check(&schema, &object);
        let _ = super::embedded::check(&schema, &object);
        let _ = validate::check(&schema, &object, Some(&old), "");
        prop_assert_eq!(validate::check(&schema, &object, Some(&object), ""), Vec::new());
    }

    #[test]
    fn definitions_of_any_form_are_checked_and_read(schema in schema(), junk in value()) {
        let definition = json!({"spec": {"group": "a.b", "names": junk, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": junk, "selectableFields": junk,
            "additionalPrinterColumns": junk}]}, "status": junk});
        let _ = (super::definition::ROW.validate)(&definition);
        prop_assert!(super::rows(&definition).is_ok());
    }
}

#[test]
fn versions_are_preferred_as_upstream_prefers_them() {
    let mut names = ["foo10", "v1", "v10", "v11alpha2", "v12alpha1", "v2", "v3beta1", "v10beta3", "foo1", "v11beta2"];
    names.sort_by_key(|name| std::cmp::Reverse(super::priority(name)));
    let wanted = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
    assert_eq!(names, wanted);
}
