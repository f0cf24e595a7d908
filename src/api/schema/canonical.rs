//! The one form in which upstream writes a scalar: times, base64, quantities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::quantity::Quantity;

/// RFC 3339 in UTC, whole seconds, as `metav1.Time`.
pub(crate) fn time(stamp: Timestamp) -> String {
    stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in UTC with six digits, as `metav1.MicroTime`.
pub(crate) fn micro_time(stamp: Timestamp) -> String {
    stamp.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads an RFC 3339 time; the error is Go's sentence.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006-01-02\"")
    })
}

/// Base64 of the standard alphabet; line breaks are ignored, as Go does.
pub(super) fn base64(text: &str) -> Result<String, String> {
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&plain) {
        Ok(_) => Ok(plain),
        Err(base64::DecodeError::InvalidByte(at, _)) => Err(format!("illegal base64 data at input byte {at}")),
        Err(_) => Err(format!("illegal base64 data at input byte {}", plain.len().saturating_sub(1))),
    }
}

/// The canonical form of a quantity.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    // Go hands over the JSON text trimmed of white space.
    Quantity::parse(text.trim()).map(|quantity| quantity.to_string()).map_err(|error| error.to_string())
}
