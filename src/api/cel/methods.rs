//! Functions that are called on a value.

use std::net::IpAddr;
use std::rc::Rc;

use super::eval::{Budget, Result, no_such_overload, none};
use super::functions;
use super::text;
use super::time;
use super::value::{Val, contains};
use crate::quantity::Quantity;

/// No text that an expression makes may be longer.
const MAX_TEXT: usize = 1 << 20;

/// Names of methods with the numbers of arguments that they take.
pub(super) const KNOWN: &[(&str, usize, usize)] = &[
    ("size", 0, 0),
    ("matches", 1, 1),
    ("contains", 1, 1),
    ("startsWith", 1, 1),
    ("endsWith", 1, 1),
    ("charAt", 1, 1),
    ("indexOf", 1, 2),
    ("lastIndexOf", 1, 2),
    ("lowerAscii", 0, 0),
    ("upperAscii", 0, 0),
    ("replace", 2, 3),
    ("split", 1, 2),
    ("substring", 1, 2),
    ("trim", 0, 0),
    ("join", 0, 1),
    ("find", 1, 1),
    ("findAll", 1, 2),
    ("reverse", 0, 0),
    ("isSorted", 0, 0),
    ("sum", 0, 0),
    ("min", 0, 0),
    ("max", 0, 0),
    ("getFullYear", 0, 1),
    ("getMonth", 0, 1),
    ("getDate", 0, 1),
    ("getDayOfMonth", 0, 1),
    ("getDayOfWeek", 0, 1),
    ("getDayOfYear", 0, 1),
    ("getHours", 0, 1),
    ("getMinutes", 0, 1),
    ("getSeconds", 0, 1),
    ("getMilliseconds", 0, 1),
    ("getScheme", 0, 0),
    ("getHost", 0, 0),
    ("getHostname", 0, 0),
    ("getPort", 0, 0),
    ("getEscapedPath", 0, 0),
    ("getQuery", 0, 0),
    ("isInteger", 0, 0),
    ("asInteger", 0, 0),
    ("asApproximateFloat", 0, 0),
    ("sign", 0, 0),
    ("add", 1, 1),
    ("sub", 1, 1),
    ("isLessThan", 1, 1),
    ("isGreaterThan", 1, 1),
    ("compareTo", 1, 1),
    ("family", 0, 0),
    ("isUnspecified", 0, 0),
    ("isLoopback", 0, 0),
    ("isLinkLocalMulticast", 0, 0),
    ("isLinkLocalUnicast", 0, 0),
    ("isGlobalUnicast", 0, 0),
    ("containsIP", 1, 1),
    ("containsCIDR", 1, 1),
    ("ip", 0, 0),
    ("masked", 0, 0),
    ("prefixLength", 0, 0),
    ("hasValue", 0, 0),
    ("value", 0, 0),
    ("or", 1, 1),
    ("orValue", 1, 1),
];

/// Calls a method.
pub(super) fn call<'v>(of: &Val<'v>, name: &str, arguments: &[Val<'v>], budget: &mut Budget) -> Result<Val<'v>> {
    if name == "size" && arguments.is_empty() {
        return functions::size(of);
    }
    match of {
        Val::Text(text) => {
            budget.pay_bytes(text.len())?;
            of_text(text, name, arguments, budget)
        }
        Val::Bytes(_) => no_such_overload(),
        Val::Access(access) => access.call(name, arguments, budget),
        Val::Timestamp(stamp) => {
            let zone = match arguments {
                [] => None,
                [zone] => zone.as_text(),
                _ => return no_such_overload(),
            };
            time::part(*stamp, name, zone).map_or_else(none, |part| Ok(Val::Int(part)))
        }
        Val::Duration(nanos) => of_duration(*nanos, name),
        Val::Url(url) => of_url(url, name),
        Val::Quantity(quantity) => of_quantity(*quantity, name, arguments),
        Val::Ip(ip) => of_ip(*ip, name),
        Val::Cidr(ip, bits) => of_cidr(*ip, *bits, name, arguments),
        Val::Optional(inner) => match (name, inner) {
            ("hasValue", inner) => Ok(Val::Bool(inner.is_some())),
            ("value", Some(inner)) => Ok((**inner).clone()),
            ("value", None) => none("optional.none() dereference"),
            _ => no_such_overload(),
        },
        _ if of.is_list() => {
            budget.pay(of.size().unwrap_or(0) as u64)?;
            of_list(of, name, arguments, budget)
        }
        _ => no_such_overload(),
    }
}

fn of_text<'v>(own: &Rc<str>, name: &str, arguments: &[Val<'v>], budget: &mut Budget) -> Result<Val<'v>> {
    let texts: Vec<&str> = arguments.iter().map_while(Val::as_text).collect();
    for text in &texts {
        budget.pay_bytes(text.len())?;
    }
    let place = |argument: &Val<'v>| match argument {
        Val::Int(place) => usize::try_from(*place).or_else(|_| none(format!("index out of range: {place}"))),
        _ => no_such_overload(),
    };
    let length = own.chars().count();
    Ok(match (name, texts.as_slice(), arguments) {
        ("contains", [needle], _) => {
            budget.pay(own.len() as u64 / 10)?;
            Val::Bool(own.contains(needle))
        }
        ("startsWith", [start], _) => Val::Bool(own.starts_with(start)),
        ("endsWith", [end], _) => Val::Bool(own.ends_with(end)),
        ("matches", [pattern], _) => Val::Bool(regex(pattern, own, budget)?.is_match(own)),
        ("find", [pattern], _) => Val::text(regex(pattern, own, budget)?.find(own).map_or("", |found| found.as_str())),
        ("findAll", [pattern, ..], rest) => {
            let most = rest.get(1).map(place).transpose()?.unwrap_or(usize::MAX);
            let regex = regex(pattern, own, budget)?;
            Val::list(regex.find_iter(own).take(most).map(|found| Val::text(found.as_str())).collect())
        }
        ("lowerAscii", [], []) => Val::text(own.to_ascii_lowercase()),
        ("upperAscii", [], []) => Val::text(own.to_ascii_uppercase()),
        ("trim", [], []) => Val::text(own.trim()),
        ("reverse", [], []) => Val::text(own.chars().rev().collect::<String>()),
        ("charAt", [], [at]) => {
            let at = place(at)?;
            if at > length {
                return none(format!("index out of range: {at}"));
            }
            Val::text(own.chars().nth(at).map(String::from).unwrap_or_default())
        }
        ("substring", [], [from]) => substring(own, place(from)?, length, length)?,
        ("substring", [], [from, to]) => substring(own, place(from)?, place(to)?, length)?,
        ("indexOf", [needle], [_]) => Val::Int(text::index_of(own, needle, 0)),
        ("indexOf", [needle], [_, from]) => Val::Int(text::index_of(own, needle, place(from)?)),
        ("lastIndexOf", [needle], [_]) => Val::Int(text::last_index_of(own, needle, usize::MAX)),
        ("lastIndexOf", [needle], [_, most]) => Val::Int(text::last_index_of(own, needle, place(most)?)),
        ("replace", [from, to], [..]) => {
            let most = match arguments.get(2) {
                Some(Val::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
                Some(_) => return no_such_overload(),
                None => usize::MAX,
            };
            let count = own.matches(from).count().min(most);
            let size = own.len().saturating_add(count.saturating_mul(to.len()));
            budget.pay_bytes(size)?;
            if size > MAX_TEXT {
                return none("the text would be too long");
            }
            Val::text(own.replacen(from, to, most))
        }
        ("split", [separator], [..]) => {
            let most = match arguments.get(1) {
                Some(Val::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
                Some(_) => return no_such_overload(),
                None => usize::MAX,
            };
            split(own, separator, most)
        }
        _ => return no_such_overload(),
    })
}

/// An expression is compiled each time; its length and that of the text are paid for.
fn regex(pattern: &str, text: &str, budget: &mut Budget) -> Result<regex::Regex> {
    budget.pay((pattern.len() as u64 + 1) * 20 + (pattern.len() as u64 * text.len() as u64) / 40)?;
    crate::resources::custom::regex(pattern).or_else(none)
}

fn substring<'v>(text: &str, from: usize, to: usize, length: usize) -> Result<Val<'v>> {
    if from > length || to > length || from > to {
        return none(format!("index out of range: {}", if from > length { from } else { to }));
    }
    Ok(Val::text(text.chars().skip(from).take(to - from).collect::<String>()))
}

/// As `strings.SplitN`: an empty separator gives the characters.
fn split<'v>(text: &str, separator: &str, most: usize) -> Val<'v> {
    if most == 0 {
        return Val::list(Vec::new());
    }
    if separator.is_empty() {
        let mut parts: Vec<Val<'v>> = Vec::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            if parts.len() + 1 == most {
                parts.push(Val::text(rest));
                break;
            }
            parts.push(Val::text(String::from(char)));
            rest = &rest[char.len_utf8()..];
        }
        return Val::list(parts);
    }
    Val::list(text.splitn(most, separator).map(Val::text).collect())
}

fn of_list<'v>(list: &Val<'v>, name: &str, arguments: &[Val<'v>], budget: &mut Budget) -> Result<Val<'v>> {
    let items = list.items().unwrap_or_default();
    Ok(match (name, arguments) {
        ("join", []) => join(&items, "", budget)?,
        ("join", [Val::Text(separator)]) => join(&items, separator, budget)?,
        ("reverse", []) => Val::list(items.into_iter().rev().collect()),
        ("indexOf" | "lastIndexOf", [wanted]) => {
            let mut place = -1;
            for (at, item) in (0..).zip(&items) {
                if item.equals(wanted, budget)? && (place < 0 || name == "lastIndexOf") {
                    place = at;
                }
            }
            Val::Int(place)
        }
        ("isSorted", []) => {
            let mut sorted = true;
            for pair in items.windows(2) {
                match pair[0].compare(&pair[1]) {
                    Some(order) => sorted = sorted && order.is_le(),
                    None => return no_such_overload(),
                }
            }
            Val::Bool(sorted)
        }
        ("min" | "max", []) => {
            let mut items = items.into_iter();
            let Some(mut best) = items.next() else { return none(format!("{name} called on empty list")) };
            for item in items {
                match item.compare(&best) {
                    Some(order) if order.is_ne() && order.is_gt() == (name == "max") => best = item,
                    Some(_) => {}
                    None => return no_such_overload(),
                }
            }
            best
        }
        ("sum", []) => {
            let mut items = items.into_iter();
            let Some(mut sum) = items.next() else { return Ok(Val::Int(0)) };
            for item in items {
                sum = functions::call("_+_", &[sum, item], budget)?;
            }
            sum
        }
        ("contains", [wanted]) => Val::Bool(contains(&items, wanted, budget)?),
        _ => return no_such_overload(),
    })
}

fn join<'v>(items: &[Val<'v>], separator: &str, budget: &mut Budget) -> Result<Val<'v>> {
    let mut joined = String::new();
    for (at, item) in items.iter().enumerate() {
        let Some(text) = item.as_text() else { return no_such_overload() };
        budget.pay_bytes(text.len() + separator.len())?;
        if joined.len() + text.len() + separator.len() > MAX_TEXT {
            return none("the text would be too long");
        }
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Val::text(joined))
}

fn of_duration<'v>(nanos: i64, name: &str) -> Result<Val<'v>> {
    const SECOND: i64 = 1_000_000_000;
    Ok(Val::Int(match name {
        "getHours" => nanos / (3600 * SECOND),
        "getMinutes" => nanos / (60 * SECOND),
        "getSeconds" => nanos / SECOND,
        "getMilliseconds" => nanos / 1_000_000,
        _ => return no_such_overload(),
    }))
}

fn of_url<'v>(url: &str, name: &str) -> Result<Val<'v>> {
    let parts = text::url(url);
    let (host, port) = text::host_and_port(parts.host);
    Ok(match name {
        "getScheme" => Val::text(parts.scheme),
        "getHost" => Val::text(parts.host),
        "getHostname" => Val::text(host),
        "getPort" => Val::text(port),
        "getEscapedPath" => Val::text(parts.path),
        "getQuery" => {
            let mut map: Vec<(Val<'v>, Val<'v>)> = Vec::new();
            for pair in parts.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let (key, value) = (text::unescaped(key), Val::text(text::unescaped(value)));
                match map.iter_mut().find(|(own, _)| own.as_text() == Some(&key)) {
                    Some((_, Val::List(values))) => Rc::make_mut(values).push(value),
                    _ => map.push((Val::text(key), Val::list(vec![value]))),
                }
            }
            Val::Map(map.into())
        }
        _ => return no_such_overload(),
    })
}

fn of_quantity<'v>(own: Quantity, name: &str, arguments: &[Val<'v>]) -> Result<Val<'v>> {
    let other = match arguments {
        [Val::Quantity(other)] => Some(*other),
        [Val::Int(number)] => Some(Quantity::from_whole(*number)),
        _ => None,
    };
    Ok(match (name, other) {
        ("isInteger", None) => Val::Bool(own.is_whole()),
        ("asInteger", None) if own.is_whole() => Val::Int(own.value()),
        ("asInteger", None) => return none("cannot convert value to integer"),
        #[expect(clippy::cast_precision_loss, reason = "the function is an approximation")]
        ("asApproximateFloat", None) => {
            Val::Double(if own.is_whole() { own.value() as f64 } else { own.milli_value() as f64 / 1000.0 })
        }
        ("sign", None) if own.is_zero() => Val::Int(0),
        ("sign", None) => Val::Int(if own.is_negative() { -1 } else { 1 }),
        ("add", Some(other)) => Val::Quantity(own.plus(other)),
        ("sub", Some(other)) => Val::Quantity(own.minus(other)),
        ("isLessThan", Some(other)) => Val::Bool(own < other),
        ("isGreaterThan", Some(other)) => Val::Bool(own > other),
        ("compareTo", Some(other)) => Val::Int(match own.cmp(&other) {
            std::cmp::Ordering::Less => -1,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 1,
        }),
        _ => return no_such_overload(),
    })
}

fn of_ip<'v>(ip: IpAddr, name: &str) -> Result<Val<'v>> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    let link_local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    Ok(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Val::Bool(link_local),
        "isLinkLocalMulticast" => Val::Bool(link_local_multicast),
        "isGlobalUnicast" => {
            Val::Bool(!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local && !broadcast)
        }
        _ => return no_such_overload(),
    })
}

fn of_cidr<'v>(own: IpAddr, bits: u8, name: &str, arguments: &[Val<'v>]) -> Result<Val<'v>> {
    let has = |ip: IpAddr| ip.is_ipv4() == own.is_ipv4() && text::masked(ip, bits) == text::masked(own, bits);
    let parsed = || none("network address parse error during conversion from string");
    Ok(match (name, arguments) {
        ("ip", []) => Val::Ip(own),
        ("masked", []) => Val::Cidr(text::masked(own, bits), bits),
        ("prefixLength", []) => Val::Int(bits.into()),
        ("containsIP", [Val::Ip(ip)]) => Val::Bool(has(*ip)),
        ("containsIP", [Val::Text(ip)]) => match text::ip(ip) {
            Some(ip) => Val::Bool(has(ip)),
            None => return parsed(),
        },
        ("containsCIDR", [Val::Cidr(ip, longer)]) => Val::Bool(*longer >= bits && has(*ip)),
        ("containsCIDR", [Val::Text(other)]) => match text::cidr(other) {
            Some((ip, longer)) => Val::Bool(longer >= bits && has(ip)),
            None => return parsed(),
        },
        _ => return no_such_overload(),
    })
}
