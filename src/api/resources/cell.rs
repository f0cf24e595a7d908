//! Cells that several kinds share, as `pkg/printers/internalversion/printers.go` and
//! `k8s.io/apimachinery/pkg/util/duration` write them.

use jiff::Timestamp;
use serde_json::Value;

use super::Column;
use super::path::text;

/// The first column of most kinds.
pub(super) const NAME: Column = column("Name", "string", "name", "Name must be unique within a namespace.", 0);
/// The last column of most kinds.
pub(super) const AGE: Column = column("Age", "string", "", "How long ago the object was created.", 0);

/// A column.
pub(super) const fn column(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
) -> Column {
    Column { name, kind, format, description, priority }
}

/// `metadata.name`.
pub(super) fn name(object: &Value) -> Value {
    text(&object["metadata"], "name").into()
}

/// A text, or something in its place if it is empty.
pub(super) fn or(text: &str, instead: &str) -> Value {
    if text.is_empty() { instead.into() } else { text.into() }
}

/// Time since creation.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(text(&object["metadata"], "creationTimestamp"), now).into()
}

/// Time since an RFC 3339 time stamp, `<unknown>` if there is none.
pub(super) fn since(stamp: &str, now: Timestamp) -> String {
    stamp.parse::<Timestamp>().map_or_else(|_| "<unknown>".to_owned(), |then| human(now.duration_since(then).as_secs()))
}

/// A duration of whole seconds in at most two units, more precise the shorter it is (`duration.HumanDuration`).
pub(super) fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let pair = |big: i64, big_unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / MINUTE, seconds / HOUR, seconds / DAY);
    match seconds {
        // Clocks of two machines differ a little; beyond that the stamp is wrong.
        ..-1 => "<invalid>".to_owned(),
        -1 | 0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % MINUTE, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(days, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}
