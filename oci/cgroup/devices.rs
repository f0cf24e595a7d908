//! Which devices a group may use: the allow list of the v1 controller. On v2 it takes an eBPF program, which is not
//! written here; such hosts get a warning.

use std::fmt;
use std::fs;

use super::{CgroupError, Controller, Group, Warning};

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// One rule; later ones override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it permits or forbids.
    pub allow: bool,
    /// Kind of the devices.
    pub kind: DeviceKind,
    /// Major number; none for all.
    pub major: Option<u32>,
    /// Minor number; none for all.
    pub minor: Option<u32>,
    /// Of `r` (read), `w` (write), `m` (make a node).
    pub access: String,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            // The kernel takes no numbers with this one.
            DeviceKind::All => return f.write_str("a"),
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

impl DeviceRule {
    /// What every container may use (runc, `AllowedDevices`): making any node, using the default devices and terminals.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let rule =
            |kind, major, minor, access: &str| Self { allow: true, kind, major, minor, access: access.to_owned() };
        let character = |major, minor| rule(DeviceKind::Character, Some(major), minor, "rwm");
        let mut rules = vec![
            Self { allow: false, kind: DeviceKind::All, major: None, minor: None, access: "rwm".to_owned() },
            rule(DeviceKind::Character, None, None, "m"),
            rule(DeviceKind::Block, None, None, "m"),
        ];
        rules.extend([3, 5, 7, 8, 9].map(|minor| character(1, Some(minor))));
        rules.extend([character(5, Some(0)), character(5, Some(2)), character(136, None)]);
        rules
    }
}

impl Group {
    /// Sets which devices may be used.
    ///
    /// # Errors
    /// When the group does not exist or the kernel refuses a rule: a container must not get more than it was given.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<Vec<Warning>, CgroupError> {
        let Some((directory, false)) = self.directory_of(Controller::Devices) else {
            return Ok(vec![Warning::Missing { controller: Controller::Devices }]);
        };
        for rule in rules {
            let file = directory.join(if rule.allow { "devices.allow" } else { "devices.deny" });
            fs::write(&file, rule.to_string()).map_err(|source| CgroupError::file("write", &file, source))?;
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let written: Vec<String> = DeviceRule::defaults().iter().map(DeviceRule::to_string).collect();
        assert_eq!(written[..4], ["a", "c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(written.last().unwrap(), "c 136:* rwm");
    }
}
