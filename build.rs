//! Builds what the binary embeds: the per-pod program and the runtime for OCI bundles.

#![expect(clippy::disallowed_methods, reason = "a build script runs cargo")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

include!("oci/embed/build_program.rs");

fn main() {
    for path in ["build.rs", "oci", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        // Placed once and for all, as the shipped binary: 60 000 relocations would be a third of the time that a command
        // of a moment takes, and with the pages that they dirty a quarter of its memory.
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    if let Err(error) = embed() {
        for line in error.lines() {
            println!("cargo::error={line}");
        }
    }
}

/// Puts the programs where `include_bytes!` finds them, and tells the digest of the runtime.
fn embed() -> Result<(), String> {
    let variable = |name| std::env::var(name).map_err(|_| format!("{name} is not set: this is not run by cargo"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // <target directory>/<profile>/build/<package>/out: shared by all profiles.
    let target_directory = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target directory")?;
    let optimized = variable("PROFILE")? == "release";
    let build = |package| -> Result<Vec<u8>, String> {
        let program = build_program(package, optimized, &root, target_directory, &variable("TARGET")?)?;
        std::fs::read(&program).map_err(|error| format!("cannot read {program:?}: {error}"))
    };
    let write = |name, content: &[u8]| {
        std::fs::write(out.join(name), content).map_err(|error| format!("cannot write {name}: {error}"))
    };
    write("coracle-shim", &build("coracle-shim")?)?;
    let runtime = build("coracle-oci")?;
    let digest: String = Sha256::digest(&runtime).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=CORACLE_OCI_DIGEST={digest}");
    // It is unpacked once for many starts, and would be a seventh of the whole.
    write("coracle-oci.gz", &compress(&runtime).map_err(|error| format!("cannot compress: {error}"))?)
}

fn compress(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}
