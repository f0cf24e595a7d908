//! Operators and functions that are called by their names.

use std::net::IpAddr;

use super::eval::{Budget, Result, no_such_overload, none};
use super::value::{Val, contains};
use super::{Identity, text, time};
use crate::quantity::Quantity;

/// Names of functions with the numbers of arguments that they take.
pub(super) const KNOWN: &[(&str, usize, usize)] = &[
    ("size", 1, 1),
    ("int", 1, 1),
    ("uint", 1, 1),
    ("double", 1, 1),
    ("string", 1, 1),
    ("bytes", 1, 1),
    ("bool", 1, 1),
    ("timestamp", 1, 1),
    ("duration", 1, 1),
    ("type", 1, 1),
    ("dyn", 1, 1),
    ("matches", 2, 2),
    ("url", 1, 1),
    ("isURL", 1, 1),
    ("quantity", 1, 1),
    ("isQuantity", 1, 1),
    ("ip", 1, 1),
    ("isIP", 1, 1),
    ("ip.isCanonical", 1, 1),
    ("cidr", 1, 1),
    ("isCIDR", 1, 1),
    ("optional.of", 1, 1),
    ("optional.ofNonZeroValue", 1, 1),
    ("optional.none", 0, 0),
    ("sets.contains", 2, 2),
    ("sets.equivalent", 2, 2),
    ("sets.intersects", 2, 2),
    ("math.greatest", 1, 8),
    ("math.least", 1, 8),
];

/// As [`KNOWN`], where JSON patches are made.
pub(super) const KNOWN_OF_PATCHES: &[(&str, usize, usize)] = &[("jsonpatch.escapeKey", 1, 1)];

/// Whether a name is the first part of names of functions.
pub(super) fn is_space(name: &str) -> bool {
    matches!(name, "ip" | "optional" | "sets" | "math" | "jsonpatch")
}

/// The types that expressions can name.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 10] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];
    NAMES.into_iter().find(|own| *own == name)
}

/// A value in a message.
pub(super) fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(truth) => truth.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => text::double(*number),
        Val::Text(text) => text.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Url(url) => url.to_string(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(ip, bits) => format!("{ip}/{bits}"),
        Val::Timestamp(stamp) => time::shown(*stamp),
        Val::Duration(nanos) => time::seconds(*nanos),
        other => other.type_name().to_owned(),
    }
}

/// Calls a function.
pub(super) fn call<'v>(name: &str, arguments: &[Val<'v>], budget: &mut Budget) -> Result<Val<'v>> {
    match (name, arguments) {
        ("_==_", [a, b]) => a.equals(b, budget).map(Val::Bool),
        ("_!=_", [a, b]) => a.equals(b, budget).map(|equal| Val::Bool(!equal)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => order(name, a, b),
        ("@in", [item, list]) => is_in(item, list, budget),
        ("!_", [Val::Bool(truth)]) => Ok(Val::Bool(!truth)),
        ("-_", [Val::Int(number)]) => {
            number.checked_neg().map_or_else(|| none("integer overflow"), |n| Ok(Val::Int(n)))
        }
        ("-_", [Val::Double(number)]) => Ok(Val::Double(-number)),
        ("_+_", [a, b]) => add(a, b, budget),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_" | "_/_" | "_%_", [a, b]) => arithmetic(name, a, b),
        ("size", [value]) => size(value),
        ("matches", [Val::Text(_), Val::Text(_)]) => {
            super::methods::call(&arguments[0], "matches", &arguments[1..], budget)
        }
        ("jsonpatch.escapeKey", [Val::Text(key)]) => {
            budget.pay_bytes(key.len())?;
            Ok(Val::text(key.replace('~', "~0").replace('/', "~1")))
        }
        ("jsonpatch.escapeKey", _) => no_such_overload(),
        // Each has a type of its own, of which nothing but its name is known here.
        ("type", [Val::Made(_)]) => no_such_overload(),
        ("type", [value]) => Ok(Val::Type(value.type_name())),
        ("dyn", [value]) => Ok(value.clone()),
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.of", [value]) => Ok(Val::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Val::Optional(None) } else { Val::some(value.clone()) })
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => sets(name, a, b, budget),
        ("math.greatest" | "math.least", values) => extreme(values, name == "math.greatest"),
        (_, [value]) => convert(name, value, budget),
        _ => no_such_overload(),
    }
}

/// The number of elements, entries or characters.
pub(super) fn size<'v>(value: &Val<'v>) -> Result<Val<'v>> {
    match value.size() {
        Some(size) => Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX))),
        None => no_such_overload(),
    }
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(number) => *number == 0.0,
        Val::Made(made) => made.fields.is_empty(),
        other => other.size() == Some(0),
    }
}

fn order<'v>(name: &str, a: &Val<'v>, b: &Val<'v>) -> Result<Val<'v>> {
    let number_and_nan = a.is_number() && b.is_number();
    match a.compare(b) {
        Some(order) => Ok(Val::Bool(match name {
            "_<_" => order.is_lt(),
            "_<=_" => order.is_le(),
            "_>_" => order.is_gt(),
            _ => order.is_ge(),
        })),
        None if number_and_nan => Ok(Val::Bool(false)),
        None => no_such_overload(),
    }
}

fn is_in<'v>(item: &Val<'v>, list: &Val<'v>, budget: &mut Budget) -> Result<Val<'v>> {
    if let (Val::Object(fields, _), Some(name)) = (list, item.as_text()) {
        return Ok(Val::Bool(fields.contains_key(name)));
    }
    budget.pay(list.size().unwrap_or(0) as u64)?;
    if let Some(items) = list.items() {
        return contains(&items, item, budget).map(Val::Bool);
    }
    let Some(entries) = list.entries() else { return no_such_overload() };
    let keys: Vec<Val<'v>> = entries.into_iter().map(|(key, _)| key).collect();
    contains(&keys, item, budget).map(Val::Bool)
}

fn add<'v>(a: &Val<'v>, b: &Val<'v>, budget: &mut Budget) -> Result<Val<'v>> {
    Ok(match (a, b) {
        (Val::Text(a), Val::Text(b)) => {
            budget.pay_bytes(a.len() + b.len())?;
            Val::text(format!("{a}{b}"))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            budget.pay_bytes(a.len() + b.len())?;
            Val::Bytes([&**a, &**b].concat().into())
        }
        (Val::Timestamp(stamp), Val::Duration(nanos)) | (Val::Duration(nanos), Val::Timestamp(stamp)) => {
            match stamp.checked_add(jiff::SignedDuration::from_nanos(*nanos)) {
                Ok(stamp) => Val::Timestamp(stamp),
                Err(_) => return none("timestamp overflow"),
            }
        }
        (Val::Duration(a), Val::Duration(b)) => match a.checked_add(*b) {
            Some(sum) => Val::Duration(sum),
            None => return none("duration overflow"),
        },
        _ if a.is_list() && b.is_list() => return join(a, b, budget),
        _ => return arithmetic("_+_", a, b),
    })
}

/// Lists one after the other; sets and maps as their union, where the second one's elements win.
fn join<'v>(a: &Val<'v>, b: &Val<'v>, budget: &mut Budget) -> Result<Val<'v>> {
    let (Some(mut items), Some(others)) = (a.items(), b.items()) else { return no_such_overload() };
    budget.pay((items.len() + others.len()) as u64)?;
    for other in others {
        let place = match a.identity() {
            Identity::Place => None,
            Identity::Value => position(&items, |item, budget| item.equals(&other, budget), budget)?,
            Identity::Keys(keys) => position(&items, |item, budget| same_keys(keys, item, &other, budget), budget)?,
        };
        match place {
            Some(place) => items[place] = other,
            None => items.push(other),
        }
    }
    Ok(Val::list(items))
}

fn position<'v>(
    items: &[Val<'v>],
    is: impl Fn(&Val<'v>, &mut Budget) -> Result<bool>,
    budget: &mut Budget,
) -> Result<Option<usize>> {
    for (place, item) in items.iter().enumerate() {
        if is(item, budget)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn same_keys<'v>(keys: &[String], a: &Val<'v>, b: &Val<'v>, budget: &mut Budget) -> Result<bool> {
    for key in keys {
        let same = match (a.get(key), b.get(key)) {
            (Some(a), Some(b)) => a.equals(&b, budget)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn subtract<'v>(a: &Val<'v>, b: &Val<'v>) -> Result<Val<'v>> {
    let nanos = |span: jiff::SignedDuration| i64::try_from(span.as_nanos()).ok();
    let result = match (a, b) {
        (Val::Timestamp(a), Val::Timestamp(b)) => nanos(a.duration_since(*b)).map(Val::Duration),
        (Val::Timestamp(stamp), Val::Duration(span)) => {
            stamp.checked_sub(jiff::SignedDuration::from_nanos(*span)).ok().map(Val::Timestamp)
        }
        (Val::Duration(a), Val::Duration(b)) => a.checked_sub(*b).map(Val::Duration),
        _ => return arithmetic("_-_", a, b),
    };
    result.map_or_else(|| none("timestamp overflow"), Ok)
}

fn arithmetic<'v>(name: &str, a: &Val<'v>, b: &Val<'v>) -> Result<Val<'v>> {
    let by_zero = || if name == "_%_" { none("modulus by zero") } else { none("division by zero") };
    let (signed, unsigned) = match (a, b) {
        (Val::Double(a), Val::Double(b)) => {
            return match name {
                "_+_" => Ok(Val::Double(a + b)),
                "_-_" => Ok(Val::Double(a - b)),
                "_*_" => Ok(Val::Double(a * b)),
                "_/_" => Ok(Val::Double(a / b)),
                _ => no_such_overload(),
            };
        }
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) if matches!(name, "_/_" | "_%_") => return by_zero(),
        (Val::Int(a), Val::Int(b)) => (Some((*a, *b)), None),
        (Val::Uint(a), Val::Uint(b)) => (None, Some((*a, *b))),
        _ => return no_such_overload(),
    };
    let signed = signed.map(|(a, b)| match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" => a.checked_div(b),
        _ => a.checked_rem(b),
    });
    let unsigned = unsigned.map(|(a, b)| match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" => a.checked_div(b),
        _ => a.checked_rem(b),
    });
    match (signed.flatten(), unsigned.flatten()) {
        (Some(number), _) => Ok(Val::Int(number)),
        (_, Some(number)) => Ok(Val::Uint(number)),
        _ => none("integer overflow"),
    }
}

fn sets<'v>(name: &str, a: &Val<'v>, b: &Val<'v>, budget: &mut Budget) -> Result<Val<'v>> {
    let (Some(a), Some(b)) = (a.items(), b.items()) else { return no_such_overload() };
    let mut all = |a: &[Val<'v>], b: &[Val<'v>]| -> Result<bool> {
        for item in b {
            if !contains(a, item, budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(Val::Bool(match name {
        "sets.contains" => all(&a, &b)?,
        "sets.equivalent" => all(&a, &b)? && all(&b, &a)?,
        _ => {
            let mut any = false;
            for item in &b {
                any = any || contains(&a, item, budget)?;
            }
            any
        }
    }))
}

/// The greatest or least of some numbers, which may be in one list.
fn extreme<'v>(values: &[Val<'v>], greatest: bool) -> Result<Val<'v>> {
    let items = match values {
        [list] if list.is_list() => list.items().unwrap_or_default(),
        values => values.to_vec(),
    };
    let mut items = items.into_iter();
    let Some(mut best) = items.next().filter(Val::is_number) else { return no_such_overload() };
    for item in items {
        match item.compare(&best) {
            Some(order) if order.is_gt() == greatest && order.is_ne() => best = item,
            Some(_) => {}
            None => return no_such_overload(),
        }
    }
    Ok(best)
}

fn convert<'v>(name: &str, value: &Val<'v>, budget: &mut Budget) -> Result<Val<'v>> {
    if let Val::Text(text) = value {
        budget.pay_bytes(text.len())?;
        return parse(name, text);
    }
    Ok(match (name, value) {
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) | ("bool", Val::Bool(_)) => {
            value.clone()
        }
        ("bytes", Val::Bytes(_)) | ("timestamp", Val::Timestamp(_)) | ("duration", Val::Duration(_)) => value.clone(),
        ("int", Val::Uint(number)) => match i64::try_from(*number) {
            Ok(number) => Val::Int(number),
            Err(_) => return none("integer overflow"),
        },
        ("uint", Val::Int(number)) => match u64::try_from(*number) {
            Ok(number) => Val::Uint(number),
            Err(_) => return none("unsigned integer overflow"),
        },
        #[expect(clippy::cast_possible_truncation, reason = "the bounds are checked")]
        ("int", Val::Double(number)) if number.abs() < 9.2e18 => Val::Int(*number as i64),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the bounds are checked")]
        ("uint", Val::Double(number)) if (0.0..1.8e19).contains(number) => Val::Uint(*number as u64),
        ("int" | "uint", Val::Double(_)) => return none("integer overflow"),
        ("int", Val::Timestamp(stamp)) => Val::Int(stamp.as_second()),
        ("double", Val::Int(_) | Val::Uint(_)) => Val::Double(value.as_double()),
        ("timestamp", Val::Int(seconds)) => match jiff::Timestamp::from_second(*seconds) {
            Ok(stamp) => Val::Timestamp(stamp),
            Err(_) => return none("timestamp overflow"),
        },
        ("string", Val::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Val::text(text),
            Err(_) => return none("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("string", _) if !value.is_list() && !value.is_map() => Val::text(shown(value)),
        _ => return no_such_overload(),
    })
}

/// What a text stands for.
fn parse<'v>(name: &str, text: &str) -> Result<Val<'v>> {
    let wrong = |what: &str| none(format!("{what} conversion error: {text:?}"));
    let ip = || super::text::ip(text);
    let cidr = || super::text::cidr(text);
    Ok(match name {
        "string" => Val::text(text),
        "bytes" => Val::Bytes(text.as_bytes().into()),
        "int" => return text.parse().map_or_else(|_| wrong("int"), |number| Ok(Val::Int(number))),
        "uint" => return text.parse().map_or_else(|_| wrong("uint"), |number| Ok(Val::Uint(number))),
        "double" => return text.parse().map_or_else(|_| wrong("double"), |number| Ok(Val::Double(number))),
        "bool" => match text {
            "true" | "True" | "TRUE" | "t" | "1" => Val::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Val::Bool(false),
            _ => return wrong("bool"),
        },
        "timestamp" => {
            return time::timestamp(text).map_or_else(|| wrong("timestamp"), |stamp| Ok(Val::Timestamp(stamp)));
        }
        "duration" => return time::duration(text).map_or_else(|| wrong("duration"), |nanos| Ok(Val::Duration(nanos))),
        "isURL" => Val::Bool(super::text::is_url(text)),
        "url" if super::text::is_url(text) => Val::Url(text.into()),
        "url" => return none(format!("URL parse error during conversion from string: {text:?}")),
        "isQuantity" => Val::Bool(Quantity::parse(text).is_ok()),
        "quantity" => {
            return Quantity::parse(text).map_or_else(|error| none(error.to_string()), |q| Ok(Val::Quantity(q)));
        }
        "isIP" => Val::Bool(ip().is_some()),
        "ip" => {
            return ip().map_or_else(
                || none(format!("IP Address {text:?} parse error during conversion from string")),
                |ip| Ok(Val::Ip(ip)),
            );
        }
        "ip.isCanonical" => {
            return match ip() {
                Some(ip) => Ok(Val::Bool(canonical(ip) == text)),
                None => none(format!("IP Address {text:?} parse error during conversion from string")),
            };
        }
        "isCIDR" => Val::Bool(cidr().is_some()),
        "cidr" => {
            let missing = || none(format!("network address parse error during conversion from string: {text:?}"));
            return cidr().map_or_else(missing, |(ip, bits)| Ok(Val::Cidr(ip, bits)));
        }
        _ => return no_such_overload(),
    })
}

fn canonical(ip: IpAddr) -> String {
    ip.to_string()
}
