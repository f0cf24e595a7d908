//! Limits in the units of the OCI runtime specification, and what they become in each world's files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, Controller, Group, Warning};

/// Limits of one group. What is absent stays as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Relative weight of CPU time, 2 to 262144; 1024 is the kernel's default.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period; not positive for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    pub cpu_period: Option<u64>,
    /// Bytes of memory; negative for no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; negative for no limit.
    pub memory_and_swap: Option<i64>,
    /// Number of tasks; not positive for no limit.
    pub pids: Option<i64>,
    /// Microseconds of CPU time that may be saved up for a later period.
    pub cpu_burst: Option<u64>,
    /// Whether it gets CPU time only that nobody else wants: 1 for yes.
    pub cpu_idle: Option<i64>,
    /// Bytes of memory that it is brought back to when memory is short.
    pub memory_reservation: Option<i64>,
    /// How readily its memory is swapped out, 0 to 100. v1 only.
    pub swappiness: Option<u64>,
    /// Whether its processes wait for memory instead of being killed. v1 only.
    pub no_oom_killer: bool,
    /// What counts as memory is not swapped out. On v1 this is said of a memory limit only.
    pub no_swap: bool,
    /// Whether a want of memory ends all processes together, instead of one that the others may not do without. v2 only;
    /// what the kubelet asks for unless `singleProcessOOMKill` is set (pkg/kubelet/kuberuntime,
    /// `generateLinuxContainerResources`).
    pub oom_group: bool,
    /// Bytes in huge pages, by the size of a page; negative for no limit.
    pub huge_pages: BTreeMap<u64, i64>,
}

/// The kernel's default period.
const DEFAULT_PERIOD: u64 = 100_000;

/// One file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    controller: Controller,
    file: Cow<'static, str>,
    value: String,
    /// The kernel may lack the file, and that changes nothing that matters.
    optional: bool,
}

impl Write {
    fn new(controller: Controller, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

impl Limits {
    /// What is written on v1, in an order that the kernel accepts when limits grow.
    fn v1(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        if let Some(shares) = self.cpu_shares {
            writes.push(Write::new(Controller::Cpu, "cpu.shares", shares));
        }
        if let Some(period) = self.cpu_period {
            writes.push(Write::new(Controller::Cpu, "cpu.cfs_period_us", period));
        }
        if let Some(quota) = self.cpu_quota {
            let quota = if quota > 0 { quota } else { -1 };
            writes.push(Write::new(Controller::Cpu, "cpu.cfs_quota_us", quota));
        }
        if let Some(memory) = self.memory {
            writes.push(Write::new(Controller::Memory, "memory.limit_in_bytes", memory.max(-1)));
        }
        if let Some(both) = self.memory_and_swap.or(self.memory.filter(|_| self.no_swap)) {
            // Absent where the kernel does not account for swap; then there is no swap to be limited.
            writes.push(Write::new(Controller::Memory, "memory.memsw.limit_in_bytes", both.max(-1)).optional());
        }
        if let Some(reservation) = self.memory_reservation {
            writes.push(Write::new(Controller::Memory, "memory.soft_limit_in_bytes", reservation.max(-1)));
        }
        if let Some(swappiness) = self.swappiness {
            writes.push(Write::new(Controller::Memory, "memory.swappiness", swappiness));
        }
        if self.no_oom_killer {
            writes.push(Write::new(Controller::Memory, "memory.oom_control", 1));
        }
        if let Some(pids) = self.pids {
            writes.push(Write::new(Controller::Pids, "pids.max", max_unless_positive(pids)));
        }
        writes.extend(self.idle_and_burst("cpu.cfs_burst_us"));
        writes.extend(self.of_huge_pages("limit_in_bytes", "-1"));
        writes
    }

    /// What is used and, where the kernel counts it apart (Linux 5.7), what is reserved, as runc does.
    fn of_huge_pages(&self, file: &str, unlimited: &str) -> Vec<Write> {
        let writes = self.huge_pages.iter().flat_map(|(size, limit)| {
            let value = if *limit < 0 { unlimited.to_owned() } else { limit.to_string() };
            let named = |middle| format!("hugetlb.{}.{middle}{file}", name_of_pages(*size));
            [
                Write::new(Controller::Hugetlb, named(""), &value),
                Write::new(Controller::Hugetlb, named("rsvd."), &value).optional(),
            ]
        });
        writes.collect()
    }

    /// After the quota, which the burst may not exceed.
    fn idle_and_burst(&self, burst_file: &'static str) -> Vec<Write> {
        let idle = self.cpu_idle.map(|idle| Write::new(Controller::Cpu, "cpu.idle", idle));
        let burst = self.cpu_burst.map(|burst| Write::new(Controller::Cpu, burst_file, burst));
        idle.into_iter().chain(burst).collect()
    }

    /// What is asked for and v2 does not have.
    fn absent_from_v2(&self) -> Vec<Warning> {
        let absent = |file: &str, value: String| Warning::Refused {
            file: file.to_owned(),
            value,
            error: "cgroup v2 has no such thing".to_owned(),
        };
        let swappiness = self.swappiness.map(|value| absent("memory.swappiness", value.to_string()));
        let killer = self.no_oom_killer.then(|| absent("memory.oom_control", "1".to_owned()));
        swappiness.into_iter().chain(killer).collect()
    }

    /// What is written on v2.
    fn v2(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        if let Some(shares) = self.cpu_shares {
            writes.push(Write::new(Controller::Cpu, "cpu.weight", weight_of(shares)));
        }
        if self.cpu_quota.is_some() || self.cpu_period.is_some() {
            let quota = max_unless_positive(self.cpu_quota.unwrap_or(-1));
            let period = self.cpu_period.unwrap_or(DEFAULT_PERIOD);
            writes.push(Write::new(Controller::Cpu, "cpu.max", format!("{quota} {period}")));
        }
        if let Some(memory) = self.memory {
            writes.push(Write::new(Controller::Memory, "memory.max", max_unless_positive(memory)));
        }
        if self.oom_group {
            writes.push(Write::new(Controller::Memory, "memory.oom.group", 1).optional());
        }
        if let Some(reservation) = self.memory_reservation {
            writes.push(Write::new(Controller::Memory, "memory.low", max_unless_positive(reservation)));
        }
        if let Some(swap) = self.swap_alone() {
            writes.push(Write::new(Controller::Memory, "memory.swap.max", swap).optional());
        }
        if let Some(pids) = self.pids {
            writes.push(Write::new(Controller::Pids, "pids.max", max_unless_positive(pids)));
        }
        writes.extend(self.idle_and_burst("cpu.max.burst"));
        writes.extend(self.of_huge_pages("max", "max"));
        writes
    }

    /// v2 limits swap by itself, v1 and the specification limit memory and swap together.
    fn swap_alone(&self) -> Option<String> {
        if self.no_swap {
            return Some("0".to_owned());
        }
        let both = self.memory_and_swap?;
        match self.memory {
            _ if both < 0 => Some("max".to_owned()),
            Some(memory) if memory >= 0 => Some(both.saturating_sub(memory).max(0).to_string()),
            _ => None,
        }
    }
}

/// A size of pages as the kernel and the runtime specification write it: `2MB`.
fn name_of_pages(size: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (size, 0);
    while size >= 1024 && size.is_multiple_of(1024) && unit + 1 < units.len() {
        (size, unit) = (size / 1024, unit + 1);
    }
    format!("{size}{}", units[unit])
}

/// The size of pages that the runtime specification gives such a name; none if it is none.
#[must_use]
pub fn size_of_pages(name: &str) -> Option<u64> {
    let digits = name.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = name.split_at(digits);
    let exponent = match unit {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << exponent)
}

fn max_unless_positive(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".to_owned() }
}

/// Shares 2 … 262144 as weight 1 … 10000, as KEP-2254 has it and all runtimes do.
fn weight_of(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

impl Group {
    /// Sets limits. A controller that the host lacks, or a value that the kernel refuses, is a warning.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn apply(&self, limits: &Limits) -> Result<Vec<Warning>, CgroupError> {
        let mut warnings = Vec::new();
        if matches!(self.directory_of(Controller::Memory), Some((_, true))) {
            warnings.extend(limits.absent_from_v2());
        }
        let v1 = limits.v1();
        for (write, is_v2) in v1.iter().map(|write| (write, false)).chain(limits.v2().iter().map(|write| (write, true)))
        {
            let Some((directory, lives_in_v2)) = self.directory_of(write.controller) else {
                let warning = Warning::Missing { controller: write.controller };
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
                continue;
            };
            if is_v2 == lives_in_v2 {
                warnings.extend(put(&directory, write)?);
            }
        }
        if let Some(hierarchy) = self.host.v1_of(Controller::Memory) {
            raise_memory(&hierarchy.mount.join(&self.path), &v1, &mut warnings)?;
        }
        Ok(warnings)
    }
}

/// On v1 memory must never exceed memory and swap together, so of two limits that grow the second has to be written
/// first: what was refused is tried once more after the other.
fn raise_memory(directory: &Path, writes: &[Write], warnings: &mut Vec<Warning>) -> Result<(), CgroupError> {
    const FILE: &str = "memory.limit_in_bytes";
    let refused = |warning: &Warning| matches!(warning, Warning::Refused { file, .. } if file == FILE);
    if !warnings.iter().any(refused) {
        return Ok(());
    }
    warnings.retain(|warning| !refused(warning));
    for write in writes.iter().filter(|write| write.file == FILE) {
        warnings.extend(put(directory, write)?);
    }
    Ok(())
}

fn put(directory: &Path, write: &Write) -> Result<Option<Warning>, CgroupError> {
    let file = directory.join(&*write.file);
    match write_existing(&file, &write.value) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing_file(directory, write, file, error),
        Err(error) => Ok(Some(Warning::Refused {
            file: write.file.to_string(),
            value: write.value.clone(),
            error: error.to_string(),
        })),
    }
}

fn missing_file(
    directory: &Path,
    write: &Write,
    file: PathBuf,
    error: io::Error,
) -> Result<Option<Warning>, CgroupError> {
    if !directory.exists() {
        return Err(CgroupError::file("write", &file, error));
    }
    // A file that matters is absent although its controller is there, e.g. bandwidth control is not compiled in.
    let refused =
        Warning::Refused { file: write.file.to_string(), value: write.value.clone(), error: error.to_string() };
    Ok((!write.optional).then_some(refused))
}

/// Unlike [`fs::write`] this does not try to create the file.
fn write_existing(file: &Path, value: &str) -> io::Result<()> {
    use io::Write as _;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    #[test]
    fn shares_become_weight_over_the_whole_range() {
        assert_eq!([2, 1024, 262_144, 0, u64::MAX].map(weight_of), [1, 39, 10_000, 1, 10_000]);
    }

    #[test]
    fn limits_become_files_of_each_world() {
        let limits = Limits {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory: Some(1 << 20),
            memory_and_swap: Some(3 << 20),
            pids: Some(64),
            ..Limits::default()
        };
        assert_eq!(
            lines(&limits.v1()),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=3145728",
                "pids.max=64"
            ]
        );
        assert_eq!(
            lines(&limits.v2()),
            ["cpu.weight=20", "cpu.max=50000 100000", "memory.max=1048576", "memory.swap.max=2097152", "pids.max=64"]
        );
    }

    #[test]
    fn memory_is_not_swapped_and_ends_all_together_where_that_can_be_said() {
        let limits = Limits { memory: Some(4096), no_swap: true, oom_group: true, ..Limits::default() };
        assert_eq!(lines(&limits.v1()), ["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=4096"]);
        assert_eq!(lines(&limits.v2()), ["memory.max=4096", "memory.oom.group=1", "memory.swap.max=0"]);
        let unlimited = Limits { no_swap: true, ..Limits::default() };
        assert_eq!((lines(&unlimited.v1()), lines(&unlimited.v2())), (vec![], vec!["memory.swap.max=0".to_owned()]));
    }

    #[test]
    fn huge_pages_are_limited_by_their_size() {
        let limits = Limits { huge_pages: [(2 << 20, 4 << 20), (1 << 30, -1)].into(), ..Limits::default() };
        let files = ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"];
        assert_eq!(lines(&limits.v1())[..2], files);
        let files = [
            "hugetlb.2MB.max=4194304",
            "hugetlb.2MB.rsvd.max=4194304",
            "hugetlb.1GB.max=max",
            "hugetlb.1GB.rsvd.max=max",
        ];
        assert_eq!(lines(&limits.v2()), files);
        for size in [64 << 10, 2 << 20, 32 << 20, 1 << 30] {
            assert_eq!(size_of_pages(&name_of_pages(size)), Some(size));
        }
        assert_eq!([size_of_pages("2Mi"), size_of_pages("MB"), size_of_pages("2")], [None; 3]);
    }

    #[test]
    fn no_limit_is_said_in_each_worlds_words() {
        let limits = Limits { cpu_quota: Some(-1), memory: Some(-1), pids: Some(0), ..Limits::default() };
        assert_eq!(lines(&limits.v1()), ["cpu.cfs_quota_us=-1", "memory.limit_in_bytes=-1", "pids.max=max"]);
        assert_eq!(lines(&limits.v2()), ["cpu.max=max 100000", "memory.max=max", "pids.max=max"]);
    }
}
