//! PriorityLevelConfigurations: how many requests of a level are worked on at once, and how many wait.

use jiff::Timestamp;
use serde_json::Value;

use super::{BASE, CATCH_ALL, EXEMPT, GROUP, bootstrap, check_conditions};
use crate::resources::cell::{self, column};
use crate::resources::path::{
    Path, default_number, default_to, ensure_object, number, object_mut, present, remove, text,
};
use crate::resources::{Resource, status_of};
use crate::status::FieldError;

const MOST_QUEUES: i64 = 10_000_000;
/// Bits of the hash by which upstream deals queues.
const HASH_BITS: f64 = 60.0;
const NOT_NEGATIVE: &str = "must be a non-negative integer";
const PERCENT: &str = "must be between 0 and 100, inclusive";

/// `prioritylevelconfigurations`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "PriorityLevelConfiguration",
    list_kind: "PriorityLevelConfigurationList",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    subresources: &[status_of(GROUP, "v1", "PriorityLevelConfiguration")],
    default,
    validate,
    validate_update: |new, _| validate(new),
    validate_status: |new, _| status(new),
    warn: idle_fields,
    columns: &[
        cell::NAME,
        column("Type", "string", "", "Whether its requests ever wait.", 0),
        column("NominalConcurrencyShares", "string", "", "What share of the seats is its own.", 0),
        column("Queues", "string", "", "How many queues there are.", 0),
        column("HandSize", "string", "", "How many of these a flow may have.", 0),
        column("QueueLengthLimit", "string", "", "How many requests of a queue may wait.", 0),
        cell::AGE,
    ],
    cells,
    ..BASE
};

fn cells(level: &Value, now: Timestamp) -> Vec<Value> {
    let limited = &level["spec"]["limited"];
    let queuing = &limited["limitResponse"]["queuing"];
    let or_none = |parent: &Value, field: &str| match parent.is_null() {
        true => "<none>".into(),
        false => Value::from(number(parent, field)),
    };
    vec![
        cell::name(level),
        text(&level["spec"], "type").into(),
        or_none(limited, "nominalConcurrencyShares"),
        or_none(queuing, "queues"),
        or_none(queuing, "handSize"),
        or_none(queuing, "queueLengthLimit"),
        cell::age(level, now),
    ]
}

/// What is asked for in vain: seats are not lent here.
fn idle_fields(level: &Value) -> Vec<String> {
    let spec = &level["spec"];
    let fields = ["exempt.lendablePercent", "exempt.nominalConcurrencyShares"].into_iter();
    let fields = fields.chain(["limited.lendablePercent", "limited.borrowingLimitPercent"]);
    let asks = |field: &&str| {
        let (parent, field) = field.split_once('.').unwrap_or_default();
        number(&spec[parent], field) > 0
    };
    fields.filter(asks).map(|field| format!("spec.{field}: levels do not lend each other seats here")).collect()
}

fn default(level: &mut Value) {
    let spec = ensure_object(level, "spec");
    if let Some(exempt) = object_mut(spec, "exempt") {
        default_to(exempt, "nominalConcurrencyShares", 0);
        default_to(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = object_mut(spec, "limited") {
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        if let Some(queuing) = object_mut(limited, "limitResponse").and_then(|own| object_mut(own, "queuing")) {
            default_number(queuing, "handSize", 8);
            default_number(queuing, "queues", 64);
            default_number(queuing, "queueLengthLimit", 50);
        }
    }
}

fn validate(level: &Value) -> Vec<FieldError> {
    let (name, spec, path) = (text(&level["metadata"], "name"), &level["spec"], Path::new("spec"));
    let kind = text(spec, "type");
    let mut errors = Vec::new();
    if (name == EXEMPT) != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(path.child("type"), &kind.into(), detail));
    }
    match kind {
        "Exempt" => {
            if present(spec, "limited") {
                errors.push(FieldError::forbidden(path.child("limited"), "must be nil if the type is not Limited"));
            }
            exempt(&spec["exempt"], &path.child("exempt"), &mut errors);
        }
        "Limited" => {
            if present(spec, "exempt") {
                errors.push(FieldError::forbidden(path.child("exempt"), "must be nil if the type is Limited"));
            }
            if present(spec, "limited") {
                limited(&spec["limited"], &path.child("limited"), &mut errors);
            } else {
                errors.push(FieldError::required(path.child("limited"), "must not be empty when type is Limited"));
            }
        }
        _ => errors.push(FieldError::not_supported(path.child("type"), &kind.into(), &["Exempt", "Limited"])),
    }
    fixed(name, spec, &path, &mut errors);
    errors.extend(status(level));
    errors
}

fn status(level: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_conditions(&level["status"], &Path::new("status"), &mut errors);
    errors
}

/// Two levels must be there as they are; only what the exempt one lends may change.
fn fixed(name: &str, spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(mut wanted) = bootstrap::level(name).filter(|_| [EXEMPT, CATCH_ALL].contains(&name)) else { return };
    let (mut found, mut detail) = (spec.clone(), format!("spec of '{name}' must equal the fixed value"));
    if name == EXEMPT {
        [&mut wanted["spec"], &mut found].into_iter().for_each(|spec| remove(spec, "exempt"));
        detail = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
    }
    if wanted["spec"] != found {
        errors.push(FieldError::invalid(path, spec, &detail));
    }
}

fn not_negative(parent: &Value, field: &str, path: &Path, detail: &str, errors: &mut Vec<FieldError>) {
    if number(parent, field) < 0 {
        errors.push(FieldError::invalid(path.child(field), &parent[field], detail));
    }
}

fn percent(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if !(0..=100).contains(&number(parent, "lendablePercent")) {
        errors.push(FieldError::invalid(path.child("lendablePercent"), &parent["lendablePercent"], PERCENT));
    }
}

fn exempt(exempt: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    not_negative(exempt, "nominalConcurrencyShares", path, NOT_NEGATIVE, errors);
    percent(exempt, path, errors);
}

/// `ValidateLimitedPriorityLevelConfiguration`.
fn limited(limited: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    not_negative(limited, "nominalConcurrencyShares", path, NOT_NEGATIVE, errors);
    response(&limited["limitResponse"], &path.child("limitResponse"), errors);
    percent(limited, path, errors);
    let detail = "if specified, must be a non-negative integer";
    not_negative(limited, "borrowingLimitPercent", path, detail, errors);
}

fn response(response: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let has_queues = present(response, "queuing");
    match text(response, "type") {
        "Reject" if has_queues => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(path.child("queuing"), detail));
        }
        "Reject" => {}
        "Queue" if has_queues => queuing(&response["queuing"], &path.child("queuing"), errors),
        "Queue" => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(path.child("queuing"), detail));
        }
        other => errors.push(FieldError::not_supported(path.child("type"), &other.into(), &["Queue", "Reject"])),
    }
}

/// `ValidatePriorityLevelQueuingConfiguration`.
fn queuing(queuing: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let [queues, hand] = ["queues", "handSize"].map(|field| number(queuing, field));
    let mut invalid = |field: &str, detail: &str| {
        errors.push(FieldError::invalid(path.child(field), &number(queuing, field).into(), detail));
    };
    if number(queuing, "queueLengthLimit") <= 0 {
        invalid("queueLengthLimit", "must be positive");
    }
    if queues <= 0 {
        invalid("queues", "must be positive");
    } else if queues > MOST_QUEUES {
        invalid("queues", &format!("must not be greater than {MOST_QUEUES}"));
    }
    let entropy = i32::try_from(queues).map_or(0.0, |queues| f64::from(queues).log2())
        * i32::try_from(hand).map_or(f64::INFINITY, f64::from);
    if hand <= 0 {
        invalid("handSize", "must be positive");
    } else if hand > queues {
        invalid("handSize", &format!("should not be greater than queues ({queues})"));
    } else if entropy.ceil() > HASH_BITS {
        let sizes = format!("deckSize {queues} and handSize {hand}");
        invalid("handSize", &format!("required entropy bits of {sizes} should not be greater than {HASH_BITS}"));
    }
}
