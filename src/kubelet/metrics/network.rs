//! What passed through interfaces: `/proc/net/dev` (proc_net(5)), read and turned.

/// One side of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

/// What passed through an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
}

impl Interface {
    /// All interfaces of the file.
    pub(super) fn read(text: &str) -> Vec<Self> {
        let of = |line: &str| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
            let traffic = |first: usize| {
                let at = |offset: usize| numbers.get(first + offset).copied();
                Some(Traffic { bytes: at(0)?, packets: at(1)?, errors: at(2)?, dropped: at(3)? })
            };
            Some(Self { name: name.trim().to_owned(), received: traffic(0)?, sent: traffic(8)? })
        };
        text.lines().filter_map(of).collect()
    }

    /// The other end of a pair: what one sends, the other receives.
    pub(super) fn turned(&self, name: &str) -> Self {
        Self { name: name.to_owned(), received: self.sent, sent: self.received }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_both_sides_are_told_apart() {
        let text = "Inter-|   Receive                        |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  eth0: 5000 50 1 2 0 0 0 0 7000 70 3 4 0 0 0 0\nbroken: 1 2\n";
        let found = Interface::read(text);
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0"]);
        let pod = found[1].turned("eth0");
        assert_eq!(pod.received, Traffic { bytes: 7000, packets: 70, errors: 3, dropped: 4 });
        assert_eq!(pod.sent, Traffic { bytes: 5000, packets: 50, errors: 1, dropped: 2 });
    }
}
