//! Coracle: a whole Kubernetes node in one small binary.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
