//! Pod security standards: what pods of a namespace may do at most, as labels of the namespace say.
//!
//! Follows KEP-2579 and `k8s.io/pod-security-admission` of upstream, messages included. `enforce` refuses pods, `warn` tells
//! whoever writes pods or what makes them; `audit` is checked like the others and has no effect, as nothing is audited.

mod baseline;
mod restricted;
mod violations;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use self::violations::{Pod, Violation};
use crate::resources::Resource;
use crate::resources::path::{Path, items_mut, remove, text};
use crate::status::FieldError;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much pods may do, the least restrictive first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing that is known to lead out of the pod.
    Baseline,
    /// What hardened pods need.
    Restricted,
}

impl Level {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// Rules as of a version of Kubernetes: its minor number, or the newest there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.x`.
    Minor(u32),
    /// `latest`.
    Latest,
}

impl Version {
    fn parse(word: &str) -> Option<Self> {
        if word == "latest" {
            return Some(Self::Latest);
        }
        let digits = word.strip_prefix("v1.").filter(|digits| *digits == "0" || !digits.starts_with('0'))?;
        digits.parse().ok().map(Self::Minor)
    }

    fn is_since(self, minor: u32) -> bool {
        self >= Self::Minor(minor)
    }
}

/// What is demanded of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standard {
    /// How much they may do.
    pub level: Level,
    /// By which rules.
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What a namespace demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pods that do not satisfy it are refused.
    pub enforce: Standard,
    /// Who writes a pod, or a workload of pods, that does not satisfy it is told.
    pub warn: Standard,
}

/// What the labels of a namespace say, and what is wrong with them. A wrong level to enforce is the strictest one, and a
/// wrong version the newest.
pub fn policy(labels: &Value) -> (Policy, Vec<FieldError>) {
    let mut errors = Vec::new();
    let mut standard = |mode: &str, failing: Level| {
        let path = |key: &str| Path::new("metadata").child("labels").key(key);
        let (key, version_key) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
        let level = labels[&key].as_str().map(|word| {
            Level::parse(word).unwrap_or_else(|| {
                let detail = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(path(&key), &word.into(), detail));
                failing
            })
        });
        let version = labels[&version_key].as_str().map(|word| {
            Version::parse(word).unwrap_or_else(|| {
                let detail = "must be \"latest\" or \"v1.x\"";
                errors.push(FieldError::invalid(path(&version_key), &word.into(), detail));
                Version::Latest
            })
        });
        (level, version)
    };
    let (enforced, version) = standard("enforce", Level::Restricted);
    let enforce =
        Standard { level: enforced.unwrap_or(Level::Privileged), version: version.unwrap_or(Version::Latest) };
    standard("audit", Level::Privileged);
    let (warned, version) = standard("warn", Level::Privileged);
    let warn = match warned {
        Some(level) => Standard { level, version: version.unwrap_or(Version::Latest) },
        // Whoever writes a workload should hear of it before its pods are refused.
        None => Standard { version: version.unwrap_or(enforce.version), ..enforce },
    };
    (Policy { enforce, warn }, errors)
}

/// What a pod or template violates, in the words of the API; none if it satisfies the standard.
pub fn violations(standard: Standard, metadata: &Value, spec: &Value) -> Option<String> {
    let found = check(standard, metadata, spec);
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn check(Standard { level, version }: Standard, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let pod = Pod { metadata, spec };
    let (baseline, restricted) = match level {
        Level::Privileged => (Vec::new(), Vec::new()),
        Level::Baseline => (baseline::check(&pod, version, false), Vec::new()),
        Level::Restricted => (baseline::check(&pod, version, true), restricted::check(&pod, version)),
    };
    baseline.into_iter().chain(restricted).collect()
}

/// Metadata and spec of the pods that an object is or makes.
pub fn pod_of<'a>(row: &Resource, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let template = match (row.group, row.plural) {
        ("", "pods") => object,
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template["spec"].is_object().then(|| (&template["metadata"], &template["spec"]))
}

/// Whether an update of a pod changes something that the standards are about.
pub fn is_significant(new: &Value, old: &Value) -> bool {
    let rest = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
            remove(&mut spec, field);
        }
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            items_mut(&mut spec, list).for_each(|container| remove(container, "image"));
        }
        (spec, pod["metadata"]["annotations"].clone())
    };
    rest(new) != rest(old)
}

/// What is to be told of the pods of a namespace that do not satisfy its new standard.
pub fn existing(namespace: &str, standard: Standard, pods: &[Value]) -> Vec<String> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        let reasons: Vec<String> =
            check(standard, &pod["metadata"], &pod["spec"]).into_iter().map(|v| v.reason).collect();
        if !reasons.is_empty() {
            found.entry(reasons.join(", ")).or_default().push(text(&pod["metadata"], "name"));
        }
    }
    let mut told = Vec::new();
    for (reasons, mut names) in found {
        names.sort_unstable();
        let others = match names.len() - 1 {
            0 => String::new(),
            1 => " (and 1 other pod)".to_owned(),
            more => format!(" (and {more} other pods)"),
        };
        told.push(format!("{}{others}: {reasons}", names[0]));
    }
    told.sort();
    if !told.is_empty() {
        let start = format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level");
        told.insert(0, format!("{start} \"{standard}\""));
    }
    told
}

#[cfg(test)]
mod tests;
