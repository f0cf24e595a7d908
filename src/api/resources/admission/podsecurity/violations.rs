//! What the checks of pods have in common: walking over containers, and sentences about them.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::resources::path::{items, text};

/// A pod as the checks see it.
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

/// A rule that a pod breaks: which one, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    pub(super) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

pub(super) fn violation(reason: &str, detail: String) -> Violation {
    Violation { reason: reason.to_owned(), detail }
}

impl<'a> Pod<'a> {
    /// All containers, in upstream's order.
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| items(spec, list))
    }

    /// The security context of the pod.
    pub(super) fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// The names of the containers whose security context is bad.
    pub(super) fn bad(&self, mut is_bad: impl FnMut(&Value) -> bool) -> Vec<&'a str> {
        let bad = self.containers().filter(|container| is_bad(&container["securityContext"]));
        bad.map(|container| text(container, "name")).collect()
    }

    /// `pod`, `container "a"`, or both: whose security context is bad.
    pub(super) fn setters(&self, mut is_bad: impl FnMut(&Value) -> bool) -> Option<String> {
        let own = is_bad(self.context()).then(|| "pod".to_owned());
        let names = self.bad(is_bad);
        let containers = (!names.is_empty()).then(|| self::containers(&names));
        let parts: Vec<String> = own.into_iter().chain(containers).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    pub(super) fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

/// One word for one, another for several.
pub(super) fn plural<'a>(one: &'a str, several: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { several }
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `"a", "b"`.
pub(super) fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    words.join(", ")
}

/// [`quoted`], of a set.
pub(super) fn quoted_set(words: &BTreeSet<String>) -> String {
    quoted(&Vec::from_iter(words.iter().map(String::as_str)))
}
