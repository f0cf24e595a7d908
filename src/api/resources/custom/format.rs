//! The formats that a schema may ask of texts and numbers (`k8s.io/kube-openapi/pkg/validation/strfmt`). Others are not
//! checked, as upstream does not check them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;

use crate::names;

/// Whether a text has a format.
pub(super) fn is_valid(format: &str, text: &str) -> bool {
    match format {
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => date_time(text),
        "duration" => duration(text).is_some(),
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text).is_some(),
        "mac" => mac(text),
        "uri" => uri(text),
        "hostname" => hostname(text),
        "email" => email(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => social_security_number(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "rgbcolor" => rgb(text),
        "k8s-short-name" => names::dns1123_label(text).is_empty(),
        "k8s-long-name" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// The numbers that a format can hold.
pub(super) fn range(format: &str) -> Option<RangeInclusive<i64>> {
    match format {
        "int32" => Some(i64::from(i32::MIN)..=i64::from(i32::MAX)),
        "int64" => Some(i64::MIN..=i64::MAX),
        _ => None,
    }
}

/// RFC 3339, with a `T` or `t` between date and time.
fn date_time(text: &str) -> bool {
    text.get(10..11).is_some_and(|between| between.eq_ignore_ascii_case("t")) && text.parse::<Timestamp>().is_ok()
}

/// A duration of Go (`1h30m`, `1.5s`) in nanoseconds, or of a number of days, weeks and the like (`2 days`).
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut rest = rest.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = rest[end..].trim_start();
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(rest.len());
        total += number * unit(&rest[..end])?;
        rest = rest[end..].trim_start();
    }
    let total = if negative { -total } else { total };
    #[expect(clippy::cast_possible_truncation, reason = "the bounds are checked")]
    ((i64::MIN as f64) < total && total < (i64::MAX as f64)).then_some(total as i64)
}

/// Nanoseconds of a unit.
fn unit(word: &str) -> Option<f64> {
    const SECOND: f64 = 1e9;
    Some(match word {
        "ns" | "nano" | "nanos" => 1.0,
        "us" | "µs" | "μs" | "micro" | "micros" => 1e3,
        "ms" | "milli" | "millis" => 1e6,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0 * SECOND,
        "d" | "day" | "days" => 86_400.0 * SECOND,
        "w" | "wk" | "wks" | "week" | "weeks" => 604_800.0 * SECOND,
        _ => return None,
    })
}

/// An address with the bits of its prefix, as Go's `net.ParseCIDR` reads it.
pub(super) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let plain =
        !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| plain)?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| part.len() == digits && is_hex(part))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// An absolute URI or path (`net/url.ParseRequestURI`).
pub(crate) fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return false;
    }
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    });
    let escapes = text.match_indices('%').all(|(at, _)| text.get(at + 1..at + 3).is_some_and(is_hex));
    (scheme || text.starts_with('/')) && escapes
}

fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

fn email(text: &str) -> bool {
    let address = match text.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80;
    let dotted = |text: &str| text.split('.').all(|part| !part.is_empty() && part.bytes().all(atom));
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (quoted || dotted(local)) && (dotted(domain) || (domain.starts_with('[') && domain.ends_with(']')))
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let shaped = lengths.as_slice() == [8, 4, 4, 4, 12] || lengths.as_slice() == [32];
    let variant = version.is_none_or(|version| {
        plain.chars().nth(12) == Some(version)
            && (version == '3' || plain.chars().nth(16).is_some_and(|c| "89abAB".contains(c)))
    });
    shaped && is_hex(&plain) && variant
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn isbn10(text: &str) -> bool {
    let text = digits(text);
    let value = |(index, c): (usize, char)| match c {
        'X' if index == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = text.chars().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10
            && values.iter().zip(1..).map(|(value, weight): (&u32, u32)| value * weight).sum::<u32>() % 11 == 0
    })
}

fn isbn13(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let sum: u32 = values.iter().enumerate().map(|(index, value)| value * if index % 2 == 0 { 1 } else { 3 }).sum();
        values.len() == 13 && sum.is_multiple_of(10)
    })
}

/// A number of a length that cards have, whose Luhn sum fits.
fn credit_card(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let doubled = |value: u32| if value > 4 { value * 2 - 9 } else { value * 2 };
        let sum: u32 =
            values.iter().rev().enumerate().map(|(at, value)| if at % 2 == 1 { doubled(*value) } else { *value }).sum();
        (13..=16).contains(&values.len()) && sum.is_multiple_of(10)
    })
}

fn social_security_number(text: &str) -> bool {
    let plain = digits(text);
    let marks: Vec<usize> = text.match_indices([' ', '-']).map(|(at, _)| at).collect();
    plain.len() == 9
        && is_hex(&plain)
        && plain.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(marks[..], [] | [3, 6])
}

fn rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::{duration, is_valid};

    #[test]
    fn every_format_knows_its_own() {
        let cases = [
            ("date", "2026-02-28", "2026-02-30"),
            ("date-time", "2026-01-02T03:04:05.6+01:00", "2026-01-02 03:04:05"),
            ("duration", "1h30m", "1x"),
            ("byte", "aGk=", "a"),
            ("ipv4", "192.0.2.1", "192.0.2.256"),
            ("ipv6", "2001:db8::1", "192.0.2.1"),
            ("cidr", "192.0.2.0/24", "192.0.2.0/33"),
            ("mac", "02:00:5e:10:00:01", "02:00:5e:10:00"),
            ("uri", "https://example.com/%20", "not a uri"),
            ("hostname", "a.example", "-a.example"),
            ("email", "a.b@example.com", "a..b@example.com"),
            ("uuid", "7d444840-9dc0-11d1-b245-5ffdce74fad2", "7d444840"),
            ("uuid4", "7d444840-9dc0-41d1-b245-5ffdce74fad2", "7d444840-9dc0-11d1-b245-5ffdce74fad2"),
            ("isbn", "0-306-40615-2", "0-306-40615-3"),
            ("isbn13", "978-0-306-40615-7", "978-0-306-40615-8"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-11-1111", "11-111-1111"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(1, 2, 255)", "rgb(1, 2, 256)"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f1f77"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A"),
        ];
        for (format, good, bad) in cases {
            assert!(is_valid(format, good), "{format} {good}");
            assert!(!is_valid(format, bad), "{format} {bad}");
        }
        assert!(is_valid("something-else", "anything"));
    }

    #[test]
    fn durations_are_those_of_go_and_longer_ones() {
        let cases = [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("0", Some(0)),
            ("2 days", Some(172_800_000_000_000)),
            ("", None),
            ("1", None),
            ("99999999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
