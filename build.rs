//! Builds what the binary embeds: the per-pod program.

#![expect(clippy::disallowed_methods, reason = "a build script runs cargo")]

include!("oci/shim/embed/build_program.rs");

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

/// Puts the program where `include_bytes!` finds it.
fn embed() -> Result<(), String> {
    let variable = |name| std::env::var(name).map_err(|_| format!("{name} is not set: this is not run by cargo"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // <target directory>/<profile>/build/<package>/out: shared by all profiles.
    let target_directory = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target directory")?;
    let program = build_program(&root, target_directory, &variable("TARGET")?)?;
    let copy = |to: &Path| std::fs::copy(&program, to).map_err(|error| format!("cannot copy {program:?}: {error}"));
    copy(&out.join("coracle-shim")).map(drop)
}
