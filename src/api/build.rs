//! Packs the descriptions of the built-in types, which only `kubectl explain` reads: a quarter of their size stays.

use std::io::Write as _;
use std::path::PathBuf;
use std::{env, error, fs};

use flate2::Compression;
use flate2::write::ZlibEncoder;

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=schema/descriptions.txt");
    let text = fs::read_to_string("schema/descriptions.txt")?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in lines {
        writeln!(encoder, "{line}")?;
    }
    let target = PathBuf::from(env::var("OUT_DIR")?).join("descriptions.zz");
    fs::write(target, encoder.finish()?)?;
    Ok(())
}
