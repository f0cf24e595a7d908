//! The whole server behind real sockets, with name servers of the tests' own for the rest of the world.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record, RecordType};
use serde_json::json;
use task::Tasks;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use super::{name, zone_of};
use crate::{Config, ResolvConf, Sockets, serve};

/// What a server of the world says; nothing for silence.
type Says = dyn Fn(&Message) -> Option<Message> + Send + Sync;

/// A node's DNS in a world of its own.
struct World {
    tasks: Tasks,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A node that asks these, one after another.
async fn world(servers: Vec<Arc<Says>>) -> World {
    let tasks = Tasks::new();
    let (mut port, mut conf) = (0, String::new());
    for (number, says) in servers.into_iter().enumerate() {
        let address = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number).unwrap());
        let sockets = Sockets::bind((address, port).into()).await.unwrap();
        port = sockets.udp.local_addr().unwrap().port();
        conf.push_str(&format!("nameserver {address}\n"));
        answer_with(sockets, says, &tasks);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, conf).unwrap();
    let objects = [
        json!({ "kind": "Service", "metadata": { "namespace": "default", "name": "web" },
            "spec": { "clusterIP": "10.43.0.7", "ports": [{ "port": 80 }] } }),
        json!({ "kind": "Service", "metadata": { "namespace": "default", "name": "outside" },
            "spec": { "type": "ExternalName", "externalName": "www.example.com" } }),
    ];
    let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = sockets.udp.local_addr().unwrap();
    let config = Config {
        domain: "cluster.local".to_owned(),
        listen: vec![address],
        told: vec![IpAddr::from([10, 43, 0, 10])],
        resolv_conf: ResolvConf { file, behind_stub: folder.path().join("none"), port },
    };
    serve(sockets, Arc::new(RwLock::new(zone_of(&objects))), config, &tasks);
    World { tasks, address, _folder: folder }
}

fn answer_with(sockets: Sockets, says: Arc<Says>, tasks: &Tasks) {
    let (udp, tcp) = (sockets.udp, sockets.tcp);
    let over_tcp = Arc::clone(&says);
    tasks.spawn("test-udp", async move {
        let mut buffer = [0; 4096];
        loop {
            let (count, from) = udp.recv_from(&mut buffer).await.unwrap();
            let Some(answer) = says(&Message::from_vec(&buffer[..count]).unwrap()) else { continue };
            let mut bytes = answer.to_vec().unwrap();
            if bytes.len() > 512 {
                bytes = answer.truncate().to_vec().unwrap();
            }
            udp.send_to(&bytes, from).await.unwrap();
        }
    });
    tasks.spawn("test-tcp", accept(tcp, over_tcp));
}

async fn accept(listener: TcpListener, says: Arc<Says>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let question = read(&mut stream).await;
        if let Some(answer) = says(&question) {
            stream.write_all(&framed(&answer)).await.unwrap();
        }
    }
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes.as_slice()].concat()
}

async fn read(stream: &mut TcpStream) -> Message {
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

impl World {
    async fn ask(&self, question: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&question.to_vec().unwrap(), self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).await.unwrap();
        let answer = Message::from_vec(&buffer[..count]).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (question.metadata.id, &question.queries));
        assert!(answer.metadata.recursion_available || answer.metadata.response_code == ResponseCode::FormErr);
        answer
    }

    async fn ask_for(&self, text: &str) -> Message {
        self.ask(&question(text, RecordType::A)).await
    }
}

/// One address for whatever is asked.
fn one_address(question: &Message) -> Message {
    let mut answer = question.clone().into_response();
    let asked = question.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(asked, 60, RData::A(A::new(192, 0, 2, 1))));
    answer
}

fn of_code(question: &Message, code: ResponseCode) -> Message {
    let mut answer = question.clone().into_response();
    answer.metadata.response_code = code;
    answer
}

fn says(say: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static) -> Arc<Says> {
    Arc::new(say)
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_cluster_is_answered_by_datagram_and_by_connection() {
    let world = world(Vec::new()).await;
    let web = question("WEB.default.svc.cluster.local.", RecordType::A);
    let answer = world.ask(&web).await;
    assert!(answer.metadata.authoritative && answer.edns.is_none());
    assert_eq!(
        (data(&answer), answer.answers[0].name.to_ascii()),
        (vec!["10.43.0.7".to_owned()], "WEB.default.svc.cluster.local.".to_owned())
    );
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // Two questions at once, the second one cut in its middle.
    let none = question("none.default.svc.cluster.local.", RecordType::A);
    let both = [framed(&web), framed(&none)].concat();
    let (first, rest) = both.split_at(both.len() - 20);
    stream.write_all(first).await.unwrap();
    assert_eq!(data(&read(&mut stream).await), ["10.43.0.7"]);
    stream.write_all(rest).await.unwrap();
    let answer = read(&mut stream).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (none.metadata.id, ResponseCode::NXDomain));
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    // Who says nothing more is not waited for.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn others_are_asked_once_and_the_answer_is_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let world = world(vec![says(move |question| {
        count.fetch_add(1, Ordering::Relaxed);
        assert!(question.metadata.recursion_desired && question.edns.is_some());
        Some(one_address(question))
    })])
    .await;
    for spelling in ["www.example.com.", "WWW.example.com."] {
        let answer = world.ask_for(spelling).await;
        assert_eq!(
            (data(&answer), answer.answers[0].name.to_ascii().as_str()),
            (vec!["192.0.2.1".to_owned()], spelling)
        );
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // Another view of DNSSEC, another question.
    let mut signed = question("www.example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    signed.set_edns(edns);
    assert!(world.ask(&signed).await.edns.unwrap().flags().dnssec_ok);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_asks_for_what_is_asked_for_already_waits_for_the_same_answer() {
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, wake) = (Arc::clone(&asked), Arc::clone(&go));
    let world = world(vec![says(move |question| {
        count.fetch_add(1, Ordering::Relaxed);
        wake.notify_one();
        (question.queries[0].name() == &name("other.example.")).then(|| one_address(question))
    })])
    .await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut mine = question("www.example.com.", RecordType::A);
    for id in 0..20 {
        mine.metadata.id = id;
        socket.send_to(&mine.to_vec().unwrap(), world.address).await.unwrap();
    }
    go.notified().await;
    // All of those were read before this one. A server that keeps silent is asked again after a while.
    world.ask_for("other.example.").await;
    assert!(asked.load(Ordering::Relaxed) < 10);
}

#[tokio::test]
async fn another_server_is_asked_where_one_fails_or_refuses() {
    let refuses = says(|question| Some(of_code(question, ResponseCode::Refused)));
    let fails = says(|question| Some(of_code(question, ResponseCode::ServFail)));
    let knows = says(|question| Some(one_address(question)));
    let all = world(vec![Arc::clone(&refuses), fails, knows]).await;
    assert_eq!(data(&all.ask_for("www.example.com.").await), ["192.0.2.1"]);
    let one = world(vec![refuses]).await;
    assert_eq!(one.ask_for("www.example.com.").await.metadata.response_code, ResponseCode::Refused);
    let none = world(Vec::new()).await;
    assert_eq!(none.ask_for("www.example.com.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let world = world(vec![says(|question| {
        let mut answer = of_code(question, ResponseCode::FormErr);
        if question.edns.is_some() {
            answer.edns = None;
            return Some(answer);
        }
        Some(one_address(question))
    })])
    .await;
    assert_eq!(data(&world.ask_for("www.example.com.").await), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_long_answer_is_fetched_by_connection_and_cut_for_a_datagram() {
    let world = world(vec![says(|question| {
        let mut answer = one_address(question);
        for last in 0..200 {
            let address = RData::A(A::new(192, 0, 2, last));
            answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, address));
        }
        Some(answer)
    })])
    .await;
    let asked = question("www.example.com.", RecordType::A);
    let cut = world.ask(&asked).await;
    assert!(cut.metadata.truncation && cut.answers.len() > 20 && cut.to_vec().unwrap().len() <= 512);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&framed(&asked)).await.unwrap();
    let whole = read(&mut stream).await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 201));
}

#[tokio::test]
async fn a_name_of_others_is_followed_and_ends_as_they_say() {
    let world = world(vec![says(|question| match question.queries[0].query_type() {
        RecordType::A => Some(one_address(question)),
        RecordType::AAAA => {
            let mut answer = of_code(question, ResponseCode::NoError);
            let soa = SOA::new(name("ns.example.com."), name("root.example.com."), 1, 2, 3, 4, 5);
            answer.add_authority(Record::from_rdata(name("example.com."), 60, RData::SOA(soa)));
            Some(answer)
        }
        _ => Some(of_code(question, ResponseCode::NXDomain)),
    })])
    .await;
    let ask = async |kind| world.ask(&question("outside.default.svc.cluster.local.", kind)).await;
    assert_eq!(data(&ask(RecordType::A).await), ["www.example.com.", "192.0.2.1"]);
    let none = ask(RecordType::AAAA).await;
    assert_eq!((data(&none), none.authorities.len()), (vec!["www.example.com.".to_owned()], 1));
    let absent = ask(RecordType::MX).await;
    assert_eq!(
        (data(&absent), absent.metadata.response_code),
        (vec!["www.example.com.".to_owned()], ResponseCode::NXDomain)
    );
    assert_eq!(data(&ask(RecordType::CNAME).await), ["www.example.com."]);
}

#[tokio::test]
async fn a_name_of_others_is_said_though_nobody_knows_more_of_it() {
    let world = world(vec![says(|question| Some(of_code(question, ResponseCode::Refused)))]).await;
    let said = world.ask(&question("outside.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(
        (data(&said), said.metadata.response_code),
        (vec!["www.example.com.".to_owned()], ResponseCode::NoError)
    );
    assert!(said.metadata.authoritative);
    let other = world.ask(&question("www.example.com.", RecordType::A)).await;
    assert_eq!(other.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_world_is_not_asked_for_who_does_not_want_it() {
    let world = world(vec![says(|_| panic!("nobody is to be asked"))]).await;
    let mut iterative = question("www.example.com.", RecordType::A);
    iterative.metadata.recursion_desired = false;
    assert_eq!(world.ask(&iterative).await.metadata.response_code, ResponseCode::Refused);
    let mut own = question("web.default.svc.cluster.local.", RecordType::A);
    own.metadata.recursion_desired = false;
    assert_eq!(data(&world.ask(&own).await), ["10.43.0.7"]);
    own.queries[0] = Query::query(name("outside.default.svc.cluster.local."), RecordType::A);
    assert_eq!(data(&world.ask(&own).await), ["www.example.com."]);
}
