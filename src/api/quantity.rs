//! Amounts with suffixes: `500m`, `1.5Gi`, `1e3`.
//!
//! Follows `k8s.io/apimachinery/pkg/api/resource`: fixed-point arithmetic with three suffix families and one canonical
//! form, so that objects do not change when they are read and written again. No floating point anywhere. Values are
//! kept in billionths, rounded up below that, and bounded by 2^63-1 as upstream bounds them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = (i64::MAX as i128) * NANOS;
/// Fraction digits that are looked at; what lies beyond only rounds up.
const FRACTION_DIGITS: usize = 18;

/// An amount. Compares by value; the suffix family only decides how it prints.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Suffix family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `m`, `k`, `M`, …
    DecimalSi,
    /// `e3`.
    DecimalExponent,
}

/// Text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not of the form at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix that is none.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Reads text such as `1.5Gi`.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError::Format);
        }
        let suffix = Suffix::parse(suffix)?;
        let magnitude = scale(whole, fraction, suffix.decimal, suffix.binary);
        let fits_binary = magnitude == 0 || magnitude >= NANOS;
        let format = match suffix.format {
            Format::BinarySi if !fits_binary => Format::DecimalSi,
            format => format,
        };
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// Reads a JSON string or number.
    pub fn from_value(value: &Value) -> Result<Self, ParseQuantityError> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(ParseQuantityError::Format),
        }
    }

    /// A whole number, printed with decimal suffixes.
    pub fn from_whole(amount: i64) -> Self {
        Self { nanos: i128::from(amount) * NANOS, format: Format::DecimalSi }
    }

    /// Thousandths, printed with decimal suffixes: what CPU is counted in.
    pub fn from_milli(amount: i64) -> Self {
        Self { nanos: i128::from(amount) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(amount: i64) -> Self {
        Self { nanos: i128::from(amount) * NANOS, format: Format::BinarySi }
    }

    /// The whole number, fractions rounded up: bytes of memory.
    pub fn value(self) -> i64 {
        self.scaled(NANOS)
    }

    /// Thousandths, smaller fractions rounded up: CPU.
    pub fn milli_value(self) -> i64 {
        self.scaled(NANOS / 1000)
    }

    fn scaled(self, unit: i128) -> i64 {
        let quotient = round_up(self.nanos.unsigned_abs(), unit.unsigned_abs());
        let magnitude = i64::try_from(quotient).unwrap_or(i64::MAX);
        if self.nanos < 0 { -magnitude } else { magnitude }
    }

    /// Sum, bounded; prints in the family of `self` unless that is zero, as upstream.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX_NANOS, MAX_NANOS), format }
    }

    /// Difference, bounded; prints in the family of `self` unless that is zero, as upstream.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos, format: other.format })
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it has no fraction.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The suffix family it was written in.
    pub fn format(self) -> Format {
        self.format
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The canonical form: no fraction digits, the largest suffix that allows that.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            return display_binary(self.nanos / NANOS, f);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent);
        match suffix {
            _ if exponent == 0 => write!(f, "{number}"),
            Some((suffix, _)) if self.format != Format::DecimalExponent => write!(f, "{number}{suffix}"),
            _ => write!(f, "{number}e{exponent}"),
        }
    }
}

fn display_binary(mut number: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut suffix = "";
    for (larger, _) in BINARY {
        if number % 1024 != 0 {
            break;
        }
        number /= 1024;
        suffix = larger;
    }
    write!(f, "{number}{suffix}")
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

struct Suffix {
    decimal: i32,
    binary: u32,
    format: Format,
}

impl Suffix {
    fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        if let Some((_, decimal)) = DECIMAL.iter().find(|(name, _)| *name == text) {
            return Ok(Self { decimal: *decimal, binary: 0, format: Format::DecimalSi });
        }
        if let Some((_, binary)) = BINARY.iter().find(|(name, _)| *name == text) {
            return Ok(Self { decimal: 0, binary: *binary, format: Format::BinarySi });
        }
        let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
        if !text.chars().all(known) {
            return Err(ParseQuantityError::Format);
        }
        let exponent = text.strip_prefix(['e', 'E']).ok_or(ParseQuantityError::Suffix)?;
        let decimal = exponent.parse::<i32>().map_err(|_| ParseQuantityError::Suffix)?;
        Ok(Self { decimal, binary: 0, format: Format::DecimalExponent })
    }
}

/// Billionths of `whole.fraction × 10^decimal × 2^binary`, rounded up and bounded.
fn scale(whole: &str, fraction: &str, decimal: i32, binary: u32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return 0;
    }
    // Where the decimal point stands, counted from the first significant digit.
    let leading_zeros = i64::try_from(digits.len() - significant.len()).unwrap_or(i64::MAX);
    let whole_len = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let point = whole_len.saturating_sub(leading_zeros).saturating_add(i64::from(decimal));
    if point > 20 {
        return MAX_NANOS;
    }
    let (before, zeros, after) = match usize::try_from(point) {
        Ok(point) if point < significant.len() => (&significant[..point], 0, &significant[point..]),
        Ok(_) => (significant, 0, ""),
        Err(_) => ("", usize::try_from(point.unsigned_abs()).unwrap_or(usize::MAX), significant),
    };
    let padding = usize::try_from(point).unwrap_or(0).saturating_sub(significant.len());
    let integer = digits_value(before.bytes().chain(std::iter::repeat_n(b'0', padding)));
    let kept = FRACTION_DIGITS.saturating_sub(zeros).min(after.len());
    let pad = FRACTION_DIGITS - zeros.min(FRACTION_DIGITS) - kept;
    let part = digits_value(after[..kept].bytes().chain(std::iter::repeat_n(b'0', pad)));
    let sticky = u128::from(after[kept..].bytes().any(|b| b != b'0'));
    let unit = 1_u128 << binary;
    let integer = integer * unit;
    if integer > MAX_NANOS.unsigned_abs() {
        return MAX_NANOS;
    }
    let fractional = round_up(part * unit + sticky, NANOS.unsigned_abs());
    let nanos = integer.saturating_mul(NANOS.unsigned_abs()).saturating_add(fractional);
    i128::try_from(nanos).unwrap_or(MAX_NANOS).min(MAX_NANOS)
}

fn digits_value(digits: impl Iterator<Item = u8>) -> u128 {
    digits.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'))
}

fn round_up(number: u128, unit: u128) -> u128 {
    number.div_ceil(unit)
}

#[cfg(test)]
mod tests;
