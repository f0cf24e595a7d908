//! Checks of containers of all three sorts (`validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{env, is_restartable, probe, resources, restart, security};
use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// What the checks of a container need to know of its pod.
pub(super) struct Context<'a> {
    /// The pod's spec.
    pub(super) spec: &'a Value,
    /// Its valid volumes by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Value>,
}

impl Context<'_> {
    /// Checks `spec.containers`.
    pub(super) fn containers(&self, path: &Path, errors: &mut Vec<FieldError>) {
        let containers = items(self.spec, "containers");
        if containers.is_empty() {
            errors.push(FieldError::required(path, ""));
            return;
        }
        let mut names = BTreeSet::new();
        for (index, container) in containers.iter().enumerate() {
            let path = path.index(index);
            self.common(container, &path, errors);
            if !names.insert(text(container, "name")) {
                errors.push(FieldError::duplicate(path.child("name"), &container["name"]));
            }
            self.hooks_and_probes(container, &path, errors);
            restart::check(container, &path, errors);
        }
        host_ports(containers, path, errors);
    }

    /// Checks `spec.initContainers`.
    pub(super) fn init_containers(&self, path: &Path, errors: &mut Vec<FieldError>) {
        let mut names: BTreeSet<&str> = items(self.spec, "containers").iter().map(|c| text(c, "name")).collect();
        for (index, container) in items(self.spec, "initContainers").iter().enumerate() {
            let list = path;
            let path = path.index(index);
            self.common(container, &path, errors);
            restart::check(container, &path, errors);
            let name = text(container, "name");
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), &name.into()));
            }
            host_ports(std::slice::from_ref(container), list, errors);
            if is_restartable(container) {
                self.hooks_and_probes(container, &path, errors);
                continue;
            }
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if present(container, field) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(path.child(field), detail));
                }
            }
        }
    }

    /// Checks `spec.ephemeralContainers`.
    pub(super) fn ephemeral_containers(&self, path: &Path, errors: &mut Vec<FieldError>) {
        const REFUSED: [&str; 9] = [
            "ports",
            "resources",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "restartPolicy",
            "restartPolicyRules",
            "resizePolicy",
        ];
        let lists = [items(self.spec, "containers"), items(self.spec, "initContainers")];
        let others: BTreeSet<&str> = lists.into_iter().flatten().map(|c| text(c, "name")).collect();
        let mut names = others.clone();
        for (index, container) in items(self.spec, "ephemeralContainers").iter().enumerate() {
            let path = path.index(index);
            self.common(container, &path, errors);
            errors.extend(padded_image(&path, container));
            if !names.insert(text(container, "name")) {
                errors.push(FieldError::duplicate(path.child("name"), &container["name"]));
            }
            let target = text(container, "targetContainerName");
            if !target.is_empty() && !others.contains(target) {
                errors.push(FieldError::not_found(path.child("targetContainerName"), &target.into()));
            }
            let is_set = |value: &Value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty());
            let detail = "cannot be set for an Ephemeral Container";
            for field in REFUSED.into_iter().filter(|field| is_set(&container[field])) {
                errors.push(FieldError::forbidden(path.child(field), detail));
            }
            for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
                for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(mount, field).is_empty()) {
                    let path = path.child("volumeMounts").index(index).child(field);
                    errors.push(FieldError::forbidden(path, detail));
                }
            }
        }
    }

    fn hooks_and_probes(&self, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        restart::check_signal(self.spec, container, path, errors);
        let grace = self.spec["terminationGracePeriodSeconds"].as_i64();
        for hook in ["postStart", "preStop"] {
            let handler = &container["lifecycle"][hook];
            if !handler.is_null() {
                probe::check_hook(handler, grace, &path.child("lifecycle").child(hook), errors);
            }
        }
        for (field, sort) in probe::SORTS {
            if present(container, field) {
                probe::check(&container[field], sort, &path.child(field), errors);
            }
        }
    }

    fn common(&self, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        match text(container, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => errors.extend(rule::label(&path.child("name"), name)),
        }
        errors.extend(rule::not_empty(&path.child("image"), text(container, "image")));
        errors.extend(rule::required_one_of(
            &path.child("terminationMessagePolicy"),
            text(container, "terminationMessagePolicy"),
            &["File", "FallbackToLogsOnError"],
        ));
        ports(container, &path.child("ports"), errors);
        env::check(container, path, errors);
        self.mounts(container, &path.child("volumeMounts"), errors);
        self.devices(container, &path.child("volumeDevices"), errors);
        errors.extend(rule::required_one_of(
            &path.child("imagePullPolicy"),
            text(container, "imagePullPolicy"),
            &["Always", "IfNotPresent", "Never"],
        ));
        resources::check_container(&container["resources"], &path.child("resources"), errors);
        self.resize_policy(container, &path.child("resizePolicy"), errors);
        let host_users = self.spec["hostUsers"] != false;
        security::check_container(&container["securityContext"], host_users, &path.child("securityContext"), errors);
    }

    fn mounts(&self, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        let devices = items(container, "volumeDevices");
        let mut points = BTreeSet::new();
        for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
            let list = path;
            let path = path.index(index);
            let (name, point) = (text(mount, "name"), text(mount, "mountPath"));
            errors.extend(rule::not_empty(&path.child("name"), name));
            if !self.volumes.contains_key(name) {
                errors.push(FieldError::not_found(path.child("name"), &name.into()));
            }
            errors.extend(rule::not_empty(&path.child("mountPath"), point));
            if !points.insert(point) {
                errors.push(FieldError::invalid(path.child("mountPath"), &point.into(), "must be unique"));
            }
            if devices.iter().any(|device| text(device, "name") == name) {
                let detail = "must not already exist in volumeDevices";
                errors.push(FieldError::invalid(path.child("name"), &name.into(), detail));
            }
            if devices.iter().any(|device| text(device, "devicePath") == point) {
                let detail = "must not already exist as a path in volumeDevices";
                errors.push(FieldError::invalid(path.child("mountPath"), &point.into(), detail));
            }
            sub_path(mount, list, &path, errors);
            propagation(mount, container, list, errors);
        }
    }

    fn devices(&self, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        let (mut names, mut points) = (BTreeSet::new(), BTreeSet::new());
        for (index, device) in items(container, "volumeDevices").iter().enumerate() {
            let path = path.index(index);
            let (name, point) = (text(device, "name"), text(device, "devicePath"));
            let mut invalid = |field: &str, value: &str, detail: &str| {
                errors.push(FieldError::invalid(path.child(field), &value.into(), detail));
            };
            if !names.insert(name) {
                invalid("name", name, "must be unique");
            }
            if !points.insert(point) {
                invalid("devicePath", point, "must be unique");
            }
            if point.split('/').any(|part| part == "..") {
                invalid("devicePath", point, "can not contain backsteps ('..')");
            }
            match self.volumes.get(name) {
                Some(volume) if !present(volume, "persistentVolumeClaim") && !present(volume, "ephemeral") => {
                    let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    invalid("name", name, detail);
                }
                Some(_) => (),
                None => errors.push(FieldError::not_found(path.child("name"), &name.into())),
            }
            errors.extend(rule::not_empty(&path.child("devicePath"), point));
        }
    }

    fn resize_policy(&self, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
        let never = text(self.spec, "restartPolicy") == "Never";
        let mut names = BTreeSet::new();
        for (index, policy) in items(container, "resizePolicy").iter().enumerate() {
            let (name, action) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(path.index(index), &name.into()));
            }
            errors.extend(rule::required_one_of(path, name, &["cpu", "memory"]));
            errors.extend(rule::required_one_of(path, action, &["NotRequired", "RestartContainer"]));
            if never && action != "NotRequired" {
                let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
                errors.push(FieldError::invalid(path, &action.into(), detail));
            }
        }
    }
}

/// An image with blanks around it; only pods are that strict, not templates.
pub(super) fn padded_image(path: &Path, container: &Value) -> Option<FieldError> {
    let image = text(container, "image");
    let detail = "must not have leading or trailing whitespace";
    (image.trim() != image).then(|| FieldError::invalid(path.child("image"), &image.into(), detail))
}

/// A path that stays below where it starts.
pub(super) fn descending(path: &Path, value: &str, errors: &mut Vec<FieldError>) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, &value.into(), "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, &value.into(), "must not contain '..'"));
    }
}

fn ports(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (index, port) in items(container, "ports").iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = rule::port(&path.child("name"), &name.into());
            if wrong.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), &name.into()));
            }
            errors.extend(wrong);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(FieldError::required(path.child("containerPort"), "")),
            number => errors.extend(rule::port_number(&path.child("containerPort"), number)),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            errors.extend(rule::port_number(&path.child("hostPort"), number));
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        errors.extend(rule::required_one_of(&path.child("protocol"), text(port, "protocol"), &protocols));
    }
}

fn host_ports(containers: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index).child("ports");
        for (index, port) in items(container, "ports").iter().enumerate() {
            let number = port["hostPort"].as_i64().unwrap_or(0);
            let triple = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if number != 0 && !taken.insert(triple.clone()) {
                errors.push(FieldError::duplicate(path.index(index).child("hostPort"), &triple.into()));
            }
        }
    }
}

/// Upstream names the list, not the element, in some of these.
fn sub_path(mount: &Value, list: &Path, path: &Path, errors: &mut Vec<FieldError>) {
    let fields = ["subPath", "subPathExpr"].map(|field| (field, text(mount, field)));
    if fields.iter().all(|(_, value)| !value.is_empty()) {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(FieldError::invalid(path.child("subPathExpr"), &mount["subPathExpr"], detail));
    }
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        descending(&list.child(field), value, errors);
    }
}

fn propagation(mount: &Value, container: &Value, list: &Path, errors: &mut Vec<FieldError>) {
    let path = list.child("mountPropagation");
    let mode = text(mount, "mountPropagation");
    if present(mount, "mountPropagation") {
        errors.extend(rule::one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]));
    }
    if mode == "Bidirectional" && container["securityContext"]["privileged"] != true {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(&path, detail));
    }
    let path = list.child("recursiveReadOnly");
    match text(mount, "recursiveReadOnly") {
        _ if !present(mount, "recursiveReadOnly") => (),
        "Disabled" => (),
        "Enabled" | "IfPossible" => {
            if mount["readOnly"] != true {
                errors.push(FieldError::forbidden(&path, "may only be specified when readOnly is true"));
            }
            if !matches!(mode, "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
        word => errors.extend(rule::one_of(&path, word, &["Disabled", "Enabled", "IfPossible"])),
    }
}
