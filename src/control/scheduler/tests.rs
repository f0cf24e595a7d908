//! Cases are files: `testdata/scheduler/<case>.yaml` holds nodes, the pods on them and the pod to be scheduled;
//! `<case>.expected` holds what is decided. `UPDATE_EXPECT=1` rewrites the latter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    nodes: Vec<Node>,
    #[serde(default)]
    pods: Vec<Pod>,
    #[serde(default)]
    claims: Vec<PersistentVolumeClaim>,
    #[serde(default)]
    volumes: Vec<PersistentVolume>,
    #[serde(default)]
    classes: Vec<StorageClass>,
    pod: Pod,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/scheduler")
}

fn outcome(case: &Case) -> String {
    let mut cluster = Cluster::default();
    for node in &case.nodes {
        cluster.set_node(node.metadata.name.as_deref().unwrap(), &Arc::new(node.clone()));
    }
    for pod in &case.pods {
        let node = pod.spec.as_ref().unwrap().node_name.as_deref().unwrap();
        cluster.place(&Key::of(&pod.metadata), "uid", node, &Arc::new(Needs::of(pod)));
    }
    let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
    for claim in &case.claims {
        cluster.claims.set_claim(&Key::of(&claim.metadata), Some(Arc::new(claim.clone())));
    }
    for volume in &case.volumes {
        cluster.claims.set_volume(&name(&volume.metadata), Some(Arc::new(volume.clone())));
    }
    for class in &case.classes {
        cluster.claims.set_class(&name(&class.metadata), Some(Arc::new(class.clone())));
    }
    match decide(&case.pod, &Needs::of(&case.pod), &cluster) {
        Decision::Bind { node, bindings } => {
            let volumes = bindings.volumes.iter().map(|(claim, volume)| format!("claim: {claim} gets {volume}\n"));
            let made = bindings.provision.iter().map(|claim| format!("claim: {claim} gets one made for {node}\n"));
            format!("bind: {node}\n") + &volumes.chain(made).collect::<String>()
        }
        Decision::Unschedulable { message, .. } => format!("{message}\n"),
    }
}

#[test]
fn every_case_file_is_decided_as_expected() {
    let mut cases: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(cases.len() > 10, "the case files are gone");
    let mut wrong = Vec::new();
    for path in cases {
        let case: Case = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (actual, expected) = (outcome(&case), path.with_extension("expected"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &actual).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != actual {
            wrong.push(format!("{}: {actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}
