//! Connections to a port of a sandbox's loopback interface, as forwarding of ports needs them.
//!
//! A socket belongs for ever to the namespace in which it was made. So a thread that ends with it enters the sandbox's
//! namespace and makes the socket, which takes some microseconds and never waits for anybody; connecting it is done
//! outside. The order of addresses is that of containerd (internal/cri/server/sandbox_portforward_linux.go).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};

use oci::sys::NetNs;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::LinkNameSpaceType;
use task::blocking;
use tokio::net::{TcpSocket, TcpStream};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace")]
    Namespace(#[source] io::Error),
    /// Neither address of the loopback interface takes the connection.
    #[error("nobody listens on port {port}: {by_four}, {by_six}")]
    Refused {
        port: u16,
        /// What 127.0.0.1 said.
        by_four: io::Error,
        /// What ::1 said.
        by_six: io::Error,
    },
}

/// Connects to a port of `127.0.0.1` in a namespace, or of `::1` if that does not take it.
///
/// # Errors
/// When the namespace cannot be entered, or neither address takes the connection.
pub async fn dial(namespace: &NetNs, port: u16) -> Result<TcpStream, DialError> {
    let inside = namespace.clone();
    let (four, six) = blocking(move || sockets(&inside)).await.map_err(DialError::Namespace)?;
    let by_four = match connect(four, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    connect(six, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|by_six| DialError::Refused {
        port,
        by_four,
        by_six,
    })
}

async fn connect(socket: io::Result<OwnedFd>, address: SocketAddr) -> io::Result<TcpStream> {
    // A socket that is not connected yet is no different from one that is, for those who hand it on.
    TcpSocket::from_std_stream(socket?.into()).connect(address).await
}

/// A socket of each family.
type Pair = (io::Result<OwnedFd>, io::Result<OwnedFd>);

fn sockets(namespace: &NetNs) -> io::Result<Pair> {
    let make = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(io::Error::from)
    };
    let both = || (make(AddressFamily::INET), make(AddressFamily::INET6));
    if is_own(namespace)? {
        return Ok(both());
    }
    let visit = || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(both())
    };
    std::thread::scope(|scope| match scope.spawn(visit).join() {
        Ok(made) => made,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Whether it is the namespace of this thread, as that of a pod on the host's network is.
fn is_own(namespace: &NetNs) -> io::Result<bool> {
    let (own, other) = (rustix::fs::fstat(NetNs::current()?.as_fd())?, rustix::fs::fstat(namespace.as_fd())?);
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}
