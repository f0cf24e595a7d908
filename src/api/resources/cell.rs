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

/// The first elements of a list, and how many more there are.
pub(super) fn first_of(list: &[String], most: usize) -> String {
    let shown = list.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(",");
    match list.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
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

#[cfg(test)]
mod tests {
    use super::{human, since};

    #[test]
    fn durations_get_coarser_as_they_grow() {
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn an_absent_time_is_unknown() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(since("", now), "<unknown>");
        assert_eq!(since("2026-01-02T03:04:05Z", now), "0s");
    }
}
