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

use oci::protocol::{Failure, FromShim, SetUp, ToShim, VERSION, Warning};
use oci::sys::clone::{Birth, clone3, end};
use rustix::event::{PollFd, PollFlags, poll};

use crate::connection::Connection;
use crate::server::{Server, own_pid};
use crate::setup::Sandbox;

fn main() -> ExitCode {
    if report(serve()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(result: io::Result<()>) -> io::Result<()> {
    result.inspect_err(|error| eprintln!("coracle-shim: {error}"))
}

fn serve() -> io::Result<()> {
    let mut agent = Connection::first(take_stdin()?);
    let SetUpRequest { wanted, root, groups, born_in } = receive_set_up(&mut agent)?;
    let sandbox = match setup::set_up(&wanted, &root) {
        Ok(sandbox) => sandbox,
        Err(failure) => return refuse(&mut agent, failure),
    };
    drop(root);
    let mut shim = Some((agent, sandbox, groups));
    let mut go_on = |warning: Option<Warning>| match shim.take() {
        Some((agent, sandbox, groups)) => stay(agent, sandbox, &groups, warning),
        None => Ok(()),
    };
    let Some(group) = born_in else { return go_on(None) };
    let birth = Birth { cgroup: Some(group.as_fd()), sibling: true, ..Birth::default() };
    // This program has one thread, so the child may do what it likes.
    match clone3(birth, || end(i32::from(report(go_on(None)).is_err()))) {
        Ok(_) => Ok(()),
        Err(errno) => go_on(Some(setup::stays("v2", errno))),
    }
}

/// Is the shim from now on.
fn stay(mut agent: Connection, mut sandbox: Sandbox, groups: &[OwnedFd], warning: Option<Warning>) -> io::Result<()> {
    let (version, pid) = (VERSION, own_pid());
    agent.write(&FromShim::Hello { version, pid })?;
    let mut warnings = match setup::settle(&mut sandbox, groups) {
        Ok(warnings) => warnings,
        Err(failure) => return refuse(&mut agent, failure),
    };
    warnings.extend(warning);
    agent.write(&FromShim::IsSetUp { version, pid, warnings })?;
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

/// What the shim shall be, and the descriptors that came with it.
struct SetUpRequest {
    wanted: SetUp,
    root: OwnedFd,
    /// `tasks` files of v1 groups.
    groups: Vec<OwnedFd>,
    /// The directory of a v2 group.
    born_in: Option<OwnedFd>,
}

impl SetUpRequest {
    /// None if the descriptors are not those that are announced.
    fn new(wanted: SetUp, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let root = descriptors.next()?;
        let groups: Vec<OwnedFd> = descriptors.by_ref().take(usize::from(wanted.joins)).collect();
        let born_in = descriptors.next();
        let complete = groups.len() == usize::from(wanted.joins) && born_in.is_some() == wanted.born_in;
        complete.then_some(Self { wanted, root, groups, born_in })
    }
}

fn receive_set_up(agent: &mut Connection) -> io::Result<SetUpRequest> {
    loop {
        match agent.read()? {
            Some((ToShim::SetUp(wanted), descriptors)) => {
                return SetUpRequest::new(wanted, descriptors).ok_or_else(|| io::ErrorKind::InvalidData.into());
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
