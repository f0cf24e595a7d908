//! Which commands the shim of a sandbox keeps.
//!
//! A probe is the same command every second. To prepare it takes reading and compiling the container's configuration and
//! opening a file of each control group: more than the command itself costs. The shim does not need it twice.
//! Invariant: a number means one command for as long as this agent knows the container; numbers of a former agent are
//! overwritten before they are used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use oci::protocol::KEPT;
use tokio::sync::OnceCell;

use crate::ContainerId;

/// The commands of a sandbox's containers.
#[derive(Debug, Default)]
pub(super) struct KeptCommands(Mutex<BTreeMap<ContainerId, Vec<Slot>>>);

#[derive(Debug)]
struct Slot {
    args: Vec<String>,
    is_there: Arc<OnceCell<()>>,
}

/// The place of a command.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) number: u8,
    /// Set once the shim has it.
    pub(super) is_there: Arc<OnceCell<()>>,
}

impl KeptCommands {
    /// The place of a command, new or known; none if there is no room for one more.
    pub(super) fn place(&self, container: &ContainerId, args: &[String]) -> Option<Place> {
        let mut containers = self.0.lock().expect("no code panics while it holds the places");
        let slots = containers.entry(container.clone()).or_default();
        let found = slots.iter().position(|slot| slot.args == args);
        let index = found.unwrap_or(slots.len());
        let number = u8::try_from(index).ok().filter(|number| *number < KEPT)?;
        if found.is_none() {
            slots.push(Slot { args: args.to_vec(), is_there: Arc::default() });
        }
        Some(Place { number, is_there: Arc::clone(&slots[index].is_there) })
    }

    pub(super) fn forget(&self, container: &ContainerId) {
        self.0.lock().expect("no code panics while it holds the places").remove(container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_one_place_and_there_are_so_many_of_them() {
        let (kept, container) = (KeptCommands::default(), ContainerId("c".to_owned()));
        let number = |name: &str| kept.place(&container, &[name.to_owned()]).map(|place| place.number);
        let names: Vec<String> = (0..KEPT).map(|index| format!("command-{index}")).collect();
        for round in 0..2 {
            let numbers: Vec<_> = names.iter().map(|name| number(name)).collect();
            assert_eq!(numbers, (0..KEPT).map(Some).collect::<Vec<_>>(), "round {round}");
        }
        assert_eq!(number("one more"), None);
        kept.forget(&container);
        assert_eq!(number("one more"), Some(0));
    }
}
