//! Follows every change of every pod and notes what must never happen to an object.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use store::{Store, Watched};

use crate::node::Ground;

/// How often the store is asked though nothing has changed.
const LOOK: Duration = Duration::from_secs(5);

/// Notes what goes wrong from now on.
pub(crate) async fn spawn(store: &Arc<dyn Store>, ground: &Ground) {
    let mut watch = store.watch("/pods/", store.revision()).await.unwrap();
    let ledger = Arc::clone(&ground.ledger);
    ground.tasks.spawn("historian", async move {
        loop {
            // Asking again now and then tells the store that all until now has been seen.
            let Ok(watched) = tokio::time::timeout(LOOK, watch.next()).await else { continue };
            match watched {
                Some(Watched::Changed(change)) => {
                    let read = |bytes: &bytes::Bytes| serde_json::from_slice::<Value>(bytes).unwrap();
                    if let (Some(before), Some(after)) = (&change.before, &change.after) {
                        compare(&read(before), &read(after)).into_iter().for_each(|text| ledger.problem(text));
                    }
                }
                Some(Watched::Overrun) => return ledger.problem("the historian was too slow".to_owned()),
                None => return,
            }
        }
    });
}

/// What is wrong with a change of a pod.
fn compare(before: &Value, after: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let name = format!("{} {}", after["metadata"]["name"], after["metadata"]["uid"]);
    let mut check = |holds: bool, what: &str| {
        if !holds {
            problems.push(format!("{name}: {what}, from {} to {}", before["status"], after["status"]));
        }
    };
    check(before["metadata"]["uid"] == after["metadata"]["uid"], "another pod took its place at once");
    let (old, new) = (phase(before), phase(after));
    check(old <= new, "the phase went back");
    check(old < 2 || before["status"]["phase"] == after["status"]["phase"], "a terminal phase was left");
    let deletion = |pod: &Value| pod["metadata"]["deletionTimestamp"].as_str().map(str::to_owned);
    if let Some(asked) = deletion(before) {
        check(deletion(after).is_some_and(|now| now <= asked), "a deletion was put off");
    }
    let start = &before["status"]["startTime"];
    check(start.is_null() || *start == after["status"]["startTime"], "the start time changed");
    let node = &before["spec"]["nodeName"];
    check(node.is_null() || *node == after["spec"]["nodeName"], "the node changed");
    for list in ["initContainerStatuses", "containerStatuses"] {
        for old in before["status"][list].as_array().into_iter().flatten() {
            let new = after["status"][list].as_array().into_iter().flatten().find(|new| new["name"] == old["name"]);
            let Some(new) = new else {
                check(false, "the status of a container vanished");
                continue;
            };
            check(old["restartCount"].as_i64() <= new["restartCount"].as_i64(), "a restart count went back");
            let ended = |status: &Value| status["state"]["terminated"]["exitCode"].as_i64();
            let rules = after["spec"]["containers"].as_array().into_iter().flatten();
            let mut own = rules.filter(|container| container["name"] == old["name"]);
            let by_rule = own.any(|container| !container["restartPolicyRules"].is_null());
            let for_good = after["spec"]["restartPolicy"] == "Never" && list == "containerStatuses" && !by_rule;
            check(!for_good || ended(old).is_none() || ended(old) == ended(new), "an end was taken back");
        }
    }
    problems
}

fn phase(pod: &Value) -> u8 {
    match pod["status"]["phase"].as_str() {
        Some("Running") => 1,
        Some("Succeeded" | "Failed") => 2,
        _ => 0,
    }
}
