//! The per-pod program: holds the sandbox's namespaces, starts containers and commands in them, writes logs, reaps,
//! keeps exits, and outlives the agent.
//!
//! Started by the native runtime with a connected Unix socket as its standard input, over which it gets all it needs
//! (see [`oci::protocol`]); it reads no arguments, no environment and no configuration. It is small on purpose, because
//! there is one per pod: one thread, no buffers per container, no knowledge of images or Kubernetes. Invariants: it
//! never touches a path outside of the directory that becomes its root; whatever an agent sends, whatever a container
//! does and however a disk behaves, it goes on.

mod connection;
mod container;
mod group;
mod log;
mod program;
mod record;
mod requests;
mod scribe;
mod server;
mod setup;
mod time;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use oci::protocol::{Failure, FromShim, SetUp, ToShim, VERSION};
use rustix::event::{PollFd, PollFlags, poll};

use crate::connection::Connection;
use crate::server::{Server, own_pid};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut agent = Connection::first(take_stdin()?);
    let (wanted, root) = receive_set_up(&mut agent)?;
    let sandbox = match setup::set_up(&wanted, &root) {
        Ok(sandbox) => sandbox,
        Err(failure) => return refuse(&mut agent, failure),
    };
    drop(root);
    agent.write(&FromShim::IsSetUp { version: VERSION, pid: own_pid() })?;
    let mut server = Server::new(sandbox);
    server.connect(agent, true);
    server.run()
}

/// The socket that is standard input, moved out of the way of children.
fn take_stdin() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

fn receive_set_up(agent: &mut Connection) -> io::Result<(SetUp, OwnedFd)> {
    loop {
        match agent.read()? {
            Some((ToShim::SetUp(wanted), descriptors)) => {
                let root = descriptors.into_iter().next();
                return root.map(|root| (wanted, root)).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => {
                let mut descriptors = [PollFd::from_borrowed_fd(agent.as_fd(), PollFlags::IN)];
                rustix::io::retry_on_intr(|| poll(&mut descriptors, None))?;
            }
        }
    }
}

fn refuse(agent: &mut Connection, failure: Failure) -> io::Result<()> {
    agent.write(&FromShim::SetUpFailed(failure.clone()))?;
    Err(io::Error::other(format!("{failure:?}")))
}
