use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, HTTPHeader};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// Answers by path, and tells the heads of requests.
struct Server {
    port: u16,
    tasks: JoinSet<()>,
    heads: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Server {
    async fn new(answers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let answers: BTreeMap<String, String> =
            answers.iter().map(|(path, answer)| ((*path).to_owned(), (*answer).to_owned())).collect();
        let heads = std::sync::Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, answers, std::sync::Arc::clone(&heads)));
        Self { port, tasks, heads }
    }

    fn get(&self, path: &str, change: impl FnOnce(&mut HTTPGetAction)) -> Get {
        let port = IntOrString::Int(i32::from(self.port));
        let mut action = HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() };
        change(&mut action);
        let address = Some("127.0.0.1".parse().expect("an address"));
        Get::new(&action, &Container::default(), address, "kube-probe/1.36").expect("a request")
    }

    fn heads(&self) -> String {
        self.heads.lock().expect("no panic").join("\n")
    }
}

async fn serve(
    listener: TcpListener,
    answers: BTreeMap<String, String>,
    heads: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        let mut head = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        heads.lock().expect("no panic").extend(head);
        if let Some(answer) = answers.get(&path) {
            // A client that has gone is fine.
            let _ = write.write_all(answer.as_bytes()).await;
        }
    }
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved")
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.to_owned() }
}

#[tokio::test]
async fn an_answer_has_its_status_and_body_and_the_request_its_headers() {
    let server = Server::new(&[("/health?full=1", FINE)]).await;
    let header = |name: &str, value: &str| HTTPHeader { name: name.to_owned(), value: value.to_owned() };
    let own = vec![header("Host", "shop.example"), header("X-Probe", "1"), header("Accept", "")];
    let get = server.get("health?full=1", |action| action.http_headers = Some(own));
    assert_eq!(get.send().await, Ok(answer(200, "fine")));
    let heads = server.heads().to_lowercase();
    for expected in ["host: shop.example", "x-probe: 1", "user-agent: kube-probe/1.36"] {
        assert!(heads.contains(expected), "{expected} is not in {heads}");
    }
    assert!(!heads.contains("accept"), "{heads}");
    assert_eq!(server.tasks.len(), 1);
}

#[tokio::test]
async fn redirects_to_the_same_host_are_followed_and_others_are_the_answer() {
    let (absolute, elsewhere) = (redirect("next"), redirect("http://192.0.2.1/away"));
    let server = Server::new(&[("/a/first", &absolute), ("/a/next", FINE), ("/away", &elsewhere)]).await;
    assert_eq!(server.get("/a/first", |_| ()).send().await, Ok(answer(200, "fine")));
    assert_eq!(server.get("/away", |_| ()).send().await, Ok(answer(302, "moved")));
}

#[tokio::test]
async fn a_circle_of_redirects_ends_after_ten() {
    let around = redirect("/around");
    let server = Server::new(&[("/around", &around)]).await;
    let error = server.get("/around", |_| ()).send().await.expect_err("no end");
    assert!(error.to_string().ends_with(": stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_and_a_port_that_nobody_has_are_told_as_go_tells_them() {
    let server = Server::new(&[]).await;
    let error = server.get("/", |_| ()).send().await.expect_err("no answer");
    assert_eq!(error.to_string(), format!("Get \"http://127.0.0.1:{}/\": EOF", server.port));
    let refused = dial("127.0.0.1", 1).await.expect_err("nobody is there");
    assert_eq!(refused, "dial tcp 127.0.0.1:1: connect: connection refused");
}

#[tokio::test]
async fn a_server_without_tls_is_recognized() {
    let server = Server::new(&[("/", FINE)]).await;
    // The greeting has no empty line, so the server answers when the first line that it takes for one has come.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        // A client that has gone is fine.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let get = server.get("/", |action| {
        action.scheme = Some("HTTPS".to_owned());
        action.port = IntOrString::Int(i32::from(port));
    });
    assert!(matches!(get.send().await, Err(GetError::Plain { .. })));
    assert_eq!(
        server.get("/", |action| action.scheme = Some("HTTPS".to_owned())).without_tls().send().await,
        Ok(answer(200, "fine"))
    );
}

#[test]
fn ports_have_numbers_or_names() {
    let ports = vec![ContainerPort { name: Some("web".to_owned()), container_port: 8080, ..ContainerPort::default() }];
    let container = Container { ports: Some(ports), ..Container::default() };
    let number = |port| port_number(&container, &port);
    assert_eq!(number(IntOrString::String("web".to_owned())), Ok(8080));
    assert_eq!(number(IntOrString::String("81".to_owned())), Ok(81));
    assert_eq!(number(IntOrString::String("other".to_owned())), Err("port other not found".to_owned()));
    assert_eq!(number(IntOrString::Int(70_000)), Err("invalid port number: 70000".to_owned()));
}

#[test]
fn what_may_not_stand_in_a_path_is_escaped() {
    assert_eq!(escape("/a b?c=d%20e".to_owned()), "/a%20b?c=d%20e");
}

#[tokio::test]
async fn a_certificate_that_nobody_has_signed_is_as_good_as_any() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["other.example".to_owned()]).expect("parameters");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a configuration");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(stream).await.expect("a greeting");
        let (read, mut write) = tokio::io::split(stream);
        let mut lines = BufReader::new(read).lines();
        while lines.next_line().await.expect("a line").is_some_and(|line| !line.is_empty()) {}
        write.write_all(FINE.as_bytes()).await.expect("it is still there");
        write.shutdown().await.expect("it is still there");
    });
    let action = HTTPGetAction {
        port: IntOrString::Int(i32::from(port)),
        scheme: Some("HTTPS".to_owned()),
        ..HTTPGetAction::default()
    };
    let address = Some("127.0.0.1".parse().expect("an address"));
    let get = Get::new(&action, &Container::default(), address, "kube-probe/1.36").expect("a request");
    assert_eq!(get.send().await, Ok(answer(200, "fine")));
}
