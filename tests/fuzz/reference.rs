//! Names of images against the grammar of the field, written down a second time as regular expressions.
//!
//! The grammar is that of `distribution/reference` (the comment in `reference.go`) and, for repositories and tags, of
//! the distribution specification ("Pulling manifests").

use std::sync::LazyLock;

use oci::image::{Digest, Reference};
use regex_lite::Regex;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "docker.io",
    "index.docker.io",
    "localhost",
    "library/",
    "[::1]",
    ":5000",
    ":latest",
    "@sha256:",
    "@sha512:",
    "__",
    "--",
    "..",
    "_",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

const NAME: &str = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*";
const TAG: &str = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";
const DIGEST: &str = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
const HOST: &str = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";

static FULL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"\A({HOST})/({NAME})(?::({TAG}))?(?:@({DIGEST}))?\z")).expect("the grammar is well formed")
});
static SHORT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"\A({NAME})(?::({TAG}))?(?:@({DIGEST}))?\z")).expect("the grammar is well formed")
});

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let bound = Bound { base: 8 << 10, held: 8, ever: 32 };
    match bounded(text.len(), bound, || text.parse::<Reference>()) {
        Ok(reference) => accepted(text, &reference),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!must_be_accepted(text), "{text:?} is refused ({error}), and the grammar has it");
        }
    }
}

fn accepted(text: &str, reference: &Reference) {
    let shown = reference.to_string();
    assert_eq!(shown.parse::<Reference>().as_ref(), Ok(reference), "{text:?} is shown as {shown:?}, which is another");
    let Some(parts) = FULL.captures(&shown) else { panic!("{text:?} is shown as {shown:?}, which the grammar lacks") };
    let part = |index| parts.get(index).map(|part| part.as_str());
    assert_eq!(part(1), Some(reference.domain()));
    assert_eq!(part(2), Some(reference.path()));
    assert_eq!(part(3), reference.tag());
    assert_eq!(part(4).map(str::to_owned), reference.digest().map(Digest::to_string));
    assert!(reference.path().len() <= 255, "{shown:?} is too long");
    assert!(reference.tag().is_some() || reference.digest().is_some(), "{shown:?} selects nothing");
    assert!(SHORT.is_match(text) || FULL.is_match(text), "{text:?} is accepted, and the grammar lacks it");
    if let Some(tagged) = reference.tagged() {
        assert_eq!(tagged.parse::<Reference>().as_ref(), Ok(reference));
    }
    let digest = Digest::of(data_of(reference));
    let pinned: Reference = reference.with_digest(&digest).parse().expect("a repository with a digest is a name");
    assert_eq!((pinned.repository(), pinned.selector()), (reference.repository(), digest.to_string()));
    assert!(!reference.api_host().is_empty() && !reference.api_host().contains('/'));
}

fn data_of(reference: &Reference) -> &[u8] {
    reference.path().as_bytes()
}

/// Whether the text names its registry in full and everything in it follows the grammar.
fn must_be_accepted(text: &str) -> bool {
    let Some(parts) = FULL.captures(text) else { return false };
    let host = parts.get(1).map_or("", |part| part.as_str());
    let path = parts.get(2).map_or("", |part| part.as_str());
    let explicit = host.contains(['.', ':']) || host == "localhost";
    let digest = parts.get(4).is_none_or(|digest| digest.as_str().parse::<Digest>().is_ok());
    // `library/` is put before short names of Docker Hub.
    explicit && digest && path.len() + "library/".len() <= 255
}
