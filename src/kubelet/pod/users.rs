//! Which ids on the host a pod with a user namespace of its own has (KEP-127).
//!
//! Every such pod has 65536 ids that no other pod has. They are kept in a file of its directory in the form of upstream's
//! kubelet (`pkg/kubelet/userns/userns_manager.go`), so that a kubelet that starts later goes on with them; the files of
//! all pods are the only truth about what is taken. Which ids may be used at all is said by `kubelet`'s lines in
//! `/etc/subuid` and `/etc/subgid`, by default those from 65536 on, as many as pods fit on the node; what these files give
//! to others is left alone.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use runtime::UserRange;
use serde::{Deserialize, Serialize};

use super::files::{PodDirs, write_whole};
use crate::shared::Shared;

/// Ids of a pod.
const LENGTH: u32 = 1 << 16;

/// Who the host's files give ids to pods under, as upstream.
const NAME: &str = "kubelet";

/// Why a pod has no ids.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error("can't allocate user namespace: could not find an empty slot to allocate a user namespace")]
    Full,
    #[error("can't allocate user namespace: cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't allocate user namespace: {} does not say 65536 ids from a multiple of 65536 on", path.display())]
    Record { path: PathBuf },
    #[error(
        "can't allocate user namespace: {NAME} must have the same one line in subuid and subgid, from a multiple of 65536 \
         on, but not 0, and a multiple of 65536 long"
    )]
    Subordinate,
}

/// The file in a pod's directory.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Record {
    fn new(first: u32) -> Self {
        let mappings = vec![Mapping { host_id: first, container_id: 0, length: LENGTH }];
        Self { uid_mappings: mappings.clone(), gid_mappings: mappings }
    }

    fn first(&self) -> Option<u32> {
        match (&self.uid_mappings[..], &self.gid_mappings[..]) {
            ([Mapping { host_id, container_id: 0, length: LENGTH }], gids)
                if gids == self.uid_mappings && *host_id > 0 && host_id.is_multiple_of(LENGTH) =>
            {
                Some(*host_id)
            }
            _ => None,
        }
    }
}

/// Whether a pod has a user namespace of its own.
pub(crate) fn are_own(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false)
}

/// The ids of such a pod; picked and kept if it has none yet.
pub(crate) fn of_pod(shared: &Shared, pod: &Pod) -> Result<UserRange, UsersError> {
    let config = &shared.config;
    let dirs = PodDirs::of(pod, config);
    let path = dirs.users();
    // The sandbox is made while the files are.
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o750).create(&dirs.root).map_err(file("create", &dirs.root))?;
    let _turn = shared.picking_users();
    let first = match recorded(&path)? {
        Some(first) => first,
        None => {
            let read = |name| match fs::read_to_string(config.etc.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                result => result.map_err(file("read", &config.etc.join(name))),
            };
            let usable = Usable::parse(&read("subuid")?, &read("subgid")?, config.max_pods)?;
            let first = usable.pick(&taken(&config.root.join("pods"))?).ok_or(UsersError::Full)?;
            let bytes = serde_json::to_vec(&Record::new(first)).map_err(io::Error::from);
            bytes.and_then(|bytes| write_whole(&path, &bytes)).map_err(file("write", &path))?;
            first
        }
    };
    Ok(UserRange { first, count: LENGTH })
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UsersError + use<> {
    let path = path.to_owned();
    move |source| UsersError::File { operation, path, source }
}

/// What a pod's file says; none if there is none.
fn recorded(path: &Path) -> Result<Option<u32>, UsersError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file("read", path)(error)),
    };
    let first = serde_json::from_slice::<Record>(&bytes).ok().and_then(|record| record.first());
    first.map(Some).ok_or_else(|| UsersError::Record { path: path.to_owned() })
}

/// The first ids of all pods that have a file. One that cannot be read might say anything.
fn taken(pods: &Path) -> Result<Vec<u32>, UsersError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pods).map_err(file("list", pods))? {
        let entry = entry.map_err(file("list", pods))?;
        found.extend(recorded(&entry.path().join(PodDirs::USERS))?);
    }
    Ok(found)
}

/// Ids that pods may have.
#[derive(Debug, PartialEq, Eq)]
struct Usable {
    first: u32,
    count: u32,
    /// Ranges of others, first and end.
    others: Vec<(u64, u64)>,
}

impl Usable {
    /// What the host's files say, see subuid(5).
    fn parse(users: &str, groups: &str, max_pods: u32) -> Result<Self, UsersError> {
        let (users, groups) = (lines(users), lines(groups));
        let own = |lines: &[(String, u32, u32)]| -> Vec<(u32, u32)> {
            let ours = lines.iter().filter(|(name, ..)| name == NAME);
            ours.map(|(_, first, count)| (*first, *count)).collect()
        };
        let (first, count) = match (&own(&users)[..], &own(&groups)[..]) {
            ([], []) => (LENGTH, max_pods.saturating_mul(LENGTH)),
            ([(first, count)], [groups]) if (*first, *count) == *groups => (*first, *count),
            _ => return Err(UsersError::Subordinate),
        };
        let is_whole = first.is_multiple_of(LENGTH) && count.is_multiple_of(LENGTH);
        if first == 0 || count == 0 || !is_whole {
            return Err(UsersError::Subordinate);
        }
        let others = users.into_iter().chain(groups).filter(|(name, ..)| name != NAME);
        let others = others.map(|(_, first, count)| (u64::from(first), u64::from(first) + u64::from(count)));
        Ok(Self { first, count, others: others.collect() })
    }

    /// The lowest range that is free.
    fn pick(&self, taken: &[u32]) -> Option<u32> {
        // The last ids of all are none (user_namespaces(7)): a range that would hold them is left out.
        let ends = (0..self.count / LENGTH).map_while(|index| {
            let first = self.first.checked_add(index * LENGTH)?;
            first.checked_add(LENGTH).map(|_| first)
        });
        let free = |first: &u32| {
            let (from, end) = (u64::from(*first), u64::from(*first) + u64::from(LENGTH));
            !taken.contains(first) && !self.others.iter().any(|(other, its_end)| from < *its_end && *other < end)
        };
        ends.into_iter().find(free)
    }
}

/// Lines `name:first:count`; what is none is nobody's.
fn lines(text: &str) -> Vec<(String, u32, u32)> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_picked() {
        let usable = Usable::parse("", "", 3).unwrap();
        assert_eq!(usable.pick(&[]), Some(LENGTH));
        assert_eq!(usable.pick(&[LENGTH, 3 * LENGTH]), Some(2 * LENGTH));
        assert_eq!(usable.pick(&[LENGTH, 2 * LENGTH, 3 * LENGTH]), None);
    }

    #[test]
    fn ids_that_the_host_gives_to_somebody_else_are_left_alone() {
        let usable = Usable::parse("somebody:100000:65536\n", "", 9).unwrap();
        assert_eq!(usable.pick(&[]), Some(3 * LENGTH), "100000 to 165535 touch two ranges");
    }

    #[test]
    fn the_administrator_says_which_ids_pods_have() {
        let line = "kubelet:6553600:131072\n";
        let usable = Usable::parse(line, line, 110).unwrap();
        assert_eq!(usable.pick(&[6_553_600]), Some(6_553_600 + LENGTH));
        assert_eq!(usable.pick(&[6_553_600, 6_553_600 + LENGTH]), None);
        for wrong in ["kubelet:1000:65536", "kubelet:0:65536", "kubelet:65536:1000", "kubelet:65536:65536\nkubelet:1:1"]
        {
            assert!(Usable::parse(wrong, wrong, 110).is_err(), "{wrong}");
        }
        assert!(Usable::parse(line, "", 110).is_err(), "users and groups have to agree");
    }

    #[test]
    fn the_last_ids_of_all_are_not_used() {
        let line = "kubelet:4294836224:131072\n";
        let usable = Usable::parse(line, line, 110).unwrap();
        assert_eq!(usable.pick(&[4_294_836_224]), None);
    }

    #[test]
    fn a_record_that_says_something_else_is_refused() {
        let record = |text: &str| serde_json::from_str::<Record>(text).ok().and_then(|record| record.first());
        let whole = serde_json::to_string(&Record::new(LENGTH)).unwrap();
        assert_eq!(record(&whole), Some(LENGTH));
        assert_eq!(record(&whole.replace("65536", "65537")), None);
        assert_eq!(record(&whole.replace("\"hostId\":65536", "\"hostId\":0")), None);
        assert_eq!(record("{}"), None);
    }
}
