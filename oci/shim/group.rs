//! The container's cgroup, as far as it can be reached after the pivot: through descriptors.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};

/// How often a group is swept before it is left to the agent.
const ROUNDS: u32 = 100;

/// Files of a container's cgroup.
#[derive(Debug, Default)]
pub(crate) struct GroupFiles {
    /// `cgroup.procs`.
    pub(crate) processes: Option<OwnedFd>,
    /// `cgroup.kill`.
    pub(crate) kill: Option<OwnedFd>,
    /// `memory.events` or `memory.oom_control`.
    pub(crate) memory_events: Option<OwnedFd>,
}

impl GroupFiles {
    /// Sends SIGKILL to all that is in the group.
    pub(crate) fn kill_all(&self) {
        if let Some(kill) = &self.kill
            && rustix::io::write(kill, b"1").is_ok()
        {
            return;
        }
        let Some(processes) = &self.processes else { return };
        let mut killed = BTreeSet::new();
        // A process may fork between the reading of the list and its death, and a fork bomb gets ids of killed ones
        // again: all that are listed are killed, until a list has nothing new. What is left then, of a bomb that is
        // quicker than this, is frozen and killed by the agent.
        for _ in 0..ROUNDS {
            let listed: Vec<Pid> = pids(&text(processes)).collect();
            for pid in &listed {
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
            }
            let before = killed.len();
            killed.extend(listed.iter().map(|pid| pid.as_raw_nonzero()));
            if killed.len() == before {
                return;
            }
        }
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.memory_events.as_ref().map_or(0, |events| oom_kills(&text(events)))
    }
}

/// All of a file of the kernel's, as it is now. What cannot be read is empty: the group is gone.
fn text(file: &OwnedFd) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count) = rustix::io::pread(file, &mut chunk, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
        && count > 0
    {
        bytes.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn pids(text: &str) -> impl Iterator<Item = Pid> + '_ {
    text.lines().filter_map(|line| line.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw))
}

/// Both versions have a line `oom_kill <count>`.
fn oom_kills(text: &str) -> u64 {
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).filter_map(|count| count.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_the_files_of_both_versions() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills(""), 0);
    }

    #[test]
    fn only_process_ids_are_taken_from_a_list() {
        assert_eq!(pids("12\n0\n-3\nx\n7\n").map(Pid::as_raw_nonzero).map(i32::from).collect::<Vec<_>>(), [12, 7]);
    }
}
