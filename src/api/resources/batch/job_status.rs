//! Checks of a Job's status, which says how it ended and may not be taken back (`ValidateJobUpdateStatus`).

use jiff::Timestamp;
use serde_json::Value;

use super::indexes;
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::workload;
use crate::status::FieldError;

/// Whether a condition holds.
pub(super) fn is_true(status: &Value, kind: &str) -> bool {
    items(status, "conditions").iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Checks a change.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let (status, path) = (&new["status"], Path::new("status"));
    let mut errors = Vec::new();
    workload::not_negative(status, &["active", "succeeded", "failed", "ready", "terminating"], &path, &mut errors);
    uncounted(status, &path.child("uncountedTerminatedPods"), &mut errors);
    contradictions(new, &path, &mut errors);
    end(status, &path, &mut errors);
    lists(new, &path, &mut errors);
    if number(status, "ready") > number(status, "active") {
        let detail = "cannot set more ready pods than active";
        errors.push(FieldError::invalid(path.child("ready"), &status["ready"], detail));
    }
    regress(new, old, &path, &mut errors);
    errors
}

fn uncounted(status: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&Value> = Vec::new();
    for list in ["succeeded", "failed"] {
        for (index, uid) in items(&status["uncountedTerminatedPods"], list).iter().enumerate() {
            let path = path.child(list).index(index);
            if uid == "" {
                errors.push(FieldError::invalid(path, uid, "must not be empty"));
            } else if seen.contains(&uid) {
                errors.push(FieldError::duplicate(path, uid));
            } else {
                seen.push(uid);
            }
        }
    }
}

/// A Job ends once, and in one way.
fn contradictions(job: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let status = &job["status"];
    let is = |kind: &str| is_true(status, kind);
    let (complete, failed, success) = (is("Complete"), is("Failed"), is("SuccessCriteriaMet"));
    let wrong = [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && is("FailureTarget"), "cannot set Complete=True and FailureTarget=true conditions"),
        (failed && !is("FailureTarget"), "cannot set Failed=True condition without the FailureTarget=true condition"),
        (complete && !success, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
        (success && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (success && is("FailureTarget"), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ];
    let conditions = path.child("conditions");
    errors.extend(wrong.into_iter().filter(|(is, _)| *is).map(|(_, text)| FieldError::wrong(&conditions, text)));
}

/// What must be known of a Job that has ended, and cannot be known before.
fn end(status: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let complete = is_true(status, "Complete");
    let completion = &status["completionTime"];
    let time_path = path.child("completionTime");
    if !completion.is_null() && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.push(FieldError::invalid(&time_path, completion, detail));
    }
    if completion.is_null() && complete {
        errors.push(FieldError::required(&time_path, "completionTime is required for Complete jobs"));
    }
    let time = |field: &str| text(status, field).parse::<Timestamp>().ok();
    if time("startTime").zip(time("completionTime")).is_some_and(|(start, end)| end < start) {
        errors.push(FieldError::invalid(&time_path, completion, "completionTime cannot be set before startTime"));
    }
    if !complete && !is_true(status, "Failed") {
        return;
    }
    for field in ["active", "terminating"] {
        if number(status, field) > 0 {
            let detail = format!("{field}>0 is invalid for finished job");
            errors.push(FieldError::invalid(path.child(field), &status[field], &detail));
        }
    }
    if !present(status, "startTime") {
        errors.push(FieldError::required(path.child("startTime"), "startTime is required for finished job"));
    }
    let uncounted = &status["uncountedTerminatedPods"];
    if items(uncounted, "failed").len() + items(uncounted, "succeeded").len() > 0 {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        errors.push(FieldError::invalid(path.child("uncountedTerminatedPods"), uncounted, detail));
    }
}

fn lists(job: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (spec, status) = (&job["spec"], &job["status"]);
    let completions = spec["completions"].as_i64().unwrap_or(i64::MAX);
    let mut read = |field: &str| {
        let list = text(status, field);
        indexes::parse(list, completions).unwrap_or_else(|error| {
            let detail = format!("error parsing {field}: {error}");
            errors.push(FieldError::invalid(path.child(field), &list.into(), &detail));
            Vec::new()
        })
    };
    let (done, failed) = (read("completedIndexes"), read("failedIndexes"));
    if !text(status, "completedIndexes").is_empty() && spec["completionMode"] != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(path.child("completedIndexes"), &status["completedIndexes"], detail));
    }
    let path = path.child("failedIndexes");
    if present(status, "failedIndexes") && !present(spec, "backoffLimitPerIndex") {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(&path, &status["failedIndexes"], detail));
    }
    if let Some(index) = indexes::overlap(&done, &failed) {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(&path, &status["failedIndexes"], &detail));
    }
}

/// What may not be taken back.
fn regress(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (status, before) = (&new["status"], &old["status"]);
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(before, kind) && !is_true(status, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            errors.push(FieldError::wrong(path.child("conditions"), &detail));
        }
    }
    if is_true(before, "SuccessCriteriaMet") && !is_true(status, "SuccessCriteriaMet") {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        errors.push(FieldError::wrong(path.child("conditions"), detail));
    }
    // A suspended indexed Job that shrinks has succeeded less often.
    let may_shrink = new["spec"]["completionMode"] == "Indexed" && new["spec"]["suspend"] == true;
    for field in ["failed", "succeeded"] {
        if number(status, field) < number(before, field) && !(field == "succeeded" && may_shrink) {
            let detail = format!("cannot decrease the {field} counter");
            errors.push(FieldError::invalid(path.child(field), &number(status, field).into(), &detail));
        }
    }
    let (end, was) = (&status["completionTime"], &before["completionTime"]);
    if !end.is_null() && !was.is_null() && end != was {
        errors.push(FieldError::invalid(path.child("completionTime"), end, "completionTime cannot be mutated"));
    }
    let start = &before["startTime"];
    if !start.is_null() && *start != status["startTime"] && new["spec"]["suspend"] != true {
        let detail = "startTime cannot be removed for unsuspended job";
        errors.push(FieldError::required(path.child("startTime"), detail));
    }
}
