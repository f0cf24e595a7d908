//! Moments and spans of time, as Go reads and writes them.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Zoned, civil::Weekday};

/// RFC 3339, or a day at its start.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    match text.parse() {
        Ok(stamp) => Some(stamp),
        Err(_) => text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()),
    }
}

/// `1h30m`, `1.5s` in nanoseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    crate::resources::custom::duration(text)
}

/// A moment as a text.
pub(super) fn shown(stamp: Timestamp) -> String {
    stamp.to_string()
}

/// A span as `time.Duration.String` writes it for whole seconds.
pub(super) fn seconds(nanos: i64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).unsigned_abs());
    if rest == 0 {
        return format!("{whole}s");
    }
    let sign = if nanos < 0 && whole == 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// A part of a moment, by the name of its method; `zone` is UTC or an offset such as `+02:00`.
pub(super) fn part(stamp: Timestamp, name: &str, zone: Option<&str>) -> Result<i64, String> {
    let zoned = in_zone(stamp, zone)?;
    let sunday_first = |day: Weekday| i64::from(day.to_sunday_zero_offset());
    Ok(match name {
        "getFullYear" => zoned.year().into(),
        "getMonth" => i64::from(zoned.month()) - 1,
        "getDate" => zoned.day().into(),
        "getDayOfMonth" => i64::from(zoned.day()) - 1,
        "getDayOfWeek" => sunday_first(zoned.weekday()),
        "getDayOfYear" => i64::from(zoned.day_of_year()) - 1,
        "getHours" => zoned.hour().into(),
        "getMinutes" => zoned.minute().into(),
        "getSeconds" => zoned.second().into(),
        _ => zoned.millisecond().into(),
    })
}

fn in_zone(stamp: Timestamp, zone: Option<&str>) -> Result<Zoned, String> {
    let Some(zone) = zone.filter(|zone| *zone != "UTC" && !zone.is_empty()) else {
        return Ok(stamp.to_zoned(TimeZone::UTC));
    };
    let unknown = || format!("unknown time zone {zone}");
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(unknown)?;
    let (hours, minutes): (i32, i32) = (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return Err(unknown());
    }
    let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| unknown())?;
    Ok(stamp.to_zoned(TimeZone::fixed(offset)))
}
