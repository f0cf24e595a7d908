// Builds a small static program with its own profile, the per-pod program or the runtime: included by the root build
// script, which embeds both, and by tests that need one. It has a target directory of its own, because the outer cargo holds the lock of its own one, and names
// the target, because static linking must not reach procedural macros.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `package` of the workspace at `root` below `target_directory` and returns where it is: `optimized` as it is
/// shipped, else quickly.
fn build_program(
    package: &str,
    optimized: bool,
    root: &Path,
    target_directory: &Path,
    target: &str,
) -> Result<PathBuf, String> {
    let profile = if optimized { "shim" } else { "shim-dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target_directory = target_directory.join("coracle-shim");
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["build", "--quiet", "--package", package, "--profile", profile, "--target", target])
        .arg("--target-dir")
        .arg(&target_directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    // What the outer cargo says about its own build is not meant for this one.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PROFILE_")
            || matches!(
                &*name_text,
                "CARGO_ENCODED_RUSTFLAGS" | "RUSTC_WORKSPACE_WRAPPER" | "CARGO_BUILD_TARGET" | "CARGO_TARGET_DIR" | "CARGO_BUILD_RUSTFLAGS"
            )
        {
            command.env_remove(name);
        }
    }
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(target_directory.join(target).join(profile).join(package))
}
