//! The host's clocks, and how a moment is written in a log.

use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

/// A moment that never goes back and counts while the host sleeps, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        Self(u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0))
    }

    pub(crate) fn after_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` until this one, 0 if it has passed.
    pub(crate) fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in nanoseconds since 1970.
pub(crate) fn wall_nanos() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// A moment of the UTC calendar.
struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// After Howard Hinnant's `civil_from_days`.
fn calendar(nanos: i64) -> Calendar {
    let seconds = nanos.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    Calendar {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
    }
}

/// Bytes of [`rfc3339`].
pub(crate) const RFC3339_LENGTH: usize = "1970-01-01T00:00:00.000000000Z".len();

/// The moment as `1970-01-01T00:00:00.000000000Z`.
pub(crate) fn rfc3339(nanos: i64) -> [u8; RFC3339_LENGTH] {
    let Calendar { year, month, day, hour, minute, second } = calendar(nanos);
    let mut text = *b"1970-01-01T00:00:00.000000000Z";
    let fraction = nanos.rem_euclid(1_000_000_000);
    // Years beyond 9999 do not fit and stay at the template's; no clock shows them.
    let _ = write!(&mut text[..], "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z");
    text
}

/// The moment as `19700101-000000`, as the kubelet names rotated logs.
pub(crate) fn rotation_stamp(nanos: i64) -> String {
    let Calendar { year, month, day, hour, minute, second } = calendar(nanos);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nanos: i64) -> String {
        String::from_utf8(rfc3339(nanos).to_vec()).unwrap()
    }

    #[test]
    fn moments_are_written_as_in_cri_logs() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(1_709_164_800_000_000_001), "2024-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999999Z");
        assert_eq!(text(4_102_444_800_000_000_000), "2100-01-01T00:00:00.000000000Z");
        assert_eq!(rotation_stamp(1_709_210_096_000_000_000), "20240229-123456");
    }
}
