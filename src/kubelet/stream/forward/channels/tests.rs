use task::Tasks;
use tokio::io::DuplexStream;

use super::super::tests::{closed, echo, target};
use super::*;

async fn client(tasks: &Tasks, base64: bool, ports: Vec<u16>) -> WebSocketStream<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let target = target(tasks).await;
    tasks.spawn("session", async move { carry(ours, (base64, &ports), &target).await });
    WebSocketStream::from_raw_socket(theirs, Role::Client, None).await
}

/// The next message's channel and data.
async fn next(client: &mut WebSocketStream<DuplexStream>, base64: bool) -> (u8, Vec<u8>) {
    let (channel, data) = decode(client.next().await.unwrap().unwrap().into_data(), base64).unwrap();
    (channel, data.to_vec())
}

#[tokio::test]
async fn each_channel_begins_with_its_port_and_a_refused_one_leaves_the_others() {
    for base64 in [false, true] {
        let tasks = Tasks::new();
        let (closed, echo) = (closed().await, echo(&tasks).await);
        let mut client = client(&tasks, base64, vec![closed, echo]).await;
        for (channel, port) in [(0, closed), (1, closed), (2, echo), (3, echo)] {
            assert_eq!(next(&mut client, base64).await, (channel, port.to_le_bytes().to_vec()));
        }
        let (channel, why) = next(&mut client, base64).await;
        assert_eq!(channel, 1);
        assert!(String::from_utf8(why).unwrap().starts_with("error forwarding port"));
        for channel in [2, 3, 77] {
            client.send(encode(channel, b"hello", base64)).await.unwrap();
        }
        assert_eq!(next(&mut client, base64).await, (2, b"hello".to_vec()));
        client.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn the_end_of_all_connections_is_a_close() {
    let tasks = Tasks::new();
    let mut client = client(&tasks, false, vec![closed().await]).await;
    while let Message::Binary(_) = client.next().await.unwrap().unwrap() {}
    assert!(client.next().await.is_none());
}

#[test]
fn ports_are_read_and_nonsense_is_named() {
    assert_eq!(ports("port=80,443&port=22"), Ok(vec![80, 443, 22]));
    let refused = [
        ("", "query parameter \"port\" is required"),
        ("port=", "query parameter \"port\" cannot be empty"),
        ("port=0", "port \"0\" must be > 0"),
        ("port=http", "unable to parse \"http\" as a port: invalid digit found in string"),
    ];
    for (query, why) in refused {
        assert_eq!(ports(query), Err(why.to_owned()));
    }
    let many = vec!["1"; PORTS + 1].join(",");
    assert!(ports(&format!("port={many}")).is_err());
}
