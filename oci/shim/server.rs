//! The event loop: one thread, one poll(2), everything that can happen to a sandbox.
//!
//! Invariants: ends of processes are handled before requests, and requests before output, of which each round copies one
//! chunk per stream, so that output never delays reaping or exec. Only the agent that spoke last is listened to:
//! requests that an earlier one left in its socket are not carried out behind the back of a later one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci::protocol::{FromShim, Reply, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::connection::{Connection, ConnectionId};
use crate::container::{Command, CommandPhase, Container, Phase};
use crate::program::Launched;
use crate::record;
use crate::setup::Sandbox;
use crate::time::Moment;

/// The most connections at a time; more are a mistake of somebody.
const CONNECTIONS: usize = 16;

/// Where an answer goes: a connection, and the request's identity there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asker {
    pub(crate) connection: ConnectionId,
    pub(crate) request: u64,
}

/// All that the shim knows.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) sandbox: Sandbox,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u64,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) commands: Vec<Command>,
    sequence: u64,
    /// Who asked for the end.
    pub(crate) shutdown: Option<Asker>,
}

/// Something that poll(2) reported.
#[derive(Debug)]
enum Event {
    Container(String),
    Command(Asker),
    Listener,
    Connection(ConnectionId),
    Output(String, usize),
}

impl Server {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            connections: BTreeMap::new(),
            next_connection: 0,
            containers: BTreeMap::new(),
            commands: Vec::new(),
            sequence: 0,
            shutdown: None,
        }
    }

    /// Adds a connection; a greeted one may send requests at once.
    pub(crate) fn connect(&mut self, mut connection: Connection, greeted: bool) {
        connection.greeted = greeted;
        self.next_connection += 1;
        self.connections.insert(ConnectionId(self.next_connection), connection);
    }

    /// Serves until the sandbox is shut down.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            let events = self.wait()?;
            for event in events {
                self.handle(event);
            }
            self.tick();
            if self.shutdown.is_some() && self.is_empty() {
                self.say_goodbye();
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        let (events, mut descriptors) = self.sources();
        let timeout = self.timeout();
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened = events.into_iter().zip(&descriptors);
        Ok(happened.filter(|(_, descriptor)| !descriptor.revents().is_empty()).map(|(event, _)| event).collect())
    }

    /// What can happen, in the order in which it is handled.
    fn sources(&self) -> (Vec<Event>, Vec<PollFd<'_>>) {
        let lives = self.containers.iter().filter_map(|(id, container)| {
            Some((Event::Container(id.clone()), PollFd::from_borrowed_fd(container.life()?, PollFlags::IN)))
        });
        let commands = self.commands.iter().filter_map(|command| {
            Some((Event::Command(command.asker), PollFd::from_borrowed_fd(command.life()?, PollFlags::IN)))
        });
        let listener = [(Event::Listener, PollFd::new(&self.sandbox.listener, PollFlags::IN))];
        let connections = self.connections.iter().map(|(id, connection)| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.has_unsent());
            (Event::Connection(*id), PollFd::from_borrowed_fd(connection.as_fd(), flags))
        });
        let outputs = self.containers.iter().flat_map(|(id, container)| {
            container.readable().map(|(place, stream)| {
                (Event::Output(id.clone(), place), PollFd::from_borrowed_fd(stream, PollFlags::IN))
            })
        });
        lives.chain(commands).chain(listener).chain(connections).chain(outputs).unzip()
    }

    fn timeout(&self) -> Option<Timespec> {
        let containers = self.containers.values().filter_map(Container::wake_at);
        let next = containers.chain(self.commands.iter().filter_map(|command| command.kill_at)).min()?;
        // One more than is left, so that the moment has surely passed afterwards.
        let wait = next.ms_since(Moment::now()) + 1;
        let (seconds, rest) = (i64::try_from(wait / 1000).unwrap_or(i64::MAX), wait % 1000);
        Some(Timespec { tv_sec: seconds, tv_nsec: i64::try_from(rest * 1_000_000).unwrap_or(0) })
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Container(id) => self.container_lives(&id),
            Event::Command(asker) => self.command_lives(asker),
            Event::Listener => self.accept(),
            Event::Connection(id) => self.serve(id),
            Event::Output(id, place) => {
                let changed = self.containers.get_mut(&id).is_some_and(|found| found.pump(place, Moment::now()));
                if changed {
                    self.changed();
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = Moment::now();
        let mut changed = false;
        for container in self.containers.values_mut() {
            changed |= container.tick(now);
        }
        for command in &mut self.commands {
            if command.kill_at.is_some_and(|at| at <= now) {
                command.timed_out = true;
                command.kill();
            }
        }
        self.end_commands();
        if changed {
            self.changed();
        }
    }

    /// A container's start has got further, or its init has ended.
    fn container_lives(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        match std::mem::replace(&mut container.phase, Phase::Between) {
            Phase::Launching(launching, asker) => match launching.look() {
                Ok(Launched::Pending(launching)) => container.phase = Phase::Launching(launching, asker),
                Ok(Launched::Running(process, terminal, warnings)) => {
                    self.sequence += 1;
                    container.started(id, process, terminal, self.sequence);
                    if self.shutdown.is_some() {
                        container.kill();
                    }
                    if let Some(record) = container.record() {
                        self.keep(&record);
                        self.reply(asker, Reply::Started { container: record, warnings });
                    }
                    self.tell_changed();
                }
                Err(failure) => {
                    self.containers.remove(id);
                    self.reply(asker, Reply::Failed(failure));
                }
            },
            Phase::Running(process, record) => {
                let outcome = process.reap();
                container.phase = Phase::Running(process, record);
                if let Some(outcome) = outcome {
                    self.sequence += 1;
                    container.exited(outcome, self.sequence, Moment::now());
                    if let Some(record) = container.record() {
                        self.keep(&record);
                    }
                    self.tell_changed();
                }
            }
            other => container.phase = other,
        }
    }

    /// A command's start has got further, or it has ended.
    fn command_lives(&mut self, asker: Asker) {
        let Some(command) = self.commands.iter_mut().find(|command| command.asker == asker) else { return };
        match std::mem::replace(&mut command.phase, CommandPhase::Over) {
            CommandPhase::Launching(launching) => match launching.look() {
                Ok(Launched::Pending(launching)) => command.phase = CommandPhase::Launching(launching),
                Ok(Launched::Running(process, ..)) => command.phase = CommandPhase::Running(process),
                Err(failure) => {
                    self.commands.retain(|command| command.asker != asker);
                    self.reply(asker, Reply::Failed(failure));
                }
            },
            CommandPhase::Running(process) => match process.reap() {
                None => command.phase = CommandPhase::Running(process),
                Some(outcome) => {
                    let timed_out = command.timed_out;
                    self.commands.retain(|command| command.asker != asker);
                    self.reply(asker, Reply::Exited { outcome, timed_out });
                }
            },
            CommandPhase::Over => {}
        }
    }

    /// Answers for commands that were killed before they were executed.
    fn end_commands(&mut self) {
        let (over, left) = std::mem::take(&mut self.commands)
            .into_iter()
            .partition(|command| matches!(command.phase, CommandPhase::Over));
        self.commands = left;
        let over: Vec<Command> = over;
        for command in over {
            let outcome = oci::protocol::Outcome::Signal(rustix::process::Signal::KILL.as_raw());
            self.reply(command.asker, Reply::Exited { outcome, timed_out: command.timed_out });
        }
    }

    /// Takes one connection, if its owner may speak.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever gave up meanwhile is not waited for.
        let Ok(socket) = rustix::net::accept_with(&self.sandbox.listener, flags) else { return };
        if self.connections.len() < CONNECTIONS && is_root(&socket) {
            self.connect(Connection::new(socket), false);
        }
    }

    fn serve(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let message = match connection.flush().and_then(|()| connection.read()) {
            Ok(None) => return,
            Ok(Some(message)) => message,
            Err(_) => return self.disconnect(id),
        };
        let (message, descriptors) = message;
        self.receive(id, message, descriptors);
    }

    /// Whether a connection has said hello.
    pub(crate) fn is_greeted(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.greeted)
    }

    /// Listens to a new agent, and to none before it.
    pub(crate) fn greet(&mut self, id: ConnectionId) {
        let former: Vec<_> = self.connections.keys().copied().filter(|other| *other < id).collect();
        former.into_iter().for_each(|other| self.disconnect(other));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.greeted = true;
        }
        self.send(id, &FromShim::Hello { version: VERSION, pid: own_pid() });
    }

    /// Forgets a connection; its commands end, since nobody waits for them.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        for command in self.commands.iter_mut().filter(|command| command.asker.connection == id) {
            command.kill();
        }
    }

    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply) {
        self.send(asker.connection, &FromShim::Reply { id: asker.request, reply });
    }

    fn send(&mut self, id: ConnectionId, message: &FromShim) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.write(message).is_err() {
            self.disconnect(id);
        }
    }

    /// Something about a container is different.
    fn changed(&mut self) {
        self.sequence += 1;
        self.tell_changed();
    }

    fn tell_changed(&mut self) {
        let message = FromShim::Changed { sequence: self.sequence };
        let greeted: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.greeted).map(|(id, _)| *id).collect();
        greeted.into_iter().for_each(|id| self.send(id, &message));
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The record on disk is for the time after the shim; without it the agent tells an exit as unknown then, so a full
    /// disk is no reason to do anything else now.
    fn keep(&self, record: &oci::protocol::ContainerRecord) {
        if let Err(error) = record::store(record) {
            eprintln!("cannot keep the record of {}: {error}", record.container);
        }
    }

    fn is_empty(&self) -> bool {
        self.containers.values().all(|container| matches!(container.phase, Phase::Exited(_)))
            && self.commands.is_empty()
    }

    /// Answers the last request; what does not fit into the socket now is lost with the shim.
    fn say_goodbye(&mut self) {
        if let Some(asker) = self.shutdown {
            self.reply(asker, Reply::Done);
        }
    }
}

/// Only root of this user namespace speaks to a shim, and no process of another process namespace, whose id reads 0.
fn is_root(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid.is_root() && peer.pid.as_raw_nonzero().get() > 0)
}

/// This process's id.
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}
