//! What a group has read from block devices and written to them.
//!
//! Of v2 only: on v1 containers get no group of `blkio`, which would cost each start a group more and counts no page that is
//! written back later.

use std::fs;
use std::path::Path;

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceIo {
    /// Its numbers.
    pub device: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Reads a group's `io.stat`; nothing if nobody counts.
pub(super) fn read(directory: &Path) -> Vec<DeviceIo> {
    fs::read_to_string(directory.join("io.stat")).map_or_else(|_| Vec::new(), |text| parse(&text))
}

fn parse(text: &str) -> Vec<DeviceIo> {
    let device = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let field = |name: &str| {
            rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        Some(DeviceIo {
            device: (major.parse().ok()?, minor.parse().ok()?),
            read_bytes: field("rbytes")?,
            written_bytes: field("wbytes")?,
            reads: field("rios")?,
            writes: field("wios")?,
        })
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_whatever_else_their_lines_have() {
        let text = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n8:16 wios=4 rios=3 wbytes=2 rbytes=1 cost.usage=9\n";
        let first = DeviceIo { device: (254, 0), read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 };
        let second = DeviceIo { device: (8, 16), read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(parse(text), [first, second], "a device that nothing was done with has an empty line");
        assert_eq!(parse(""), []);
    }
}
