//! Logs, where they are found, and sessions of many clients.

use std::convert::Infallible;
use std::path::PathBuf;

use http::StatusCode;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::scenarios::{is_ready, one_container, started, state};
use super::*;
use crate::stream::SESSIONS;

fn says(word: &str, program: Program) -> Program {
    Program { output: vec![word.to_owned()], ..program }
}

/// The links to logs: what each is called, and where it leads.
fn links(world: &World) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(world.directory.path().join("containers")) else { return Vec::new() };
    let each = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut all: Vec<_> = each.map(|path| (name(&path), std::fs::read_link(path).expect("a link"))).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn links_lead_collectors_to_logs_as_long_as_there_are_any() {
    let mut world = started().await;
    world.program("web", &[says("hello", Program::serves())]);
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let pod = world.pod("web").expect("the pod");
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id").to_owned();
    let id = id.trim_start_matches("coracle://");
    let log = world
        .directory
        .path()
        .join("log")
        .join(format!("default_web_{}", pod["metadata"]["uid"].as_str().expect("a uid")));
    let wanted = vec![(format!("web_default_web-{id}.log"), log.join("web/0.log"))];
    assert_eq!(links(&world), wanted);
    // One that was lost is made again by the next agent, and one that leads nowhere goes.
    let folder = world.directory.path().join("containers");
    std::fs::remove_file(folder.join(&wanted[0].0)).expect("removed");
    std::os::unix::fs::symlink(world.directory.path().join("log/gone/0.log"), folder.join("gone.log")).expect("made");
    world.start_agent().await;
    assert_eq!(links(&world), wanted);
    world.delete("web", 30);
    world.until_gone("web").await;
    assert_eq!(links(&world), []);
}

#[tokio::test(start_paused = true)]
async fn of_a_container_that_crashes_again_and_again_two_logs_are_kept() {
    let world = started().await;
    let lives: Vec<Program> =
        (0..6).map(|life| says(&format!("life {life}"), Program::exits(Duration::from_secs(1), 3))).collect();
    world.program("web", &lives);
    world.create("web", one_container());
    let has_crashed = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 4
            && state(pod, "waiting")["reason"] == "CrashLoopBackOff"
    };
    world.until_pod("web", "it has crashed often", has_crashed).await;
    let (code, now) = world.ask("/containerLogs/default/web/web").await;
    assert_eq!((code, now.as_str()), (200, "life 4\n"));
    let before = world.ask("/containerLogs/default/web/web?previous=true").await;
    assert_eq!(before, (200, "life 4\n".to_owned()), "as upstream, while none runs");
    let logs = |world: &World| links(world).into_iter().map(|(_, log)| log).collect::<Vec<_>>();
    world.until("old ones are gone", |world| logs(world).len() == 2).await;
    let mut kept = logs(&world);
    kept.sort();
    let folder = kept[0].parent().expect("a folder").to_owned();
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("listed").map(|entry| entry.expect("one").path()).collect();
    files.sort();
    assert_eq!(kept, [folder.join("3.log"), folder.join("4.log")]);
    assert_eq!(files, kept);
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_the_host_can_be_looked_at_and_nothing_else() {
    let world = started().await;
    let root = world.directory.path();
    std::fs::write(root.join("sys log"), "kernel says\n").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", root.join("users")).expect("linked");
    let (code, listing) = world.ask("/logs/").await;
    assert_eq!(code, 200);
    assert!(listing.contains("<a href=\"sys%20log\">sys log</a>\n<a href=\"users\">users</a>"), "{listing}");
    assert!(listing.contains("<a href=\"log/\">log/</a>"), "{listing}");
    assert_eq!(world.ask("/logs/sys%20log").await, (200, "kernel says\n".to_owned()));
    assert_eq!(world.ask("/logs").await.0, 301);
    assert_eq!(world.ask("/logs/log").await.0, 301);
    assert_eq!(world.ask("/logs/users").await, (403, "403 Forbidden\n".to_owned()));
    for path in ["/logs/none", "/logs/../../etc/passwd", "/logs/%2e%2e/%2e%2e/etc/passwd"] {
        assert_eq!(world.ask(path).await, (404, "404 page not found\n".to_owned()), "{path}");
    }
}

/// Attaches to the pod `web`; what came of it.
async fn attach(world: &World, tasks: &Tasks) -> (StatusCode, Result<Upgraded, String>) {
    let (ours, theirs) = tokio::io::duplex(1 << 12);
    let kubelet = Arc::clone(&world.kubelet.as_ref().expect("the agent runs").0);
    let service = service_fn(move |request: Request<Incoming>| {
        let kubelet = Arc::clone(&kubelet);
        let (parts, _) = request.into_parts();
        async move { Ok::<_, Infallible>(kubelet.handle(Request::from_parts(parts, Bytes::new())).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(ours), service);
    tasks.spawn("server", serving.with_upgrades());
    let client = hyper::client::conn::http1::handshake(TokioIo::new(theirs)).await;
    let (mut sender, connection) = client.expect("a connection");
    tasks.spawn("client", connection.with_upgrades());
    let headers = [
        ("host", "edge"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let request = Request::get("/attach/default/web/web?output=1");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await;
    let response = response.expect("an answer");
    let code = response.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        return (code, Ok(hyper::upgrade::on(response).await.expect("a session")));
    }
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    (code, Err(String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_node_has_room_for_so_many_sessions_and_says_so_to_the_next() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let tasks = Tasks::new();
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let (code, session) = attach(&world, &tasks).await;
        assert_eq!(code, StatusCode::SWITCHING_PROTOCOLS, "session {number}");
        sessions.push(session);
    }
    let (code, refusal) = attach(&world, &tasks).await;
    let wanted = "this node has 512 sessions of exec, attach and port-forward, and takes no more\n".to_owned();
    assert_eq!((code, refusal.err()), (StatusCode::TOO_MANY_REQUESTS, Some(wanted)));
    // Whoever goes makes room.
    drop(sessions.pop());
    let again = async { while attach(&world, &tasks).await.0 != StatusCode::SWITCHING_PROTOCOLS {} };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room");
}
