//! Layers: an archive is unpacked into its directory and nowhere else, the same however it arrives.
//!
//! The input is an archive. It is unpacked as it is and once more with the sums of its headers put right, without which
//! hardly a mutation would get past the first header.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use oci::image::{UnpackError, fuzz};

use crate::confined::confined;
use crate::listing::{listing, time};
use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "../",
    "/outside/witness",
    "../../outside",
    ".wh.",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    "ustar\0",
    "ustar  \0",
    "GNU.sparse.major",
    "SCHILY.xattr.",
    "trusted.overlay.redirect",
    "security.capability",
    "user.x",
    " path=",
    " linkpath=",
    " size=",
    " mtime=",
    "-1.5",
    "a/b",
    "././@LongLink",
    "0000644\0",
    "/proc/self/cwd",
    "/proc/1/root",
];

const BLOCK: usize = 512;
/// Extension headers of one entry are held at once, each a megabyte at most, some of it twice.
const BOUND: Bound = Bound { base: 8 << 20, held: 16, ever: 1024 };
/// Sizes of the pieces in which the same archive arrives again.
const PIECES: [usize; 2] = [509, 64 << 10];

pub(crate) fn check(data: &[u8]) {
    let data = data.to_vec();
    confined(move || {
        unpack(&data);
        let repaired = repair(&data);
        if repaired != data {
            unpack(&repaired);
        }
    });
}

/// In the world of [`confined`]: `/outside` and everything else must not change, `/a` and `/b` hold a layer each.
fn unpack(archive: &[u8]) {
    let layers = [Path::new("/a/layer"), Path::new("/b/layer")];
    fs::create_dir_all("/outside/deep").expect("the file system has room for a directory");
    fs::write("/outside/witness", "as it was").expect("the file system has room for a file");
    for layer in layers {
        fs::create_dir_all(layer).expect("the file system has room for a directory");
    }
    let around = || listing(Path::new("/"), &[Path::new("/proc"), layers[0], layers[1]], None);
    let before = around();
    let now = time(&fs::metadata("/outside/witness").expect("it has just been written"));
    let whole = bounded(archive.len(), BOUND, || fuzz::unpack(&mut &archive[..], layers[0]));
    let piece = PIECES[archive.len() % PIECES.len()];
    let pieces = fuzz::unpack(&mut BufReader::with_capacity(piece, archive), layers[1]);
    assert_eq!(before, around(), "something outside of the layers has changed");
    assert_eq!(shown(&whole), shown(&pieces), "the pieces in which an archive arrives matter");
    let [whole_layer, pieces_layer] = layers.map(|layer| listing(layer, &[], Some(now)));
    assert_eq!(whole_layer, pieces_layer, "the pieces in which an archive arrives matter");
    if let Ok(written) = whole {
        assert!(written <= archive.len() as u64, "{written} bytes came out of {}", archive.len());
    }
    for folder in ["/a", "/b"] {
        fs::remove_dir_all(folder).expect("a layer can be removed, whatever is in it");
    }
}

/// A result with all its reasons.
fn shown(result: &Result<u64, UnpackError>) -> String {
    let error = match result {
        Ok(written) => return written.to_string(),
        Err(error) => error,
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    assert!(!text.is_empty());
    text
}

/// The archive with a right sum in every block that stands where a header does.
fn repair(archive: &[u8]) -> Vec<u8> {
    let mut repaired = archive.to_vec();
    let mut start = 0;
    while let Some(block) = repaired.get_mut(start..start + BLOCK) {
        if block.iter().any(|&byte| byte != 0) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let blocks = match block[156] {
            b'1'..=b'6' => 0,
            _ => size(block).div_ceil(BLOCK),
        };
        start = start.saturating_add(BLOCK).saturating_add(blocks.saturating_mul(BLOCK));
    }
    repaired
}

fn size(header: &[u8]) -> usize {
    let digits = header[124..136].iter().filter(|byte| (b'0'..=b'7').contains(*byte));
    digits.fold(0_usize, |size, digit| size.saturating_mul(8).saturating_add(usize::from(digit - b'0')))
}
