//! What a request to the kubelet asks for, as authorization knows it (`pkg/kubelet/server/auth.go`, KEP-2862): pure.
//!
//! One difference: whatever runs a command or reaches into a pod is `create`, also by GET, as the API server asks of
//! `pods/exec`. Upstream takes the method for the verb, so that who may `get` a node's proxy, to read metrics, can run
//! commands in all of its pods by a WebSocket.

use http::Method;

/// What somebody wants to do with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) verb: &'static str,
    /// Any of these subresources will do.
    pub(super) subresources: Vec<&'static str>,
}

/// Paths that have a subresource of their own.
const COARSE: [(&str, &str); 4] =
    [("stats", "stats"), ("metrics", "metrics"), ("logs", "log"), ("checkpoint", "checkpoint")];
/// Paths for which `proxy` will do as well.
const FINE: [(&str, &str); 6] = [
    ("pods", "pods"),
    ("runningpods", "pods"),
    ("healthz", "healthz"),
    ("configz", "configz"),
    ("statusz", "statusz"),
    ("flagz", "flagz"),
];
/// Paths that change things whatever the method.
const SESSIONS: [&str; 5] = ["exec", "attach", "portForward", "run", "cri"];

/// Reads a request; total.
pub(super) fn of(method: &Method, path: &str) -> Wish {
    // As the handlers find their way: empty segments at the beginning do not count.
    let first = path.split('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    let verb = match method.as_str() {
        _ if SESSIONS.contains(&first) => "create",
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let find = |list: &[(&str, &'static str)]| list.iter().find(|(path, _)| *path == first).map(|(_, name)| *name);
    let subresources = match (find(&COARSE), find(&FINE)) {
        (Some(own), _) => vec![own],
        (None, Some(own)) => vec![own, "proxy"],
        (None, None) => vec!["proxy"],
    };
    Wish { verb, subresources }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        let cases = [
            ("GET", "/stats/summary", "get stats"),
            ("GET", "/metrics", "get metrics"),
            ("GET", "/metrics/cadvisor", "get metrics"),
            ("HEAD", "/metrics/", "get metrics"),
            ("GET", "/metricsx", "get proxy"),
            ("GET", "/logs/syslog", "get log"),
            ("POST", "/checkpoint/a/b/c", "create checkpoint"),
            ("GET", "/healthz/ping", "get healthz proxy"),
            ("GET", "/configz", "get configz proxy"),
            ("GET", "/pods", "get pods proxy"),
            ("GET", "/runningpods/", "get pods proxy"),
            ("GET", "/containerLogs/a/b/c", "get proxy"),
            ("POST", "/exec/a/b/c", "create proxy"),
            ("GET", "/exec/a/b/c", "create proxy"),
            ("GET", "//attach/a/b/c", "create proxy"),
            ("GET", "/portForward/a/b", "create proxy"),
            ("PUT", "/run/a/b/c", "create proxy"),
            ("PUT", "/storage/pvc-a", "update proxy"),
            ("DELETE", "/storage/pvc-a", "delete proxy"),
            ("TRACE", "/", " proxy"),
        ];
        for (method, path, wanted) in cases {
            let wish = of(&method.parse().unwrap(), path);
            assert_eq!(format!("{} {}", wish.verb, wish.subresources.join(" ")), wanted, "{method} {path}");
        }
    }
}
