//! What a group has used, and whether the kernel killed in it for want of memory.

use std::fs;
use std::io;
use std::path::Path;

use super::{CgroupError, Controller, Group};

/// What a group has used; absent where no controller counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// CPU time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Bytes of memory, page cache included.
    pub memory_usage: Option<u64>,
    /// Bytes of memory that cannot be had back easily: usage without inactive files.
    pub memory_working_set: Option<u64>,
    /// Bytes of anonymous memory.
    pub memory_rss: Option<u64>,
    /// Number of tasks.
    pub pids: Option<u64>,
}

impl Group {
    /// How many processes of the group the kernel has killed for want of memory, groups below included on v2.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some((directory, is_v2)) = self.directory_of(Controller::Memory) else { return Ok(0) };
        let file = directory.join(if is_v2 { "memory.events" } else { "memory.oom_control" });
        Ok(field(&read(&file)?, "oom_kill").unwrap_or(0))
    }

    /// What the group has used.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        self.read_cpu(&mut stats)?;
        self.read_memory(&mut stats)?;
        if let Some((directory, _)) = self.directory_of(Controller::Pids) {
            stats.pids = read(&directory.join("pids.current"))?.trim().parse().ok();
        }
        Ok(stats)
    }

    fn read_cpu(&self, stats: &mut Stats) -> Result<(), CgroupError> {
        stats.cpu_nanos = match (self.directory_of(Controller::Cpuacct), self.v2_directory()) {
            (Some((directory, false)), _) => read(&directory.join("cpuacct.usage"))?.trim().parse().ok(),
            // cpu.stat has the usage even where the controller is not enabled.
            (_, Some(directory)) => {
                field(&read(&directory.join("cpu.stat"))?, "usage_usec").map(|micros| micros * 1000)
            }
            (_, None) => None,
        };
        Ok(())
    }

    fn read_memory(&self, stats: &mut Stats) -> Result<(), CgroupError> {
        let Some((directory, is_v2)) = self.directory_of(Controller::Memory) else { return Ok(()) };
        let (current, inactive, rss) = if is_v2 {
            ("memory.current", "inactive_file", "anon")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file", "total_rss")
        };
        let usage: Option<u64> = read(&directory.join(current))?.trim().parse().ok();
        let details = read(&directory.join("memory.stat"))?;
        stats.memory_usage = usage;
        stats.memory_working_set = usage.map(|usage| usage.saturating_sub(field(&details, inactive).unwrap_or(0)));
        stats.memory_rss = field(&details, rss);
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, CgroupError> {
    fs::File::open(file).and_then(io::read_to_string).map_err(|source| CgroupError::file("read", file, source))
}

/// A value of a file of `name value` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom_"), None);
    }
}
