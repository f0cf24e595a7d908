//! What the host is: read from `/proc`, `/sys` and `/etc`, wherever the settings say that these are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use api::quantity::Quantity;

use crate::admission::Amounts;
use crate::config::KubeletConfig;
use crate::container::huge_pages::resource_of;
use crate::eviction::Threshold;

/// What the node has to give.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Capacity {
    /// Processors, in thousandths.
    pub(crate) milli_cpu: i64,
    /// Bytes of memory.
    pub(crate) memory_bytes: i64,
    /// Bytes of the file system that holds the state.
    pub(crate) storage_bytes: i64,
    /// Pods.
    pub(crate) pods: u32,
    /// Bytes in huge pages, by the size of a page.
    pub(crate) huge_pages: BTreeMap<u64, i64>,
}

/// What the host says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// `uname -r`
    pub(crate) kernel: String,
    /// `PRETTY_NAME` of os-release(5).
    pub(crate) os_image: String,
    /// machine-id(5)
    pub(crate) machine_id: String,
    /// DMI product UUID, else the machine id.
    pub(crate) system_uuid: String,
    /// Identity of this boot.
    pub(crate) boot_id: String,
    /// Architecture as Go names it.
    pub(crate) architecture: &'static str,
}

/// A fact that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from {path}")]
pub struct FactError {
    what: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl Capacity {
    /// Reads the capacity of this host.
    ///
    /// # Errors
    /// When `/proc/meminfo` or the file system of the state cannot be read.
    pub(crate) fn read(config: &KubeletConfig) -> Result<Self, FactError> {
        let meminfo = config.proc.join("meminfo");
        let refuse = |what, path: &Path, source| FactError { what, path: path.display().to_string(), source };
        let text = fs::read_to_string(&meminfo).map_err(|source| refuse("memory", &meminfo, source))?;
        let malformed = || refuse("memory", &meminfo, io::Error::from(io::ErrorKind::InvalidData));
        let memory_bytes = total_memory(&text).ok_or_else(malformed)?;
        let root = &config.root;
        let storage =
            rustix::fs::statvfs(root).map_err(|errno| refuse("size of the file system", root, errno.into()))?;
        let storage = storage.f_blocks.saturating_mul(storage.f_frsize);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            milli_cpu: i64::try_from(processors).unwrap_or(1).saturating_mul(1000),
            memory_bytes,
            storage_bytes: i64::try_from(storage).unwrap_or(i64::MAX),
            pods: config.max_pods,
            huge_pages: huge_pages(&config.sys.join("kernel/mm/hugepages")),
        })
    }
}

/// How many bytes there are in pages of each size that the kernel has (Documentation/admin-guide/mm/hugetlbpage.rst).
fn huge_pages(directory: &Path) -> BTreeMap<u64, i64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = kilobytes.checked_mul(1024)?;
        Some((size, count.checked_mul(i64::try_from(size).ok()?)?))
    };
    entries.filter_map(of).collect()
}

impl Capacity {
    /// What of it pods may ask for. Pages that are huge are no ordinary memory (`setters.MachineInfo` upstream), and what
    /// must be left is for nobody.
    pub(crate) fn allocatable(&self, config: &KubeletConfig) -> Self {
        let for_pods = self.for_pods(config);
        let huge: i64 = self.huge_pages.values().fold(0, |sum, own| sum.saturating_add(*own));
        let (memory, storage) = Threshold::reserved(&config.eviction, self.memory_bytes, self.storage_bytes);
        Self {
            memory_bytes: for_pods.memory_bytes.saturating_sub(huge).saturating_sub(memory).max(0),
            storage_bytes: for_pods.storage_bytes.saturating_sub(storage).max(0),
            ..for_pods
        }
    }

    /// All but what is reserved for the host.
    pub(crate) fn for_pods(&self, config: &KubeletConfig) -> Self {
        let reserved = |name: &str| config.reserved.get(name).copied();
        let left = |whole: i64, reserved: i64| whole.saturating_sub(reserved).max(0);
        let bytes = |name: &str| reserved(name).map_or(0, Quantity::value);
        Self {
            milli_cpu: left(self.milli_cpu, reserved("cpu").map_or(0, Quantity::milli_value)),
            memory_bytes: left(self.memory_bytes, bytes("memory")),
            storage_bytes: left(self.storage_bytes, bytes("ephemeral-storage")),
            pods: self.pods,
            huge_pages: self
                .huge_pages
                .iter()
                .map(|(size, all)| (*size, left(*all, bytes(&resource_of(*size)))))
                .collect(),
        }
    }

    /// As amounts by name.
    pub(crate) fn amounts(&self) -> Amounts {
        let amounts = [
            ("cpu", self.milli_cpu),
            ("memory", self.memory_bytes),
            ("ephemeral-storage", self.storage_bytes),
            ("pods", i64::from(self.pods)),
        ];
        let huge = self.huge_pages.iter().map(|(size, amount)| (resource_of(*size), *amount));
        amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount)).chain(huge).collect()
    }
}

/// `MemTotal` of proc_meminfo(5) in bytes.
fn total_memory(meminfo: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

impl Facts {
    /// Reads the host's facts; what cannot be read stays empty, as upstream.
    pub(crate) fn read(config: &KubeletConfig) -> Self {
        let read = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let os_release = read(&config.etc.join("os-release"));
        let machine_id = read(&config.etc.join("machine-id"));
        let product = read(&config.sys.join("class/dmi/id/product_uuid"));
        Self {
            kernel: read(&config.proc.join("sys/kernel/osrelease")),
            os_image: pretty_name(&os_release).unwrap_or_else(|| "Linux".to_owned()),
            system_uuid: if product.is_empty() { machine_id.clone() } else { product },
            machine_id,
            boot_id: read(&config.proc.join("sys/kernel/random/boot_id")),
            architecture: architecture(),
        }
    }
}

/// Of this program, as Go names it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_memory_is_read_in_bytes() {
        assert_eq!(total_memory("MemTotal:       16318264 kB\nMemFree: 1 kB\n"), Some(16_709_902_336));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn huge_pages_are_counted_by_their_size_and_are_no_ordinary_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, count) in [("hugepages-2048kB", "16\n"), ("hugepages-1048576kB", "0\n"), ("other", "1")] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
            fs::write(directory.path().join(name).join("nr_hugepages"), count).expect("a file");
        }
        let found = huge_pages(directory.path());
        assert_eq!(found, BTreeMap::from([(2 << 20, 32 << 20), (1 << 30, 0)]));
        assert_eq!(huge_pages(&directory.path().join("nowhere")), BTreeMap::new());
    }

    #[test]
    fn the_name_of_the_system_is_unquoted() {
        let text = "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(text).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("NAME=x"), None);
    }
}
