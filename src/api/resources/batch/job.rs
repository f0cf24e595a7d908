//! Jobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BASE, job_status, policy};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{
    Path, default_text, default_to, ensure_object, items, items_mut, number, object_len, object_mut, present, put, text,
};
use crate::resources::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::resources::{Dependents, Resource, pod, rule, selector, status_of};
use crate::status::FieldError;

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME: &str = "batch.kubernetes.io/job-name";
/// What the labels were called before, and still are beside the new names.
const LEGACY_UID: &str = "controller-uid";
const LEGACY_NAME: &str = "job-name";

/// Most pods of an indexed Job at once, and most indexes that may fail, which bound the size of its status.
const MOST: i64 = 100_000;
const MOST_WITH_MANY_COMPLETIONS: i64 = 10_000;

/// What who deletes a Job is told (`pkg/registry/batch/job/storage`).
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                       remove them or set propagationPolicy=Orphan to suppress this warning";

/// `jobs.batch`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "Job",
    list_kind: "JobList",
    plural: "jobs",
    singular: "job",
    subresources: &[status_of("batch", "v1", "Job")],
    default,
    prepare: generate_selector,
    validate,
    validate_update,
    validate_status: job_status::validate,
    dependents: Dependents::Orphaned { warning: ORPHANS },
    columns: &[
        cell::NAME,
        column("Status", "string", "", "How far it is, in one word.", 0),
        column("Completions", "string", "", "How many of its pods have succeeded.", 0),
        column("Duration", "string", "", "How long it took, or takes so far.", 0),
        cell::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    selectable: &[("status.successful", |job| number(&job["status"], "succeeded").to_string())],
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    ..BASE
};

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let done = number(status, "succeeded");
    let completions = match (spec["completions"].as_i64(), number(spec, "parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    };
    let [containers, images] = workload::container_cells(&spec["template"]);
    vec![
        cell::name(job),
        word(job).into(),
        completions.into(),
        duration(status, now).into(),
        cell::age(job, now),
        containers,
        images,
        selector::cell(&spec["selector"]),
    ]
}

fn word(job: &Value) -> &'static str {
    let has = |kind: &str| job_status::is_true(&job["status"], kind);
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if present(&job["metadata"], "deletionTimestamp") => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let Ok(start) = text(status, "startTime").parse::<Timestamp>() else { return String::new() };
    let end = text(status, "completionTime").parse().unwrap_or(now);
    cell::human(end.duration_since(start).as_secs())
}

fn default(job: &mut Value) {
    let spec = ensure_object(job, "spec");
    default_spec(spec);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if let Some(metadata) = object_mut(job, "metadata")
        && object_len(metadata, "labels") == 0
    {
        put(metadata, "labels", &labels);
    }
}

/// Fills in what a Job has; what only a Job has and a template of Jobs has not, its labels, is not filled in here.
fn default_spec(spec: &mut Value) {
    pod::default_template(spec);
    if !present(spec, "completions") && !present(spec, "parallelism") {
        spec["completions"] = 1.into();
    }
    default_to(spec, "parallelism", 1);
    let limit = if present(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    default_to(spec, "backoffLimit", limit);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement = if present(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default_to(spec, "podReplacementPolicy", replacement);
    default_policy(spec);
}

/// Fills in what a policy for failed pods leaves out; in a template of Jobs this is all besides the pods that is filled
/// in (`SetDefaults_PodFailurePolicyOnPodConditionsPattern`).
pub(super) fn default_policy(spec: &mut Value) {
    if let Some(policy) = object_mut(spec, "podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| default_text(pattern, "status", "True"));
        }
    }
}

/// Unless told otherwise, a Job knows its pods by a label that no other Job's pods have
/// (`pkg/registry/batch/job/strategy.go`, `generateSelector`).
fn generate_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let spec = ensure_object(job, "spec");
    let labels = ensure_object(ensure_object(ensure_object(spec, "template"), "metadata"), "labels");
    for (key, value) in [(NAME, &name), (LEGACY_NAME, &name), (UID, &uid), (LEGACY_UID, &uid)] {
        if !present(labels, key) {
            put(labels, key, value);
        }
    }
    let labels = ensure_object(ensure_object(spec, "selector"), "matchLabels");
    if !present(labels, UID) {
        put(labels, UID, &uid);
    }
}

fn validate(job: &Value) -> Vec<FieldError> {
    let spec = &job["spec"];
    let mut errors = generated_selector(job);
    errors.extend(validate_own(spec));
    let completions = number(spec, "completions");
    if spec["completionMode"] == "Indexed" && completions > 0 {
        let name = text(&job["metadata"], "name");
        let host = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(FieldError::invalid("metadata.name", &name.into(), &detail));
        }
    }
    errors
}

/// What was not generated because the client said something else must still be what would have been generated.
fn generated_selector(job: &Value) -> Vec<FieldError> {
    let (meta, spec) = (&job["metadata"], &job["spec"]);
    let mut errors = Vec::new();
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return errors;
    }
    if text(meta, "uid").is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let (uid, name) = (text(meta, "uid"), text(meta, "name"));
    let labels = &spec["template"]["metadata"]["labels"];
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    for (key, wanted) in [(LEGACY_UID, uid), (LEGACY_NAME, name), (UID, uid), (NAME, name)] {
        let detail = format!("must be '{wanted}'");
        match labels[key].as_str() {
            None => errors.push(FieldError::required(path.key(key), &detail)),
            Some(label) if label != wanted => errors.push(FieldError::invalid(path.key(key), labels, &detail)),
            Some(_) => (),
        }
    }
    let generated = json!({UID: uid, NAME: name, LEGACY_UID: uid, LEGACY_NAME: name});
    if selector::selects(&spec["selector"], &generated) == Some(false) {
        errors.push(FieldError::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
    errors
}

/// Checks the spec of a Job.
fn validate_own(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    validate_spec(spec, &path, &mut errors);
    if present(spec, "selector") {
        selector::check(&spec["selector"], &path.child("selector"), &mut errors);
    } else {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
    workload::selected(spec, &path.child("template"), &mut errors);
    errors
}

/// Checks what a Job and a template of Jobs have in common (`validateJobSpec`).
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    workload::not_negative(spec, &numbers, path, errors);
    if present(spec, "maxFailedIndexes") && !present(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(path.child("backoffLimitPerIndex"), detail));
    }
    policy::managed_by(spec, path, errors);
    match text(spec, "completionMode") {
        "Indexed" => indexed(spec, path, errors),
        mode => {
            if present(spec, "completionMode") {
                errors.extend(rule::one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]));
            }
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|f| present(spec, f)) {
                let detail = "requires indexed completion mode";
                errors.push(FieldError::invalid(path.child(field), &spec[field], detail));
            }
        }
    }
    policy::check(spec, path, errors);
    pod::validate_template(&spec["template"], &path.child("template"), errors);
    restart_policy(spec, &path.child("template").child("spec").child("restartPolicy"), errors);
}

fn indexed(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (completions, parallelism) = (spec["completions"].as_i64(), spec["parallelism"].as_i64());
    let most_failed = spec["maxFailedIndexes"].as_i64();
    if completions.is_none() {
        errors.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
    }
    let mut at_most = |field: &str, value: Option<i64>, limit: i64, detail: &str| {
        if let Some(value) = value.filter(|value| *value > limit) {
            errors.push(FieldError::invalid(path.child(field), &value.into(), detail));
        }
    };
    let detail = format!("must be less than or equal to {MOST} when completion mode is Indexed");
    at_most("parallelism", parallelism, MOST, &detail);
    let all = completions.unwrap_or(i64::MAX);
    at_most("maxFailedIndexes", most_failed, all, "must be less than or equal to completions");
    at_most("maxFailedIndexes", most_failed, MOST, &format!("must be less than or equal to {MOST}"));
    if completions.is_none_or(|count| count <= MOST) || !present(spec, "backoffLimitPerIndex") {
        return;
    }
    let limit = MOST_WITH_MANY_COMPLETIONS;
    let detail = format!(
        "must be less than or equal to {limit} when completions are above {MOST} and used with backoff limit per index"
    );
    at_most("parallelism", parallelism, limit, &detail);
    at_most("maxFailedIndexes", most_failed, limit, &detail);
    if most_failed.is_none() {
        let detail = format!("must be specified when completions is above {MOST}");
        errors.push(FieldError::required(path.child("maxFailedIndexes"), &detail));
    }
}

/// Pods of a Job end. The default of pods, `Always`, counts as not said.
fn restart_policy(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match text(&spec["template"]["spec"], "restartPolicy") {
        "" | "Always" => {
            errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if present(spec, "podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path, &"OnFailure".into(), detail));
        }
        policy => errors.extend(rule::one_of(path, policy, &["OnFailure", "Never"])),
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    let mut errors = validate_own(spec);
    completions(spec, old_spec, &path.child("completions"), &mut errors);
    errors.extend(rule::immutable(path.child("selector"), &spec["selector"], &old_spec["selector"]));
    // As long as no pod was made of it, it may still be said where pods are to run.
    let may_move = old_spec["suspend"] == true && !present(&old["status"], "startTime");
    let mut template = old_spec["template"].clone();
    if may_move {
        take_over_placement(&mut template, &spec["template"]);
    }
    errors.extend(rule::immutable(path.child("template"), &spec["template"], &template));
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.extend(rule::immutable(path.child(field), &spec[field], &old_spec[field]));
    }
    errors
}

/// An indexed Job may grow and shrink, all of it at once (KEP-3715).
fn completions(spec: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (new, old) = (&spec["completions"], &old["completions"]);
    if spec["completionMode"] != "Indexed" {
        errors.extend(rule::immutable(path, new, old));
    } else if new != old && !new.is_null() && *new != spec["parallelism"] {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, new, detail));
    }
}

/// What decides about where pods run, and labels and annotations, as another template has them.
fn take_over_placement(template: &mut Value, from: &Value) {
    let metadata = ensure_object(template, "metadata");
    for field in ["annotations", "labels"] {
        put(metadata, field, &from["metadata"][field]);
    }
    let spec = ensure_object(template, "spec");
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        put(spec, field, &from["spec"][field]);
    }
    let affinity = &from["spec"]["affinity"];
    if affinity.is_object() || spec["affinity"].is_object() {
        let own = ensure_object(spec, "affinity");
        put(own, "nodeAffinity", &affinity["nodeAffinity"]);
        if affinity.is_null() && own.as_object().is_some_and(serde_json::Map::is_empty) {
            put(spec, "affinity", &Value::Null);
        }
    }
    if items(spec, "tolerations").is_empty() {
        put(spec, "tolerations", &from["spec"]["tolerations"]);
    }
}
