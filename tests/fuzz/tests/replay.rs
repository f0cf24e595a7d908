//! Every target holds for its corpus in `testdata/fuzz` and for a short campaign of mutations of it.
//!
//! The campaign is the same in every run; `PROPTEST_CASES` lengthens it as it lengthens property tests. An input that
//! fails is left in `target/fuzz` and belongs into the corpus once it is understood.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and tell which input it was")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fuzz::mutate::Mutator;
use fuzz::{TARGETS, Target, target};

/// Most files of a corpus, and most bytes in all of them.
const FILES: usize = 60;
const BYTES: usize = 200 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = root().join("testdata/fuzz").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn run(target: &Target, input: &[u8], origin: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) else { return };
    let folder = root().join("target/fuzz").join(target.name);
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("failed-{}", origin.replace('/', "-")));
    fs::write(&file, input).unwrap();
    println!("{} fails for {origin}, which is in {}", target.name, file.display());
    resume_unwind(panic);
}

fn holds(name: &str) {
    let target = target(name).unwrap();
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(target, input, file);
    }
    let cases: usize = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    let mut mutator = Mutator::new(0);
    for case in 0..cases * target.weight {
        let (file, input) = &corpus[mutator.below(corpus.len())];
        let (_, other) = &corpus[mutator.below(corpus.len())];
        let mutated = mutator.mutate(input, other, target.words);
        run(target, &mutated, &format!("mutation {case} of {file}"));
    }
}

#[test]
fn bodies_of_requests_are_the_same_when_stored_and_read_again() {
    holds("api_body");
}

#[test]
fn applied_configurations_settle() {
    holds("api_managed");
}

#[test]
fn patches_make_no_more_than_they_hold_and_copy() {
    holds("api_patch");
}

#[test]
fn protobuf_bodies_are_of_their_type() {
    holds("api_protobuf");
}

#[test]
fn selectors_and_quantities_mean_the_same_when_written_again() {
    holds("api_text");
}

#[test]
fn documents_of_images_mean_the_same_when_written_again() {
    holds("image_documents");
}

#[test]
fn layers_are_unpacked_into_their_directory_and_nowhere_else() {
    holds("layer_tar");
}

#[test]
fn configurations_become_scripts_that_fit_their_descriptors() {
    holds("oci_config");
}

#[test]
fn names_of_images_follow_the_grammar() {
    holds("reference");
}

#[test]
fn answers_of_name_servers_are_passed_on_as_they_are() {
    holds("dns_answer");
}

#[test]
fn any_bytes_get_an_answer_that_fits_or_none() {
    holds("dns_question");
}

#[test]
fn messages_of_sessions_are_what_their_channel_says() {
    holds("session_messages");
}

#[test]
fn the_cut_of_a_conversation_of_a_session_does_not_matter() {
    holds("session_spdy");
}

#[test]
fn the_cut_of_a_stream_to_the_shim_does_not_matter() {
    holds("shim_protocol");
}

#[test]
fn every_target_has_a_small_corpus_and_every_corpus_a_target() {
    let folders = fs::read_dir(root().join("testdata/fuzz")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect::<Vec<_>>());
    for target in TARGETS {
        let corpus = corpus(target.name);
        let bytes: usize = corpus.iter().map(|(_, input)| input.len()).sum();
        let size = format!("{}: {} files, {bytes} bytes", target.name, corpus.len());
        assert!((5..=FILES).contains(&corpus.len()) && bytes <= BYTES, "{size}");
    }
}
