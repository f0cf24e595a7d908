//! Doors for the fuzz targets in tests/fuzz; never in what is shipped.

use hickory_proto::rr::Name;
use tokio::time::Instant;

use crate::cache::{Cache, Key};
use crate::message::{self, Question};
use crate::server::passed;

/// What the bytes of somebody else's server become on their way to who asked, straight and out of the cache.
pub fn relayed(question: &Question, bytes: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let mut message = message::parse(bytes)?;
    message.edns = None;
    let name: Name = question.query.name().to_lowercase();
    let key = Key { name, kind: question.query.query_type(), flags: question.flags };
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.put(key.clone(), &message, now);
    let kept = cache.get(&key, now).map(|message| passed(question, None, message));
    Some((passed(question, None, message), kept))
}
