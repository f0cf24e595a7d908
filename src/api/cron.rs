//! Schedules in the notation of cron, as CronJobs have them: five fields, or a word such as `@daily`.
//!
//! Reads what `github.com/robfig/cron/v3` reads with `ParseStandard`, whose messages users see, except for a time zone in
//! front, which CronJobs refuse before. Knows no calendar: when a schedule is due is for the controller to compute.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// When something happens. Bit `n` of a field stands for the value `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// At the points in time that all fields match.
    At(Fields),
    /// Again and again after so many seconds, as `@every 1h30m` says.
    Every(u64),
}

/// The five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0 to 6, Sunday first.
    pub weekdays: u64,
    /// Whether the days were given as `*` or `?`: then only weekdays count, otherwise either may match.
    pub any_day: bool,
    /// Whether the weekdays were given as `*` or `?`.
    pub any_weekday: bool,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError(String);

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScheduleError {}

const MINUTES: Bounds = Bounds { range: 0..=59, names: &[] };
const HOURS: Bounds = Bounds { range: 0..=23, names: &[] };
const DAYS: Bounds = Bounds { range: 1..=31, names: &[] };
const MONTHS: Bounds = Bounds {
    range: 1..=12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { range: 0..=6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// What a field may hold; names count from the lowest value.
struct Bounds {
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError("empty spec string".to_owned()));
        }
        let text = match text.split_once(' ') {
            // The zone itself is for whoever allows it to judge.
            Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
            _ => text,
        };
        if text.starts_with('@') {
            return descriptor(text);
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = parts.as_slice() else {
            let list = parts.join(" ");
            return Err(ScheduleError(format!("expected exactly 5 fields, found {}: [{list}]", parts.len())));
        };
        let is_any = |text: &str| text.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")));
        Ok(Self::At(Fields {
            minutes: field(minutes, &MINUTES)?,
            hours: field(hours, &HOURS)?,
            days: field(days, &DAYS)?,
            months: field(months, &MONTHS)?,
            weekdays: field(weekdays, &WEEKDAYS)?,
            any_day: is_any(days),
            any_weekday: is_any(weekdays),
        }))
    }
}

fn descriptor(text: &str) -> Result<Schedule, ScheduleError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let unknown = || ScheduleError(format!("unrecognized descriptor: {text}"));
            let given = text.strip_prefix("@every ").ok_or_else(unknown)?;
            let wrong = || {
                let text = format!("failed to parse duration {text}: time: invalid duration {given:?}");
                ScheduleError(text)
            };
            return duration(given).map(Schedule::Every).ok_or_else(wrong);
        }
    };
    fields.parse()
}

/// Seconds of a duration as Go writes it, at least one.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        seconds += number
            * match &tail[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &tail[unit..];
    }
    if text.is_empty() {
        return None;
    }
    Some(std::time::Duration::try_from_secs_f64(seconds).ok()?.as_secs().max(1))
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| range(part, bounds)).try_fold(0, |bits, part| Ok(bits | part?))
}

/// `number | number "-" number [ "/" number ]`, with `*` and `?` for all.
fn range(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let fail = |text: String| Err(ScheduleError(text));
    let (least, most) = (*bounds.range.start(), *bounds.range.end());
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (least, most),
        [only] => (value(only, bounds)?, value(only, bounds)?),
        [first, last] => (value(first, bounds)?, value(last, bounds)?),
        _ => return fail(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            // `n/step` means `n-max/step`.
            if ends.len() == 1 {
                end = most;
            }
            integer(step)?
        }
        _ => return fail(format!("too many slashes: {text}")),
    };
    if start < least {
        return fail(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return fail(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return fail(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let Ok(step) = usize::try_from(step) else { return fail(format!("step of range is too large: {text}")) };
    if step == 0 {
        return fail(format!("step of range should be a positive number: {text}"));
    }
    Ok((start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, ScheduleError> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(place) => Ok(bounds.range.start() + u32::try_from(place).unwrap_or(0)),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<u32, ScheduleError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(ScheduleError(format!("negative number ({number}) not allowed: {text}"))),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => Err(ScheduleError(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: impl IntoIterator<Item = u32>) -> u64 {
        values.into_iter().fold(0, |bits, value| bits | 1 << value)
    }

    fn fields(text: &str) -> Fields {
        match text.parse() {
            Ok(Schedule::At(fields)) => fields,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields_are_numbers_names_ranges_lists_and_steps() {
        let read = fields("*/15 9-17/4 1,15 jan-mar MON");
        assert_eq!(read.minutes, bits([0, 15, 30, 45]));
        assert_eq!((read.hours, read.days), (bits([9, 13, 17]), bits([1, 15])));
        assert_eq!((read.months, read.weekdays), (bits([1, 2, 3]), bits([1])));
        assert!(!read.any_day && !read.any_weekday);
        assert_eq!(fields("5/20 * ? * *").minutes, bits([5, 25, 45]));
        assert!(fields("5/20 * ? * *").any_day);
        assert_eq!(fields("@weekly"), fields("0 0 * * 0"));
        assert_eq!("@every 1h30m".parse(), Ok(Schedule::Every(5400)));
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_the_words_of_the_usual_parser() {
        let cases = [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), expected, "{text}");
        }
    }
}
