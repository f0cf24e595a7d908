//! Whom the host asks: the name servers of its resolv.conf(5).
//!
//! The file is read again at most once a second, and only while there are questions, as it changes while a node runs.
//! Where it names systemd-resolved's stub alone, the servers behind that are asked (systemd-resolved.service(8)). Search
//! domains and options are for who asks, not for who passes on. Invariant: this server never asks itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How old the knowledge of the file may be.
const FRESH: Duration = Duration::from_millis(900);
/// As many as CoreDNS takes.
const MOST: usize = 15;
/// The stubs of systemd-resolved.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Where the host says whom it asks.
#[derive(Debug, Clone)]
pub struct ResolvConf {
    /// The file, usually `/etc/resolv.conf`.
    pub file: PathBuf,
    /// The file behind systemd-resolved's stub, usually `/run/systemd/resolve/resolv.conf`.
    pub behind_stub: PathBuf,
    /// The port of name servers: 53 outside of tests.
    pub port: u16,
}

impl ResolvConf {
    /// The usual files.
    pub fn of_host() -> Self {
        Self { file: "/etc/resolv.conf".into(), behind_stub: "/run/systemd/resolve/resolv.conf".into(), port: 53 }
    }

    /// The file that pods with the host's resolver get: addresses of stubs are the host's own.
    pub fn effective(&self) -> &Path {
        let is_stub = std::fs::read_to_string(&self.file).is_ok_and(|text| names_stubs(&servers(&text)));
        if is_stub && self.behind_stub.exists() { &self.behind_stub } else { &self.file }
    }

    fn read(&self) -> io::Result<Vec<IpAddr>> {
        let found = servers(&std::fs::read_to_string(&self.file)?);
        if !names_stubs(&found) {
            return Ok(found);
        }
        let behind = std::fs::read_to_string(&self.behind_stub).map(|text| servers(&text)).unwrap_or_default();
        Ok(if behind.is_empty() { found } else { behind })
    }
}

/// The name servers of a file. One with a scope (`fe80::1%eth0`) needs an interface and is left out.
fn servers(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(Ok(server)) = words.next().map(str::parse) else { continue };
        if !found.contains(&server) && found.len() < MOST {
            found.push(server);
        }
    }
    found
}

fn names_stubs(servers: &[IpAddr]) -> bool {
    let is_stub = |server: &IpAddr| STUBS.iter().any(|stub| *server == IpAddr::V4(*stub));
    !servers.is_empty() && servers.iter().all(is_stub)
}

/// The servers, as they are now.
#[derive(Debug)]
pub(crate) struct Resolvers {
    conf: Arc<ResolvConf>,
    /// Addresses by which this server is reached.
    own: Vec<IpAddr>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    servers: Arc<[SocketAddr]>,
    read: Option<Instant>,
}

impl Resolvers {
    pub(crate) fn new(conf: ResolvConf, own: Vec<IpAddr>) -> Self {
        let state = State { servers: Arc::new([]), read: None };
        Self { conf: Arc::new(conf), own, state: Mutex::new(state) }
    }

    /// The servers in their order, and whether they are others than before.
    pub(crate) async fn servers(&self) -> (Arc<[SocketAddr]>, bool) {
        let now = Instant::now();
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.read.is_some_and(|read| now.duration_since(read) < FRESH) {
                return (Arc::clone(&state.servers), false);
            }
        }
        let conf = Arc::clone(&self.conf);
        let found = task::blocking(move || conf.read()).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read = Some(now);
        match found {
            Ok(found) => {
                let others = found.into_iter().filter(|server| !self.own.contains(server));
                let found: Vec<SocketAddr> = others.map(|server| (server, self.conf.port).into()).collect();
                let is_other = *state.servers != *found;
                if is_other {
                    tracing::info!(servers = ?found, "names of the world are asked of these");
                    state.servers = found.into();
                }
                (Arc::clone(&state.servers), is_other)
            }
            // While the file is being replaced those that it named go on.
            Err(error) => {
                tracing::debug!(%error, file = %self.conf.file.display(), "cannot read the host's resolver configuration");
                (Arc::clone(&state.servers), false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        servers(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_are_taken_in_their_order_and_once() {
        let text = "# c\nnameserver 10.0.0.1 # first\nsearch a.lan\nnameserver fd00::1\n nameserver\t10.0.0.1\n\
                    nameserver fe80::1%eth0\nnameserver x\nnameserver\n; nameserver 10.0.0.9\n";
        assert_eq!(said(text), ["10.0.0.1", "fd00::1"]);
        assert!(said("").is_empty());
    }

    #[test]
    fn behind_the_stub_of_systemd_are_its_servers() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let conf = ResolvConf { file: path("a"), behind_stub: path("b"), port: 53 };
        let read = || conf.read().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(conf.read().is_err());
        std::fs::write(path("a"), "nameserver 127.0.0.53\n").unwrap();
        assert_eq!((read(), conf.effective()), (vec!["127.0.0.53".to_owned()], path("a").as_path()));
        std::fs::write(path("b"), "nameserver 10.0.0.1\n").unwrap();
        assert_eq!((read(), conf.effective()), (vec!["10.0.0.1".to_owned()], path("b").as_path()));
        std::fs::write(path("a"), "nameserver 127.0.0.53\nnameserver 10.0.0.2\n").unwrap();
        assert_eq!(
            (read(), conf.effective()),
            (vec!["127.0.0.53".to_owned(), "10.0.0.2".to_owned()], path("a").as_path())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_file_is_seen_and_this_server_is_not_asked_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 10.42.0.1\nnameserver 10.0.0.1\n").unwrap();
        let conf = ResolvConf { file: file.clone(), behind_stub: folder.path().join("none"), port: 53 };
        let resolvers = Resolvers::new(conf, vec!["10.42.0.1".parse().unwrap()]);
        let first: Arc<[SocketAddr]> = Arc::new(["10.0.0.1:53".parse().unwrap()]);
        assert_eq!(resolvers.servers().await, (first.clone(), true));
        std::fs::write(&file, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(resolvers.servers().await, (first, false));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second: Arc<[SocketAddr]> = Arc::new(["10.0.0.2:53".parse().unwrap()]);
        assert_eq!(resolvers.servers().await, (second.clone(), true));
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(resolvers.servers().await, (second, false));
    }
}
