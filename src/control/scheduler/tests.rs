//! Cases are files: `testdata/scheduler/<case>.yaml` holds nodes, the pods on them and the pod to be scheduled;
//! `<case>.expected` holds what is decided. `UPDATE_EXPECT=1` rewrites the latter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::family::{Families, Selecting};
use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
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
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    budgets: Vec<PodDisruptionBudget>,
    #[serde(default)]
    services: Vec<Selecting>,
    #[serde(default)]
    replica_sets: Vec<Selecting>,
    pod: Pod,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/scheduler")
}

fn cluster(case: &Case) -> Cluster {
    let mut cluster = Cluster::default();
    let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
    for node in &case.nodes {
        cluster.set_node(&name(&node.metadata), &Arc::new(node.clone()));
    }
    for namespace in &case.namespaces {
        cluster.set_namespace(&name(&namespace.metadata), namespace.metadata.labels.as_ref());
    }
    for pod in &case.pods {
        let pod = Arc::new(pod.clone());
        match pod.spec.as_ref().unwrap().node_name.as_deref() {
            Some(node) => drop(cluster.place(&pod, node)),
            None => cluster.nominations.observe(&pod, &Arc::new(Needs::of(&pod))),
        }
    }
    cluster.nominations.observe(&Arc::new(case.pod.clone()), &Arc::new(Needs::of(&case.pod)));
    for claim in &case.claims {
        cluster.claims.set_claim(&Key::of(&claim.metadata), Some(Arc::new(claim.clone())));
    }
    for volume in &case.volumes {
        cluster.claims.set_volume(&name(&volume.metadata), Some(Arc::new(volume.clone())));
    }
    for class in &case.classes {
        cluster.claims.set_class(&name(&class.metadata), Some(Arc::new(class.clone())));
    }
    cluster
}

fn told(decision: Decision) -> String {
    match decision {
        Decision::Bind { node, bindings } => {
            let volumes = bindings.volumes.iter().map(|(claim, volume)| format!("claim: {claim} gets {volume}\n"));
            let made = bindings.provision.iter().map(|claim| format!("claim: {claim} gets one made for {node}\n"));
            format!("bind: {node}\n") + &volumes.chain(made).collect::<String>()
        }
        Decision::Unschedulable { message, nomination: Nomination::Preempts(preemption), .. } => {
            let victims = preemption.victims.iter().map(|(key, _)| format!("goes: {key}\n"));
            let demoted = preemption.demoted.iter().map(|key| format!("room is no longer kept for: {key}\n"));
            format!("{message}\npreempts on: {}\n", preemption.node) + &victims.chain(demoted).collect::<String>()
        }
        Decision::Unschedulable { message, .. } => format!("{message}\n"),
    }
}

/// What is decided, by whatever chance.
fn outcome(case: &Case) -> String {
    let mut families = Families::default();
    case.services.iter().for_each(|service| families.put(0, service));
    case.replica_sets.iter().for_each(|set| families.put(2, set));
    let (needs, family) = (Needs::of(&case.pod), families.of(&case.pod));
    let asked = Asked { pod: &case.pod, needs: &needs, family: family.as_ref() };
    let (budgets, mut cluster) = (|| case.budgets.iter().cloned().map(Arc::new).collect(), cluster(case));
    let decided = |cluster: &Cluster| -> BTreeSet<String> {
        let by = |seed| decide(asked, cluster, Circumstances { budgets: &budgets, start: 0, seed }).decision;
        (0..32).map(|seed| told(by(seed))).collect()
    };
    let anew = decided(&cluster);
    cluster.get_ready(asked.crowds());
    assert_eq!(anew, decided(&cluster), "counts that are kept are others than those that are made anew");
    anew.into_iter().collect::<Vec<_>>().join("or\n")
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
