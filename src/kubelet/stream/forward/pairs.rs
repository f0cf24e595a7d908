//! Which streams of SPDY belong together: two for each connection, one for its data and one for its errors.
//!
//! After `httpStreamHandler` of upstream's streaming server: a request's number pairs them, and clients that give none
//! open the one of errors second. Pure. Invariant: what a client can make the server keep is bounded by [`CONNECTIONS`].

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::super::spdy::frame::StreamId;

/// The most connections of a session, complete or not.
pub(in crate::stream) const CONNECTIONS: usize = 512;

/// The longest number of a request. Clients write some digits.
const LONGEST_REQUEST: usize = 64;

/// The two streams of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream) struct Pair {
    pub(in crate::stream) port: u16,
    pub(in crate::stream) data: StreamId,
    pub(in crate::stream) error: StreamId,
}

/// What a new stream means.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::stream) enum Opened {
    /// It makes no sense, or is one too many.
    Refused,
    /// Its other half has not come yet.
    Half,
    /// A connection can be made.
    Whole(Pair),
}

/// A half and until when the other one is waited for.
#[derive(Debug)]
struct Half {
    stream: StreamId,
    is_data: bool,
    until: Instant,
}

/// The halves that wait for their others.
#[derive(Debug, Default)]
pub(in crate::stream) struct Pairs {
    waiting: BTreeMap<String, Half>,
}

impl Pairs {
    /// A stream has been opened while there are so many connections.
    pub(in crate::stream) fn open(
        &mut self,
        (stream, fields): (StreamId, &[(String, String)]),
        connections: usize,
        until: Instant,
    ) -> Opened {
        let field = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let is_data = match field("streamtype") {
            Some("data") => true,
            Some("error") => false,
            _ => return Opened::Refused,
        };
        let Some(port) = field("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0) else {
            return Opened::Refused;
        };
        let request = match field("requestid").filter(|request| !request.is_empty()) {
            Some(request) if request.len() <= LONGEST_REQUEST => request.to_owned(),
            Some(_) => return Opened::Refused,
            None if is_data => stream.0.to_string(),
            None => stream.0.wrapping_sub(2).to_string(),
        };
        match self.waiting.get(&request) {
            Some(half) if half.is_data == is_data => Opened::Refused,
            Some(half) => {
                let other = half.stream;
                self.waiting.remove(&request);
                let (data, error) = if is_data { (stream, other) } else { (other, stream) };
                Opened::Whole(Pair { port, data, error })
            }
            None if connections + self.waiting.len() >= CONNECTIONS => Opened::Refused,
            None => {
                self.waiting.insert(request, Half { stream, is_data, until });
                Opened::Half
            }
        }
    }

    /// The half that is on this stream is given up.
    pub(in crate::stream) fn forget(&mut self, stream: StreamId) {
        self.waiting.retain(|_, half| half.stream != stream);
    }

    /// When [`Pairs::late`] has something to say.
    pub(in crate::stream) fn until(&self) -> Option<Instant> {
        self.waiting.values().map(|half| half.until).min()
    }

    /// Halves whose others have not come: their requests and streams, and whether that is the one of errors.
    pub(in crate::stream) fn late(&mut self, now: Instant) -> Vec<(String, StreamId, bool)> {
        let late = self.waiting.extract_if(.., |_, half| half.until <= now);
        late.map(|(request, half)| (request, half.stream, !half.is_data)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(kind: &str, port: &str, request: &str) -> Vec<(String, String)> {
        let pairs = [("streamtype", kind), ("port", port), ("requestid", request)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    fn open(pairs: &mut Pairs, stream: u32, kind: &str, port: &str, request: &str) -> Opened {
        pairs.open((StreamId(stream), &fields(kind, port, request)), 0, Instant::now())
    }

    fn whole(port: u16, data: u32, error: u32) -> Opened {
        Opened::Whole(Pair { port, data: StreamId(data), error: StreamId(error) })
    }

    #[tokio::test]
    async fn streams_of_one_request_are_a_connection_in_either_order() {
        let mut pairs = Pairs::default();
        assert_eq!(open(&mut pairs, 1, "error", "80", "0"), Opened::Half);
        assert_eq!(open(&mut pairs, 3, "data", "81", "1"), Opened::Half);
        assert_eq!(open(&mut pairs, 5, "data", "80", "0"), whole(80, 5, 1));
        assert_eq!(open(&mut pairs, 7, "error", "81", "1"), whole(81, 3, 7));
        assert_eq!(pairs.until(), None);
    }

    #[tokio::test]
    async fn old_clients_open_the_one_of_errors_right_after_the_one_of_data() {
        let mut pairs = Pairs::default();
        assert_eq!(open(&mut pairs, 1, "data", "80", ""), Opened::Half);
        assert_eq!(open(&mut pairs, 3, "error", "80", ""), whole(80, 1, 3));
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
        let mut pairs = Pairs::default();
        for (kind, port) in [("stdin", "80"), ("data", "0"), ("data", "65536"), ("data", ""), ("", "80")] {
            assert_eq!(open(&mut pairs, 1, kind, port, "0"), Opened::Refused, "{kind} {port}");
        }
        assert_eq!(open(&mut pairs, 1, "data", "80", &"9".repeat(65)), Opened::Refused);
        assert_eq!(open(&mut pairs, 1, "data", "80", "0"), Opened::Half);
        assert_eq!(open(&mut pairs, 3, "data", "80", "0"), Opened::Refused);
        pairs.forget(StreamId(1));
        assert_eq!(pairs.until(), None);
    }

    #[tokio::test]
    async fn one_connection_too_many_is_refused_before_anything_is_kept() {
        let mut pairs = Pairs::default();
        let stream = (StreamId(1), &fields("data", "80", "x")[..]);
        assert_eq!(pairs.open(stream, CONNECTIONS, Instant::now()), Opened::Refused);
        for request in 0..CONNECTIONS {
            let fields = fields("data", "80", &request.to_string());
            assert_eq!(pairs.open((StreamId(1), &fields), 0, Instant::now()), Opened::Half);
        }
        assert_eq!(pairs.open(stream, 0, Instant::now()), Opened::Refused);
        assert_eq!(pairs.late(Instant::now()).len(), CONNECTIONS);
        assert_eq!(pairs.open(stream, 0, Instant::now()), Opened::Half);
    }
}
