//! Connections into a sandbox's loopback interface.

use std::net::Ipv6Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{DialError, dial};

/// A listener inside a namespace whose loopback interface is up.
fn listening(namespace: &NetNs, address: impl Into<IpAddr>) -> TcpListener {
    let address = SocketAddr::new(address.into(), 0);
    within(namespace, move || {
        let mut socket = Socket::route().unwrap();
        link::bring_up(&mut socket, 1).unwrap();
        TcpListener::bind(address).unwrap()
    })
}

async fn echoes(namespace: &NetNs, listener: TcpListener) {
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
    });
    let mut stream = dial(namespace, port).await.unwrap();
    stream.write_all(b"echo").await.unwrap();
    let mut word = Vec::new();
    stream.read_to_end(&mut word).await.unwrap();
    assert_eq!(word, b"echo");
    answering.join().unwrap();
}

#[test]
fn a_port_of_either_loopback_address_inside_is_reached_from_outside() {
    on_pretend_host(|_| async {
        let sandbox = namespace();
        echoes(&sandbox, listening(&sandbox, Ipv4Addr::LOCALHOST)).await;
        echoes(&sandbox, listening(&sandbox, Ipv6Addr::LOCALHOST)).await;
        let own = NetNs::current().unwrap();
        echoes(&own, listening(&own, Ipv4Addr::LOCALHOST)).await;
    });
}

#[test]
fn a_port_that_nobody_listens_on_is_refused_by_both_addresses() {
    on_pretend_host(|_| async {
        let sandbox = namespace();
        let listener = listening(&sandbox, Ipv4Addr::LOCALHOST);
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let Err(DialError::Refused { by_four, by_six, .. }) = dial(&sandbox, port).await else { panic!("connected") };
        assert_eq!(
            (by_four.kind(), by_six.kind()),
            (io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionRefused)
        );
    });
}
