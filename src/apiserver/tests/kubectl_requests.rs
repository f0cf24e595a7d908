//! What the oldest and the newest kubectl found ask for, as they log it with `-v=8`: no answer makes them try again, take
//! another way, or warn, where upstream's would not.

use serde_json::json;

use super::kubectl::{Kubectl, programs};
use super::tls::Served;

/// Commands in their order, with the requests that each makes beside discovery and documents: method and code. `FILE` is
/// a ConfigMap. The absent object that `apply` meets is why it creates, that `delete` meets is what it waits for; an
/// apply that becomes a server-side one hands over the fields first.
const COMMANDS: [(&str, &str); 27] = [
    ("create namespace NAMESPACE", "POST 201"),
    ("create serviceaccount default", "POST 201"),
    ("get pods", "GET 200"),
    ("run web --image=i:1", "POST 201"),
    ("get pod web -o yaml", "GET 200"),
    ("get pods -o wide", "GET 200"),
    ("describe pod web", "GET 200, GET 200, GET 200"),
    ("apply -f FILE", "GET 404, GET 200, POST 201"),
    ("apply -f FILE", "GET 200"),
    ("apply -f CHANGED", "GET 200, PATCH 200"),
    ("diff -f CHANGED", "GET 200"),
    ("apply --server-side --force-conflicts -f FILE", "PATCH 200, PATCH 200, PATCH 200, PATCH 200"),
    ("explain pod.spec", ""),
    ("label pod web a=b", "GET 200, PATCH 200"),
    ("annotate pod web a=b", "GET 200, PATCH 200"),
    ("patch configmap c -p {\"data\":{\"a\":\"d\"}}", "GET 200, PATCH 200"),
    ("replace -f FILE", "GET 200, PUT 200"),
    ("create configmap x --from-literal=a=b --dry-run=server", "POST 201"),
    ("create deployment d --image=i:1", "POST 201"),
    ("scale deployment d --replicas=2", "GET 200, PATCH 200"),
    ("set image deployment/d i=i:2", "GET 200, PATCH 200"),
    ("expose deployment d --port=80", "GET 200, POST 201"),
    ("get events", "GET 200"),
    ("auth can-i create pods", "POST 201"),
    ("api-resources", ""),
    ("delete pod web --grace-period=0 --force", "DELETE 200, GET 404"),
    ("delete -f FILE", "DELETE 200, GET 404"),
];

/// Requests of a log, in both forms that kubectl has had: method, path and code.
fn requests(log: &str) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let word = |line: &str, before: &str| {
        let rest = line.split_once(before)?.1;
        Some(rest.split(['"', ' ']).next().unwrap_or_default().to_owned())
    };
    for line in log.lines().filter(|line| line.contains("round_trippers.go")) {
        let path = |line: &str| Some(word(line, "https://")?.split_once('/')?.1.to_owned());
        let text = line.split_once("] ").map_or("", |(_, text)| text);
        let method = match word(line, "\"Request\" verb=\"") {
            Some(method) => Some(method),
            None => text.split_once(" https://").map(|(method, _)| method.to_owned()),
        };
        if let (Some(method), Some(path)) = (method.filter(|word| !word.contains(' ')), path(line)) {
            found.push((method, path, String::new()));
        }
        let code = word(line, "Response Status: ").or_else(|| word(line, "\"Response\" status=\""));
        if let (Some(code), Some((_, _, last))) = (code, found.last_mut()) {
            *last = code;
        }
    }
    found
}

/// Whether a request is for what the server can do, not for objects.
fn is_about_the_server(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    path.starts_with("openapi/") || ["api", "apis", "api/v1", "version"].contains(&path)
}

/// Lines that say that something is not as kubectl would have it.
fn complaints(log: &str) -> Vec<&str> {
    // Forced deletions are warned of by kubectl itself, what has no controller yet by this server.
    let expected = ["Warning: Immediate deletion", "no controller here acts"];
    let is_complaint = |line: &&str| {
        let text = line.split_once("Body").map_or(*line, |(text, _)| text).to_lowercase();
        ["warning", "fallback", "falling back", "retry", "throttl", "deprecated"].iter().any(|word| text.contains(word))
    };
    log.lines().filter(is_complaint).filter(|line| !expected.iter().any(|word| line.contains(word))).collect()
}

async fn drive(kubectl: &Kubectl) {
    let map = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": value } });
    let (file, changed) = (kubectl.file("map.json", &map("b")), kubectl.file("changed.json", &map("c")));
    for (command, expected) in COMMANDS {
        let line = command.replace("NAMESPACE", &kubectl.namespace).replace("FILE", &file).replace("CHANGED", &changed);
        let output = kubectl.output(&format!("{line} -v=8")).await;
        let log = String::from_utf8_lossy(&output.stderr);
        let differs = command.starts_with("diff") && output.status.code() == Some(1);
        assert!(output.status.success() || differs, "{}: {command}: {log}", kubectl.namespace);
        let (server, objects): (Vec<_>, Vec<_>) =
            requests(&log).into_iter().partition(|(_, path, _)| is_about_the_server(path));
        let made: Vec<String> = objects.iter().map(|(method, _, code)| format!("{method} {code}")).collect();
        assert_eq!(made.join(", "), expected, "{}: {command}: {log}", kubectl.namespace);
        for (index, (_, path, code)) in server.iter().enumerate() {
            assert!(["200", "304"].contains(&code.as_str()), "{}: {command}: {path} {code}", kubectl.namespace);
            assert!(server[..index].iter().all(|earlier| earlier.1 != *path), "{command}: {path} asked for twice");
        }
        assert_eq!(complaints(&log), [""; 0], "{}: {command}", kubectl.namespace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_makes_kubectl_try_again_take_another_way_or_warn() {
    let programs = programs();
    let (Some(oldest), Some(newest)) = (programs.first(), programs.last()) else {
        eprintln!("SKIP no_answer_makes_kubectl_try_again_take_another_way_or_warn: no kubectl in the path");
        return;
    };
    let served = Served::start().await;
    let mut chosen = vec![oldest, newest];
    chosen.dedup();
    for program in chosen {
        drive(&Kubectl::new(program.clone(), &served.kubeconfig())).await;
    }
    served.stop().await;
}
