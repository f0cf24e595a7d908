//! What a client asks of a log: the parameters of `GET /containerLogs/…`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::record::Record;

/// What to show of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Go on until the container ends.
    pub(crate) follow: bool,
    /// The container's last life but one.
    pub(crate) previous: bool,
    /// Put the time before each line.
    pub(super) timestamps: bool,
    /// Begin with the last so many lines.
    pub(super) tail: Option<usize>,
    /// Nothing older than this.
    pub(super) since: Option<Timestamp>,
    /// At most so many bytes.
    pub(super) limit: Option<usize>,
    /// Only `stdout` or `stderr`.
    pub(super) stream: Option<&'static str>,
}

/// A parameter that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid value {value:?} of {parameter}")]
pub(crate) struct QueryError {
    parameter: String,
    value: String,
}

impl Query {
    /// Reads the query string of a request that arrived at `now`. Unknown parameters are ignored, as upstream.
    pub(crate) fn parse(query: &str, now: Timestamp) -> Result<Self, QueryError> {
        let parameters = parameters(query);
        let text = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let refuse =
            |name: &str| QueryError { parameter: name.to_owned(), value: text(name).unwrap_or_default().to_owned() };
        let flag = |name: &str| match text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(refuse(name)),
        };
        let number = |name: &str| text(name).map(|value| value.parse::<u64>().map_err(|_| refuse(name))).transpose();
        let size =
            |name: &str| number(name).map(|value| value.map(|value| usize::try_from(value).unwrap_or(usize::MAX)));
        let since_time = text("sinceTime").map(|value| value.parse().map_err(|_| refuse("sinceTime"))).transpose()?;
        let since_seconds = number("sinceSeconds")?.map(|seconds| now.checked_sub(Duration::from_secs(seconds)));
        Ok(Self {
            follow: flag("follow")?,
            previous: flag("previous")?,
            timestamps: flag("timestamps")?,
            tail: size("tailLines")?,
            since: since_time.or(since_seconds.transpose().map_err(|_| refuse("sinceSeconds"))?),
            limit: size("limitBytes")?,
            stream: match text("stream") {
                None | Some("All") => None,
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                Some(_) => return Err(refuse("stream")),
            },
        })
    }

    /// Whether a line is wanted.
    pub(super) fn admits(&self, record: &Record<'_>) -> bool {
        let late = || match self.since {
            None => true,
            Some(since) => record.time.parse::<Timestamp>().is_ok_and(|time| time >= since),
        };
        self.stream.is_none_or(|stream| stream == record.stream) && late()
    }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    pairs(query).into_iter().collect()
}

/// The parameters of a query string in their order.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// Decodes the percent signs of a path.
pub(crate) fn decoded(path: &str) -> String {
    decode(&path.replace('+', "%2B"))
}

/// Decodes percent signs and plus signs.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-20T15:00:00Z".parse().expect("a valid time")
    }

    #[test]
    fn parameters_are_read_and_decoded() {
        let query = "follow=true&tailLines=10&sinceTime=2026-11-20T14%3A00%3A00Z&timestamps=true&limitBytes=100";
        let query = Query::parse(query, now()).expect("a valid query");
        assert_eq!((query.follow, query.previous, query.timestamps), (true, false, true));
        assert_eq!((query.tail, query.limit), (Some(10), Some(100)));
        assert_eq!(query.since, Some("2026-11-20T14:00:00Z".parse().expect("a valid time")));
    }

    #[test]
    fn seconds_count_back_from_now() {
        let query = Query::parse("sinceSeconds=3600", now()).expect("a valid query");
        assert_eq!(query.since, Some("2026-11-20T14:00:00Z".parse().expect("a valid time")));
    }

    #[test]
    fn senseless_values_are_refused() {
        for query in ["tailLines=-1", "follow=maybe", "sinceTime=yesterday", "stream=stdin"] {
            assert!(Query::parse(query, now()).is_err(), "{query} was taken");
        }
    }
}
