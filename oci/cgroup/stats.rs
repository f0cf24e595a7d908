//! What a group has used, and whether the kernel killed in it for want of memory.

use std::fs;
use std::path::Path;

use super::{CgroupError, Controller, DeviceIo, Group, Hierarchies, Pressures, device_io};

/// What a group has used; absent where no controller counts it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// CPU time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Of that in programs, in nanoseconds.
    pub cpu_user_nanos: Option<u64>,
    /// Of that in the kernel, in nanoseconds.
    pub cpu_system_nanos: Option<u64>,
    /// Periods in which something of a group with a limit ran.
    pub cpu_periods: Option<u64>,
    /// Of these the ones in which it was held up.
    pub cpu_throttled_periods: Option<u64>,
    /// For how long it was held up, in nanoseconds.
    pub cpu_throttled_nanos: Option<u64>,
    /// Bytes of memory, page cache included.
    pub memory_usage: Option<u64>,
    /// Bytes of memory that cannot be had back easily: usage without inactive files.
    pub memory_working_set: Option<u64>,
    /// Bytes of anonymous memory.
    pub memory_rss: Option<u64>,
    /// Bytes of files in memory.
    pub memory_cache: Option<u64>,
    /// Of these the mapped ones.
    pub memory_mapped: Option<u64>,
    /// Bytes in swap space.
    pub memory_swap: Option<u64>,
    /// Most bytes of memory that were in use at once.
    pub memory_peak: Option<u64>,
    /// Faults that were served from memory, and others.
    pub page_faults: Option<u64>,
    /// Faults that had to read.
    pub major_page_faults: Option<u64>,
    /// How many processes were killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Number of tasks.
    pub pids: Option<u64>,
    /// How many there may be; none without a limit.
    pub pids_limit: Option<u64>,
    /// Number of processes in the group itself.
    pub processes: Option<u64>,
    /// What waited, and for what.
    pub pressures: Pressures,
    /// What was read and written.
    pub io: Vec<DeviceIo>,
}

/// Nanoseconds of a tick of `cpuacct.stat`: `USER_HZ` is 100 on all architectures of Linux that run containers.
const TICK: u64 = 10_000_000;

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

    /// The limit of processor time in a period on v1, where no group may have more than the one above it; none without one,
    /// and on v2, where groups need not fit into each other.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn cpu_quota_v1(&self) -> Result<Option<i64>, CgroupError> {
        let Some((directory, false)) = self.directory_of(Controller::Cpu) else { return Ok(None) };
        let quota: Option<i64> = read(&directory.join("cpu.cfs_quota_us"))?.trim().parse().ok();
        Ok(quota.filter(|quota| *quota > 0))
    }

    /// What the group has used.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        self.host.read_cpu(&self.path, &mut stats)?;
        if let Some((directory, is_v2)) = self.directory_of(Controller::Memory) {
            read_memory(&directory, is_v2, &mut stats)?;
        }
        if let Some((directory, _)) = self.directory_of(Controller::Pids) {
            stats.pids = number(&directory.join("pids.current"))?;
            stats.pids_limit = number(&directory.join("pids.max")).ok().flatten();
        }
        stats.oom_kills = self.oom_kills().ok();
        stats.processes = self.count();
        if let Some(directory) = self.v2_directory() {
            stats.pressures = Pressures::read(&directory);
            stats.io = device_io::read(&directory);
        }
        Ok(stats)
    }

    /// The CPU time alone, in nanoseconds.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn cpu_nanos(&self) -> Result<Option<u64>, CgroupError> {
        self.host.cpu_nanos(&self.path)
    }
}

impl Hierarchies {
    /// What everything on the host has used.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let (mut stats, root) = (Stats::default(), Path::new(""));
        self.read_cpu(root, &mut stats)?;
        match self.v1_of(Controller::Memory) {
            Some(hierarchy) => read_memory(&hierarchy.mount, false, &mut stats)?,
            // The root of v2 does not count memory.
            None => of_meminfo(&read(Path::new("/proc/meminfo"))?, &mut stats),
        }
        if let Some(unified) = &self.v2 {
            stats.pressures = Pressures::read(&unified.mount);
            stats.io = device_io::read(&unified.mount);
        }
        Ok(stats)
    }

    /// CPU time of a group, the root's for an empty path.
    fn cpu_nanos(&self, path: &Path) -> Result<Option<u64>, CgroupError> {
        if let Some(hierarchy) = self.v1_of(Controller::Cpuacct) {
            return number(&hierarchy.mount.join(path).join("cpuacct.usage"));
        }
        let Some(unified) = &self.v2 else { return Ok(None) };
        // cpu.stat has the usage even where the controller is not enabled.
        let text = read(&unified.mount.join(path).join("cpu.stat"))?;
        Ok(field(&text, "usage_usec").map(|micros| micros * 1000))
    }

    fn read_cpu(&self, path: &Path, stats: &mut Stats) -> Result<(), CgroupError> {
        let Some(hierarchy) = self.v1_of(Controller::Cpuacct) else {
            let Some(unified) = &self.v2 else { return Ok(()) };
            let text = read(&unified.mount.join(path).join("cpu.stat"))?;
            let micros = |name| field(&text, name).map(|micros| micros * 1000);
            stats.cpu_nanos = micros("usage_usec");
            (stats.cpu_user_nanos, stats.cpu_system_nanos) = (micros("user_usec"), micros("system_usec"));
            (stats.cpu_periods, stats.cpu_throttled_periods) =
                (field(&text, "nr_periods"), field(&text, "nr_throttled"));
            stats.cpu_throttled_nanos = micros("throttled_usec");
            return Ok(());
        };
        let directory = hierarchy.mount.join(path);
        stats.cpu_nanos = number(&directory.join("cpuacct.usage"))?;
        let text = read(&directory.join("cpuacct.stat"))?;
        let ticks = |name| field(&text, name).map(|ticks| ticks * TICK);
        (stats.cpu_user_nanos, stats.cpu_system_nanos) = (ticks("user"), ticks("system"));
        if let Some(hierarchy) = self.v1_of(Controller::Cpu)
            && !path.as_os_str().is_empty()
        {
            let text = read(&hierarchy.mount.join(path).join("cpu.stat"))?;
            (stats.cpu_periods, stats.cpu_throttled_periods) =
                (field(&text, "nr_periods"), field(&text, "nr_throttled"));
            stats.cpu_throttled_nanos = field(&text, "throttled_time");
        }
        Ok(())
    }
}

fn read_memory(directory: &Path, is_v2: bool, stats: &mut Stats) -> Result<(), CgroupError> {
    let details = read(&directory.join("memory.stat"))?;
    let names = match is_v2 {
        true => ["inactive_file", "anon", "file", "file_mapped", "pgfault", "pgmajfault"],
        false => [
            "total_inactive_file",
            "total_rss",
            "total_cache",
            "total_mapped_file",
            "total_pgfault",
            "total_pgmajfault",
        ],
    };
    let [inactive, rss, cache, mapped, faults, major] = names.map(|name| field(&details, name));
    let (current, peak) =
        if is_v2 { ("memory.current", "memory.peak") } else { ("memory.usage_in_bytes", "memory.max_usage_in_bytes") };
    stats.memory_usage = number(&directory.join(current))?;
    stats.memory_working_set = stats.memory_usage.map(|usage| usage.saturating_sub(inactive.unwrap_or(0)));
    (stats.memory_rss, stats.memory_cache, stats.memory_mapped) = (rss, cache, mapped);
    (stats.page_faults, stats.major_page_faults) = (faults, major);
    // What is newer than the oldest kernel, or is not there without swap space, may be missing.
    stats.memory_peak = number(&directory.join(peak)).ok().flatten();
    stats.memory_swap = match is_v2 {
        true => number(&directory.join("memory.swap.current")).ok().flatten(),
        false => field(&details, "total_swap"),
    };
    Ok(())
}

/// The same for the whole host, from proc_meminfo(5).
fn of_meminfo(text: &str, stats: &mut Stats) {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let (total, free) = (bytes("MemTotal"), bytes("MemFree"));
    stats.memory_usage = total.zip(free).map(|(total, free)| total.saturating_sub(free));
    let inactive = bytes("Inactive(file)").unwrap_or(0);
    stats.memory_working_set = stats.memory_usage.map(|usage| usage.saturating_sub(inactive));
    (stats.memory_rss, stats.memory_cache, stats.memory_mapped) =
        (bytes("AnonPages"), bytes("Cached"), bytes("Mapped"));
    let (swap, swap_free) = (bytes("SwapTotal"), bytes("SwapFree"));
    stats.memory_swap = swap.zip(swap_free).map(|(total, free)| total.saturating_sub(free));
}

fn number(file: &Path) -> Result<Option<u64>, CgroupError> {
    Ok(read(file)?.trim().parse().ok())
}

fn read(file: &Path) -> Result<String, CgroupError> {
    fs::File::open(file).and_then(std::io::read_to_string).map_err(|source| CgroupError::file("read", file, source))
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

    #[test]
    fn the_whole_hosts_memory_is_that_of_meminfo() {
        let text = "MemTotal:  1000 kB\nMemFree:  300 kB\nCached: 400 kB\nInactive: 9 kB\nInactive(file): 200 kB\n";
        let mut stats = Stats::default();
        of_meminfo(text, &mut stats);
        let used = (stats.memory_usage, stats.memory_working_set, stats.memory_cache);
        assert_eq!(used, (Some(700 << 10), Some(500 << 10), Some(400 << 10)));
    }

    #[test]
    fn this_hosts_figures_are_there_and_grow() {
        let host = Hierarchies::detect().unwrap();
        let (before, after) = (host.stats().unwrap(), host.stats().unwrap());
        assert!(before.cpu_nanos > Some(0) && after.cpu_nanos >= before.cpu_nanos, "{before:?} {after:?}");
        assert!(before.memory_working_set > Some(0) && before.memory_working_set <= before.memory_usage, "{before:?}");
    }
}
