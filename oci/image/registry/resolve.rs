//! Names of registries to addresses, without the C library: a static binary has no working resolver of its own.
//!
//! A stub resolver in the manner of resolv.conf(5): hosts(5) first, then the name servers in their order over UDP, over
//! TCP where the answer was cut. Files are read at each look-up, as they change while a node runs. It does not cache
//! and does not validate DNSSEC.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_proto::op::{Header, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use hyper_util::client::legacy::connect::dns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const LARGEST_DATAGRAM: usize = 4096;

/// Looks names up.
#[derive(Debug, Clone)]
pub(super) struct Resolver(Arc<Files>);

#[derive(Debug)]
struct Files {
    hosts: PathBuf,
    configuration: PathBuf,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// All servers agree that there is none.
    #[error("no such host: {name}")]
    NoSuchHost {
        /// The name.
        name: String,
    },
    /// It cannot be a host's name.
    #[error("{name:?} is not a host name")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// No server gave an answer.
    #[error("cannot look up {name}: no name server answers")]
    NoAnswer {
        /// The name.
        name: String,
        /// What the last one did.
        #[source]
        source: io::Error,
    },
}

/// resolv.conf(5), as far as it concerns a stub.
#[derive(Debug, PartialEq, Eq)]
struct Configuration {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    patience: Duration,
    attempts: u32,
}

impl Resolver {
    /// Uses the host's files.
    pub(super) fn of_host() -> Self {
        Self::new("/etc/hosts".into(), "/etc/resolv.conf".into())
    }

    fn new(hosts: PathBuf, configuration: PathBuf) -> Self {
        Self(Arc::new(Files { hosts, configuration }))
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        // RFC 6761 §6.3: always loopback, never asked for.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let hosts = tokio::fs::read_to_string(&self.0.hosts).await.unwrap_or_default();
        let addresses = in_hosts(&hosts, name);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let configuration = tokio::fs::read_to_string(&self.0.configuration).await.unwrap_or_default();
        let configuration = Configuration::parse(&configuration);
        for candidate in configuration.candidates(name) {
            let addresses = configuration.ask(&candidate).await?;
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(ResolveError::NoSuchHost { name: name.to_owned() })
    }
}

impl tower_service::Service<dns::Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.resolve(name.as_str()).await?;
            let with_port: Vec<SocketAddr> = addresses.into_iter().map(|address| (address, 0).into()).collect();
            Ok(with_port.into_iter())
        })
    }
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let matching = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    matching.collect()
}

impl Configuration {
    fn parse(text: &str) -> Self {
        let patience = Duration::from_secs(5);
        let mut parsed = Self { servers: Vec::new(), search: Vec::new(), dots: 1, patience, attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => parsed.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => parsed.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| parsed.set_option(option)),
                _ => {}
            }
        }
        // As in the C library: three at most, and this host if none is named.
        parsed.servers.truncate(3);
        if parsed.servers.is_empty() {
            parsed.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        parsed
    }

    fn set_option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        match (name, value.parse::<u32>()) {
            ("ndots", Ok(dots)) => self.dots = usize::try_from(dots.min(15)).unwrap_or(15),
            ("timeout", Ok(seconds)) => self.patience = Duration::from_secs(seconds.clamp(1, 30).into()),
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, 5),
            _ => {}
        }
    }

    /// The complete names to try, in their order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let absolute = format!("{name}.");
        let mut searched: Vec<String> =
            self.search.iter().map(|suffix| format!("{name}.{}.", suffix.trim_matches('.'))).collect();
        match name.matches('.').count() >= self.dots {
            true => searched.insert(0, absolute),
            false => searched.push(absolute),
        }
        searched
    }

    /// The addresses of a complete name; none if the servers know none.
    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let invalid = |_| ResolveError::InvalidName { name: name.to_owned() };
        let parsed = Name::from_ascii(name).map_err(invalid)?;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..self.attempts {
            for &server in &self.servers {
                let v4 = ask_server(server, &parsed, RecordType::A, self.patience);
                let v6 = ask_server(server, &parsed, RecordType::AAAA, self.patience);
                match tokio::join!(v4, v6) {
                    (Ok(mut v4), Ok(v6)) => {
                        v4.extend(v6);
                        return Ok(v4);
                    }
                    // Some servers know nothing of IPv6 and answer with an error.
                    (Ok(v4), Err(_)) if !v4.is_empty() => return Ok(v4),
                    (Err(error), _) | (_, Err(error)) => last = error,
                }
            }
        }
        Err(ResolveError::NoAnswer { name: name.to_owned(), source: last })
    }
}

fn server(word: &str) -> Option<SocketAddr> {
    // A scope (`fe80::1%eth0`) needs an interface index, and name servers on link-local addresses are rare.
    Some((word.parse::<IpAddr>().ok()?, 53).into())
}

async fn ask_server(server: SocketAddr, name: &Name, kind: RecordType, patience: Duration) -> io::Result<Vec<IpAddr>> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let sent = question.to_vec().map_err(io::Error::other)?;
    let mut answer = timeout(patience, over_udp(server, &question, &sent)).await.map_err(io::Error::from)??;
    if answer.metadata.truncation {
        answer = timeout(patience, over_tcp(server, &question, &sent)).await.map_err(io::Error::from)??;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(answer.answers.iter().filter_map(|record| address(&record.data)).collect()),
        ResponseCode::NXDomain => Ok(Vec::new()),
        code => Err(io::Error::other(format!("the name server {server} says: {code}"))),
    }
}

async fn over_udp(server: SocketAddr, question: &Message, sent: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let count = socket.recv(&mut buffer).await?;
        // What does not answer this question is somebody's forgery or an answer to an earlier one.
        if let Ok(answer) = read(&buffer[..count])
            && answers(&answer, question)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, sent: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), sent].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let answer = read(&buffer)?;
    match answers(&answer, question) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Reads an answer. One question at most: the library makes room for as many as the header promises, as in `src/dns`,
/// which knows this crate as little as this one knows it.
fn read(bytes: &[u8]) -> io::Result<Message> {
    let header = Header::read(&mut BinDecoder::new(bytes)).map_err(io::Error::other)?;
    if header.counts.queries > 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Message::from_vec(bytes).map_err(io::Error::other)
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id && answer.queries == question.queries
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_first_and_comments_do_not_count() {
        let hosts = "127.0.0.1 localhost\n10.0.0.5 registry.lan registry # old-registry\nfd00::5 Registry\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(in_hosts(hosts, "registry"), expected);
        assert!(in_hosts(hosts, "old-registry").is_empty());
    }

    #[test]
    fn the_configuration_is_read_as_the_manual_says() {
        let text =
            "# comment\nsearch a.lan b.lan\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:2 timeout:1\n";
        let parsed = Configuration::parse(text);
        assert_eq!(parsed.servers, vec!["10.0.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        assert_eq!((parsed.dots, parsed.patience, parsed.attempts), (2, Duration::from_secs(1), 2));
        assert_eq!(parsed.candidates("r.io"), ["r.io.a.lan.", "r.io.b.lan.", "r.io."]);
        assert_eq!(parsed.candidates("a.r.io")[0], "a.r.io.");
        assert_eq!(parsed.candidates("r."), ["r."]);
        assert_eq!(Configuration::parse("").servers, vec!["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn an_answer_with_more_than_one_question_is_not_read() {
        let mut message = Message::query();
        let query = || Query::query(Name::from_ascii("registry.example.").unwrap(), RecordType::A);
        message.add_query(query());
        assert!(read(&message.to_vec().unwrap()).is_ok());
        message.add_query(query());
        let whole = message.to_vec().unwrap();
        assert!(Message::from_vec(&whole).is_ok(), "only what it may cost speaks against it");
        assert!(read(&whole).is_err() && read(&whole[..11]).is_err());
    }

    #[tokio::test]
    async fn a_name_server_is_asked_over_udp_and_again_over_tcp_if_it_cuts_its_answer() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = udp.local_addr().unwrap();
        let tcp = tokio::net::TcpListener::bind(server).await.unwrap();
        let cut = async {
            let mut buffer = [0; 512];
            let (count, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..count]).unwrap().into_response();
            answer.metadata.truncation = true;
            udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let mut answer = Message::from_vec(&question).unwrap().into_response();
            let data = RData::A(hickory_proto::rr::rdata::A(Ipv4Addr::new(192, 0, 2, 7)));
            answer.add_answer(hickory_proto::rr::Record::from_rdata(answer.queries[0].name().clone(), 60, data));
            let answer = answer.to_vec().unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        };
        let name = Name::from_ascii("registry.example.").unwrap();
        let asked = ask_server(server, &name, RecordType::A, Duration::from_secs(10));
        let ((), addresses) = tokio::join!(cut, asked);
        assert_eq!(addresses.unwrap(), vec![IpAddr::from([192, 0, 2, 7])]);
    }

    #[tokio::test]
    async fn localhost_needs_no_file() {
        let nowhere = Resolver::new("absent".into(), "absent".into());
        assert_eq!(nowhere.resolve("localhost").await.unwrap()[0], IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
