//! Rules of the house that neither the compiler nor clippy knows.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const FILE_LINES: usize = 800;
/// Longest function, in lines.
const FUNCTION_LINES: usize = 70;
/// Files of generated data or plain tables, which may be longer.
const TABLES: &[&str] = &["oci/seccomp/syscalls.rs", "oci/seccomp/default.rs"];
/// Files that others include, whose first line can be an ordinary comment only.
const INCLUDED: &[&str] = &["oci/embed/build_program.rs"];

struct Source {
    name: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        ["/tests/", "/tests.rs", "tests/"].iter().any(|part| self.name.contains(part) || self.name.starts_with(part))
    }

    /// The part before `#[cfg(test)] mod`.
    fn product(&self) -> &str {
        if self.is_test() { "" } else { self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&entry, into);
        } else if entry.is_file() {
            into.push(entry);
        }
    }
}

fn files(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let mut found: Vec<Source> = Vec::new();
    for path in files(&["src", "oci", "tests", "benches"]) {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push(Source { name, text: fs::read_to_string(&path).unwrap() });
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn files_fit_the_head() {
    let long = |source: &Source| (source.text.lines().count() > FILE_LINES).then(|| source.name.clone());
    let problems: Vec<String> =
        sources().iter().filter(|source| !TABLES.contains(&source.name.as_str())).filter_map(long).collect();
    report(&problems);
}

#[test]
fn functions_fit_the_screen() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "pub(crate) async fn ",
                "pub(super) async fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|prefix| words.starts_with(prefix));
            if !is_function || line.ends_with('}') || line.ends_with(';') {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == close).unwrap_or(0);
            if length > FUNCTION_LINES {
                problems.push(format!("{}:{} has {length} lines", source.name, start + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    // The tests of a module stand in its `tests.rs`, which needs no further word.
    let silent = |source: &Source| {
        let exempt = source.name.ends_with("/tests.rs") || INCLUDED.contains(&source.name.as_str());
        (!exempt && !source.text.starts_with("//!")).then(|| source.name.clone())
    };
    report(&sources().iter().filter_map(silent).collect::<Vec<_>>());
}

#[test]
fn nothing_is_postponed() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[", "ignore")];
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                problems.push(format!("{}:{} {}", source.name, number + 1, line.trim()));
            }
        }
    }
    report(&problems);
}

/// Borrowing a descriptor's number, for a path below `/proc/self/fd` or a netlink attribute, is not owning it.
#[test]
fn raw_descriptors_stay_in_sys() {
    let raw = |source: &&Source| {
        let mut words = source.product().split(|c: char| !c.is_alphanumeric());
        !source.name.starts_with("oci/sys/") && words.any(|word| ["RawFd", "FromRawFd", "IntoRawFd"].contains(&word))
    };
    report(&sources().iter().filter(raw).map(|source| source.name.clone()).collect::<Vec<_>>());
}

#[test]
fn the_text_of_errors_decides_nothing() {
    let marker = concat!(".to_string()", ".contains(");
    let parses = |source: &&Source| source.product().contains(marker);
    report(&sources().iter().filter(parses).map(|source| source.name.clone()).collect::<Vec<_>>());
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let mut problems = Vec::new();
    for path in files(&["src", "oci", "tests", "benches", "scripts", "testdata", ".ci"]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if homes.iter().any(|home| line.contains(home)) {
                problems.push(format!("{}:{} {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    report(&problems);
}

#[test]
fn all_test_data_is_used() {
    let mut users = String::new();
    for path in files(&["src", "oci", "tests", "benches", "scripts"]) {
        users.push_str(&fs::read_to_string(&path).unwrap_or_default());
    }
    let mut problems = Vec::new();
    for entry in fs::read_dir(root().join("testdata")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !users.contains(&format!("testdata/{name}")) {
            problems.push(format!("testdata/{name} is used by nothing"));
        }
    }
    report(&problems);
}
