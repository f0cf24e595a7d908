//! One question to one name server.
//!
//! Every question has a socket of its own, whose port the kernel draws, and a number that is drawn as well, so that who
//! does not see the question cannot guess what an answer must look like (RFC 5452). An answer that was cut is asked for
//! again over TCP; a server that does not know EDNS is asked without (RFC 6891 §7).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::cache::Key;
use crate::message;

/// The largest datagram that is read; more than the server was told that it may send.
const LARGEST: usize = 4096;

/// Asks a server, for as long as that takes.
pub(crate) async fn ask(server: SocketAddr, key: &Key) -> io::Result<Message> {
    let answer = ask_as(server, key, true).await?;
    let code = answer.metadata.response_code;
    let knows_no_edns = answer.edns.is_none() && matches!(code, ResponseCode::FormErr | ResponseCode::NotImp);
    if knows_no_edns { ask_as(server, key, false).await } else { Ok(answer) }
}

async fn ask_as(server: SocketAddr, key: &Key, with_edns: bool) -> io::Result<Message> {
    let question = message::ask(&key.name, key.kind, key.flags, with_edns);
    let sent = question.to_vec().map_err(io::Error::other)?;
    let answer = over_udp(server, &question, &sent).await?;
    if answer.metadata.truncation { over_tcp(server, &question, &sent).await } else { Ok(answer) }
}

async fn over_udp(server: SocketAddr, question: &Message, sent: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let count = socket.recv(&mut buffer).await?;
        if let Some(answer) = message::parse(&buffer[..count])
            && message::answers(&answer, question)
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
    let answer = message::parse(&buffer).filter(|answer| message::answers(answer, question));
    answer.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
