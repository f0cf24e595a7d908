//! Messages whose JSON is not an object: quantities, times, durations, int-or-string, embedded JSON.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::wire::{Problem, Reader};
use crate::schema;

pub(super) fn base64(bytes: &[u8]) -> Value {
    json!(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// `Quantity { string = 1 }`; the schema makes the text canonical, or refuses it.
pub(super) fn quantity(bytes: &[u8]) -> Result<Value, Problem> {
    let mut text = "0";
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            text = wire.text()?;
        }
    }
    Ok(json!(if text.is_empty() { "0" } else { text }))
}

/// `Time { seconds = 1, nanos = 2 }`; an empty message is the zero time, which JSON leaves out.
pub(super) fn time(bytes: &[u8], micro: bool) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.int64()?,
            2 => nanos = wire.int32()?,
            _ => {}
        }
    }
    let stamp = Timestamp::new(seconds, nanos).map_err(|_| Problem::Time)?;
    Ok(json!(if micro { schema::micro_time(stamp) } else { schema::time(stamp) }))
}

/// `Duration { duration = 1 }` in nanoseconds, in JSON as Go prints it.
pub(super) fn duration(bytes: &[u8]) -> Result<Value, Problem> {
    let mut nanos = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            nanos = wire.int64()?;
        }
    }
    Ok(json!(go_duration(nanos)))
}

/// `1h2m3.5s`, as Go's `time.Duration.String`.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64, digits: usize, suffix: &str| {
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, 6, "ms"),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000, 9, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `IntOrString { type = 1, intVal = 2, strVal = 3 }`.
pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Problem> {
    let (mut is_string, mut number_value, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => is_string = wire.int64()? == 1,
            2 => number_value = wire.int32()?,
            3 => text = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_string { json!(text) } else { json!(number_value) })
}

/// `RawExtension { raw = 1 }` and `FieldsV1 { Raw = 1 }`: JSON in bytes.
pub(super) fn raw(bytes: &[u8]) -> Result<Value, Problem> {
    let mut raw: &[u8] = b"";
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            raw = wire.bytes()?;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| Problem::Json)
}

#[cfg(test)]
mod tests {
    use super::go_duration;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }
}
