//! Bodies of requests in protobuf: what comes out is what the type's JSON would have been.

use api::{proto, schema};

use crate::api_body::stored;
use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "k8s\0",
    "\n\u{9}\n\u{2}v1\u{12}\u{3}Pod",
    "\u{12}",
    "\n",
    "\u{7f}",
    "\u{1}\0",
    "{\"f:metadata\":{}}",
    "application/json",
    "100m",
];

/// An empty message of two bytes is an element of a list in memory.
const BOUND: Bound = Bound { base: 64 << 10, held: 512, ever: 2048 };

pub(crate) fn check(data: &[u8]) {
    let mut value = match bounded(data.len(), BOUND, || proto::decode(data)) {
        Ok(value) => value,
        Err(error) => return assert!(error.code == 400 && !error.message.is_empty(), "{error:?}"),
    };
    assert_eq!(stored(&value), value, "the value is another when read again");
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let Some(ty) = schema::lookup(group, version, &kind) else { return };
    if let Ok(unknown) = schema::decode(ty, &mut value) {
        let mut again = stored(&value);
        let more = schema::decode(ty, &mut again).expect("what was decoded is of its type");
        assert_eq!((more, &again), (Vec::new(), &value), "decoding twice is another thing than once");
        drop(unknown);
    }
}
