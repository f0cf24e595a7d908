//! All targets behind libFuzzer, for `scripts/fuzz`: the environment variable `FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<&fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    fuzz::target(&name).expect("FUZZ_TARGET names a folder of testdata/fuzz")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
