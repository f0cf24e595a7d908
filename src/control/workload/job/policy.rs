//! What a Job says about pods that fail (KEP-3329) and about when it has succeeded (KEP-3998).

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::super::number;
use super::indexes::{self, Indexes};

/// What follows from the failure of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Count,
    /// It is replaced and does not count.
    Ignore,
    /// The whole Job has failed; why.
    FailJob(String),
    /// Its index has failed.
    FailIndex,
}

/// What the first rule that fits says.
pub(super) fn verdict(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules).zip(0_usize..);
    for (rule, index) in rules {
        let Some(why) = fits(rule, pod) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// Whether a rule fits, in words.
fn fits(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let metadata = &pod.metadata;
    let name = |text: &Option<String>| text.clone().unwrap_or_default();
    let pod_name = format!("{}/{}", name(&metadata.namespace), name(&metadata.name));
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let all = lists.into_iter().flatten().flatten();
        let mut named = all.filter(|one| codes.container_name.as_ref().is_none_or(|name| *name == one.name));
        let is_meant = |code: i32| match codes.operator.as_str() {
            "In" => codes.values.contains(&code),
            "NotIn" => !codes.values.contains(&code),
            _ => false,
        };
        return named.find_map(|one| {
            let code = exit_code(one).filter(|code| *code != 0 && is_meant(*code))?;
            Some(format!("Container {} for pod {pod_name} failed with exit code {code}", one.name))
        });
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_there =
        |kind: &str, word: &str| conditions.into_iter().flatten().any(|one| one.type_ == kind && one.status == word);
    let patterns = rule.on_pod_conditions.iter().flatten();
    let word = |status: &Option<String>| status.clone().unwrap_or_else(|| "True".to_owned());
    let found = patterns.into_iter().find(|pattern| is_there(&pattern.type_, &word(&pattern.status)))?;
    Some(format!("Pod {pod_name} has condition {}", found.type_))
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Whether so many indexes are enough, in words.
pub(super) fn is_enough(spec: &JobSpec, succeeded: &Indexes, end: i32) -> Option<String> {
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules).zip(0_usize..);
    for (rule, index) in rules {
        let (meant, of) = match &rule.succeeded_indexes {
            Some(text) => {
                let meant = indexes::parse(Some(text), end);
                let of = number(meant.len());
                (succeeded.intersection(&meant).count(), of)
            }
            None => (succeeded.len(), end),
        };
        if i32::try_from(meant).unwrap_or(i32::MAX) >= rule.succeeded_count.unwrap_or(of) {
            return Some(format!("Matched rules at index {index}"));
        }
    }
    None
}
