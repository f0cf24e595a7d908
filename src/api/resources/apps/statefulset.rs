//! StatefulSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BASE, amount, at_most_all};
use crate::resources::cell::{self, column};
use crate::resources::path::{
    Path, default_text, default_to, ensure_object, items, items_mut, number, object_mut, present, put, text,
};
use crate::resources::workload::{self, CONTAINERS, IMAGES};
use crate::resources::{NameRule, Resource, SCALE, pod, rule, scale, selector, status_of};
use crate::status::FieldError;

/// What may change after creation.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// `statefulsets.apps`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "StatefulSet",
    list_kind: "StatefulSetList",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    subresources: &[SCALE, status_of("apps", "v1", "StatefulSet")],
    scale: Some(scale::USUAL),
    // The name and a number make the names of its pods.
    name_rule: NameRule::Label,
    default,
    validate: |set| validate_spec(&set["spec"]),
    validate_update,
    validate_status,
    new_status: || json!({ "replicas": 0, "availableReplicas": 0 }),
    columns: &[
        cell::NAME,
        column("Ready", "string", "", "How many of its pods are ready.", 0),
        cell::AGE,
        CONTAINERS,
        IMAGES,
    ],
    cells,
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    ..BASE
};

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", number(&set["status"], "readyReplicas"), number(&set["spec"], "replicas"));
    let [containers, images] = workload::container_cells(&set["spec"]["template"]);
    vec![cell::name(set), ready.into(), cell::age(set, now), containers, images]
}

fn default(set: &mut Value) {
    let spec = ensure_object(set, "spec");
    pod::default_template(spec);
    default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = ensure_object(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        strategy["type"] = "RollingUpdate".into();
        default_to(strategy, "rollingUpdate", json!({}));
    }
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = object_mut(strategy, "rollingUpdate")
    {
        default_to(rolling, "partition", 0);
        default_to(rolling, "maxUnavailable", 1);
    }
    let policy = ensure_object(spec, "persistentVolumeClaimRetentionPolicy");
    default_text(policy, "whenDeleted", "Retain");
    default_text(policy, "whenScaled", "Retain");
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    for claim in items_mut(spec, "volumeClaimTemplates") {
        default_text(claim, "kind", "PersistentVolumeClaim");
        default_text(claim, "apiVersion", "v1");
        default_to(ensure_object(claim, "spec"), "volumeMode", "Filesystem");
        default_text(ensure_object(claim, "status"), "phase", "Pending");
    }
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    match text(spec, "podManagementPolicy") {
        "" => errors.push(FieldError::required(path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => (),
        _ => {
            let value = &spec["podManagementPolicy"];
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(path.child("podManagementPolicy"), value, detail));
        }
    }
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), &mut errors);
    for field in ["whenDeleted", "whenScaled"] {
        let parent = "persistentVolumeClaimRetentionPolicy";
        let policy = path.child(parent).child(field);
        errors.extend(rule::one_of(&policy, text(&spec[parent], field), &["Retain", "Delete"]));
    }
    workload::not_negative(spec, &["replicas", "minReadySeconds"], &path, &mut errors);
    let start = path.child("ordinals.start");
    errors.extend(rule::not_negative(&start, &spec["ordinals"]["start"]));
    selector::check_own(spec, &path.child("selector"), "statefulset", &mut errors);
    template(spec, &path.child("template"), &mut errors);
    errors
}

/// Every claim template is a volume of the pods, whether the template of the pods names it or not.
fn template(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if present(spec, "selector") {
        workload::selected(spec, path, errors);
    }
    let mut template = spec["template"].clone();
    let claims = items(spec, "volumeClaimTemplates").iter().map(|claim| text(&claim["metadata"], "name"));
    let claims: Vec<Value> =
        claims.map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})).collect();
    if !claims.is_empty() {
        let is_own = |volume: &&Value| claims.iter().all(|claim| claim["name"] != volume["name"]);
        let own = items(&template["spec"], "volumes").iter().filter(is_own);
        let volumes: Vec<Value> = own.chain(&claims).cloned().collect();
        ensure_object(&mut template, "spec")["volumes"] = volumes.into();
    }
    workload::lasting_template(&template, path, "StatefulSet", errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (rolling, rolling_path) = (&strategy["rollingUpdate"], path.child("rollingUpdate"));
    match text(strategy, "type") {
        "" => errors.push(FieldError::required(path, "")),
        "OnDelete" | "RollingUpdate" if rolling.is_null() => (),
        "OnDelete" => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(rolling_path, rolling, detail));
        }
        "RollingUpdate" => {
            workload::not_negative(rolling, &["partition"], &rolling_path, errors);
            if present(rolling, "maxUnavailable") {
                amount(rolling, "maxUnavailable", &rolling_path, errors);
                if rule::amount(&rolling["maxUnavailable"]) == 0 {
                    let value = &rolling["maxUnavailable"];
                    errors.push(FieldError::invalid(rolling_path.child("maxUnavailable"), value, "cannot be 0"));
                }
                at_most_all(rolling, "maxUnavailable", &rolling_path, errors);
            }
        }
        _ => errors.push(FieldError::invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&new["spec"]);
    let mut rest = new["spec"].clone();
    for field in CHANGEABLE {
        put(&mut rest, field, &old["spec"][field]);
    }
    if rest != old["spec"] {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
    errors
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let (status, path) = (&new["status"], Path::new("status"));
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut errors = Vec::new();
    workload::not_negative(status, &["replicas"], &path, &mut errors);
    workload::not_negative(status, &parts, &path, &mut errors);
    workload::not_negative(status, &["observedGeneration", "collisionCount"], &path, &mut errors);
    workload::parts(status, &parts, &path, &mut errors);
    workload::available(status, "status.readyReplicas", &path, &mut errors);
    workload::collisions(new, old, &path, &mut errors);
    errors
}
