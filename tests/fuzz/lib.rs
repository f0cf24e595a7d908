//! Fuzz targets: what every parser of outside input keeps true, whatever the bytes are.
//!
//! A target is a function of bytes that panics when a property does not hold. `tests/replay.rs` runs all of them over
//! their corpora in `testdata/fuzz` and over a short deterministic campaign of mutations, in every `cargo test`;
//! `scripts/fuzz` runs them under libFuzzer. What a campaign finds is minimized and stays in the corpus as a test.
//! Besides what a parser means, each target bounds the memory that it takes by the length of its input
//! ([`memory::bounded`]), which also makes quadratic work show.

mod api_body;
mod api_managed;
mod api_patch;
mod api_protobuf;
mod api_rules;
mod api_text;
mod confined;
mod dns_answer;
mod dns_question;
mod image_documents;
mod layer_tar;
mod listing;
mod memory;
pub mod mutate;
mod oci_config;
mod reference;
mod session_messages;
mod session_spdy;
mod shim_protocol;

/// One parser and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Names its corpus, `testdata/fuzz/<name>`.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// What the parser knows, for mutations.
    pub words: &'static [&'static str],
    /// How many mutations are tried for one case of a property test elsewhere; by its speed.
    pub weight: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "api_body", run: api_body::check, words: api_body::WORDS, weight: 10 },
    Target { name: "api_managed", run: api_managed::check, words: api_managed::WORDS, weight: 10 },
    Target { name: "api_patch", run: api_patch::check, words: api_patch::WORDS, weight: 10 },
    Target { name: "api_protobuf", run: api_protobuf::check, words: api_protobuf::WORDS, weight: 20 },
    Target { name: "api_rules", run: api_rules::check, words: api_rules::WORDS, weight: 5 },
    Target { name: "api_text", run: api_text::check, words: api_text::WORDS, weight: 50 },
    Target { name: "dns_answer", run: dns_answer::check, words: dns_answer::WORDS, weight: 20 },
    Target { name: "dns_question", run: dns_question::check, words: dns_question::WORDS, weight: 20 },
    Target { name: "image_documents", run: image_documents::check, words: image_documents::WORDS, weight: 20 },
    Target { name: "layer_tar", run: layer_tar::check, words: layer_tar::WORDS, weight: 4 },
    Target { name: "oci_config", run: oci_config::check, words: oci_config::WORDS, weight: 5 },
    Target { name: "reference", run: reference::check, words: reference::WORDS, weight: 50 },
    Target { name: "session_messages", run: session_messages::check, words: session_messages::WORDS, weight: 50 },
    Target { name: "session_spdy", run: session_spdy::check, words: session_spdy::WORDS, weight: 10 },
    Target { name: "shim_protocol", run: shim_protocol::check, words: shim_protocol::WORDS, weight: 20 },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
