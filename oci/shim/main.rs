//! The per-pod program.

fn main() {}
