//! The pods of a Job: how they are made, and what those of an index say of it.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::super::members::pod_of;
use super::TRACKING;

/// Which index a pod works on.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How many pods of its index have failed before.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// What a pod's program reads its index from.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// One that is like all others.
pub(super) fn of(job: &Job, spec: &JobSpec) -> Pod {
    let mut pod = pod_of(job, &spec.template);
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    pod
}

/// One of an index, of which so many have failed.
pub(super) fn of_index(job: &Job, spec: &JobSpec, (index, failures): (i32, i32)) -> Pod {
    let mut pod = of(job, spec);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        annotations.insert(FAILURES.to_owned(), failures.to_string());
    }
    let Some(own) = &mut pod.spec else { return pod };
    own.hostname = Some(format!("{name}-{index}"));
    for container in own.containers.iter_mut().chain(own.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == VARIABLE) {
            continue;
        }
        let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
        let value_from = Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() });
        env.push(EnvVar { name: VARIABLE.to_owned(), value_from, ..EnvVar::default() });
    }
    pod
}

/// The index that a pod works on.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    annotated(pod, INDEX)
}

/// How many pods of its index have failed before it.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    annotated(pod, FAILURES).unwrap_or(0)
}

fn annotated(pod: &Pod, name: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}
