//! Coracle: a whole Kubernetes node in one small binary.

fn main() {}
