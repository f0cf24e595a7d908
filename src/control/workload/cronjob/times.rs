//! When a schedule is due.
//!
//! After `github.com/robfig/cron/v3`: by the clock on the wall of the schedule's zone. A time that the clock skips does not
//! come that day; one that it shows twice comes once.

use api::cron::{Fields, Schedule};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// How many days ahead a date is looked for: the 29th of February may be eight years away.
const DAYS: i32 = 366 * 9;

/// The first time after another one; none for a date that does not exist.
pub(super) fn next(schedule: &Schedule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(seconds) => {
            let whole = Timestamp::from_second(after.as_second()).ok()?;
            whole.checked_add(SignedDuration::from_secs(i64::try_from(*seconds).ok()?)).ok()
        }
        Schedule::At(fields) => {
            let mut day = after.to_zoned(zone.clone()).date();
            for _ in 0..DAYS {
                if is_day(fields, day)
                    && let Some(found) = on_day(fields, day, after, zone)
                {
                    return Some(found);
                }
                day = day.checked_add(1.day()).ok()?;
            }
            None
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

fn is_day(fields: &Fields, day: Date) -> bool {
    let (date, weekday) = (has(fields.days, day.day()), has(fields.weekdays, day.weekday().to_sunday_zero_offset()));
    // If both are restricted, either will do (crontab(5)).
    let is_meant = if fields.any_day || fields.any_weekday { date && weekday } else { date || weekday };
    has(fields.months, day.month()) && is_meant
}

fn on_day(fields: &Fields, day: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    for hour in (0..24).filter(|hour| has(fields.hours, *hour)) {
        for minute in (0..60).filter(|minute| has(fields.minutes, *minute)) {
            let wall = day.to_datetime(Time::constant(hour, minute, 0, 0));
            let Ok(found) = zone.to_zoned(wall) else { continue };
            if found.datetime() == wall && found.timestamp() > after {
                return Some(found.timestamp());
            }
        }
    }
    None
}

/// The last time that is due and was not met since `since`, and whether there were too many of them to be counted.
pub(super) fn due(schedule: &Schedule, since: Timestamp, now: Timestamp, zone: &TimeZone) -> (Option<Timestamp>, bool) {
    let (mut last, mut count, mut at) = (None, 0_usize, since);
    while let Some(found) = next(schedule, at, zone).filter(|found| *found <= now) {
        (last, at, count) = (Some(found), found, count + 1);
        // From here on only the last one is of interest: go on shortly before now.
        if count > MISSED {
            let near = nearly(schedule, now, zone);
            return (near.or(last), true);
        }
    }
    (last, false)
}

/// More missed times than this are worth a warning, as upstream.
const MISSED: usize = 100;

/// The last time before another one, looked for in ever larger steps backwards.
fn nearly(schedule: &Schedule, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut back = SignedDuration::from_mins(1);
    for _ in 0..24 {
        let mut at = now.checked_sub(back).ok()?;
        let mut found = None;
        while let Some(later) = next(schedule, at, zone).filter(|later| *later <= now) {
            (found, at) = (Some(later), later);
        }
        if found.is_some() {
            return found;
        }
        back = back.checked_mul(2)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn after(schedule: &str, from: &str, zone: &TimeZone) -> String {
        next(&schedule.parse().unwrap(), at(from), zone).map_or("never".to_owned(), |found| found.to_string())
    }

    #[test]
    fn the_next_time_is_the_first_after() {
        let utc = TimeZone::UTC;
        let cases = [
            ("* * * * *", "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z"),
            ("*/15 * * * *", "2026-01-02T03:45:00Z", "2026-01-02T04:00:00Z"),
            ("30 4 1 * *", "2026-01-02T03:04:05Z", "2026-02-01T04:30:00Z"),
            ("0 0 13 * 5", "2026-01-02T03:04:05Z", "2026-01-09T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-02T03:04:05Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-02T03:04:05Z", "never"),
            ("@every 90s", "2026-01-02T03:04:05.5Z", "2026-01-02T03:05:35Z"),
        ];
        for (schedule, from, expected) in cases {
            assert_eq!(after(schedule, from, &utc), expected, "{schedule}");
        }
    }

    #[test]
    fn the_clock_on_the_wall_counts() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(after("0 8 * * *", "2026-01-02T03:04:05Z", &zone), "2026-01-02T07:00:00Z");
        assert_eq!(after("0 8 * * *", "2026-07-02T03:04:05Z", &zone), "2026-07-02T06:00:00Z");
        // 02:30 does not come on the 29th of March, and comes once on the 25th of October.
        assert_eq!(after("30 2 * * *", "2026-03-28T12:00:00Z", &zone), "2026-03-30T00:30:00Z");
        assert_eq!(after("30 2 * * *", "2026-10-25T00:30:00Z", &zone), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn only_the_last_of_the_missed_times_counts() {
        let (every, now) = ("*/10 * * * *".parse().unwrap(), at("2026-01-02T03:04:05Z"));
        let since = |text: &str| due(&every, at(text), now, &TimeZone::UTC);
        assert_eq!(since("2026-01-02T03:00:00Z"), (None, false));
        assert_eq!(since("2026-01-02T02:30:00Z"), (Some(at("2026-01-02T03:00:00Z")), false));
        assert_eq!(since("2025-01-02T02:30:00Z"), (Some(at("2026-01-02T03:00:00Z")), true));
    }
}
