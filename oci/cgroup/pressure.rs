//! How much work waits for want of something: pressure stall information (`Documentation/accounting/psi.rst`).

use std::fs;
use std::path::Path;

/// Of processors, memory and disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressures {
    /// Waiting for a processor.
    pub cpu: Option<Pressure>,
    /// Waiting for memory to be had back.
    pub memory: Option<Pressure>,
    /// Waiting for disks.
    pub io: Option<Pressure>,
}

/// Of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stalls,
    /// All tasks that could have run waited.
    pub full: Stalls,
}

/// How long that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stalls {
    /// Altogether, in microseconds.
    pub micros: u64,
    /// Hundredths of a percent of the time, over the last 10, 60 and 300 seconds.
    pub averages: [u32; 3],
}

impl Pressures {
    /// Reads the files of a group; what the kernel does not count is none.
    pub(super) fn read(directory: &Path) -> Self {
        let of = |file: &str| parse(&fs::read_to_string(directory.join(file)).ok()?);
        Self { cpu: of("cpu.pressure"), memory: of("memory.pressure"), io: of("io.pressure") }
    }
}

fn parse(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| stalls(line.strip_prefix(name)?));
    // Processors have had no second line always.
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn stalls(line: &str) -> Option<Stalls> {
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let average = |name| {
        let (whole, part) = field(name)?.split_once('.')?;
        whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)
    };
    let averages = [average("avg10")?, average("avg60")?, average("avg300")?];
    Some(Stalls { micros: field("total")?.parse().ok()?, averages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_the_second_may_be_absent() {
        let some = "some avg10=87.35 avg60=0.05 avg300=100.00 total=35612708927\n";
        let stalls = Stalls { micros: 35_612_708_927, averages: [8735, 5, 10_000] };
        assert_eq!(parse(some), Some(Pressure { some: stalls, full: Stalls::default() }));
        let full = "full avg10=0.00 avg60=1.10 avg300=0.00 total=7\n";
        let less = Stalls { micros: 7, averages: [0, 110, 0] };
        assert_eq!(parse(&format!("{some}{full}")), Some(Pressure { some: stalls, full: less }));
        for broken in ["", "some", "some avg10=1 avg60=1 avg300=1 total=1", "full avg10=0.00 total=7"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
