//! The event loop: one thread, one poll(2), everything that can happen to a sandbox.
//!
//! Invariants: nothing here touches a disk or waits for a process, so that neither a hung file system nor a flood of output
//! delays reaping or exec. Only the agent that spoke last is listened to:
//! requests that an earlier one left in its socket are not carried out behind the back of a later one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci::container::ending_children;
use oci::protocol::{FromShim, Reply, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::connection::{Connection, ConnectionId};
use crate::container::{Command, CommandPhase, Container, Phase};
use crate::program::{Launched, Look, is_over, reap};
use crate::setup::Sandbox;
use crate::time::Moment;

/// The most connections at a time; more are a mistake of somebody.
const CONNECTIONS: usize = 16;

/// How long to wait before trying again what could not be done.
const LATER_MS: u64 = 100;

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
    /// Children that only have to be reaped, with the moment before which that need not be tried again.
    ending: Vec<(OwnedFd, Option<Moment>)>,
    /// The listener is not polled before this.
    accept_at: Option<Moment>,
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
    Output(String),
    /// Somebody is no longer at a container's streams.
    Attached(String),
    /// A child that only has to be reaped has ended.
    Ending,
    /// The first process of the containers' process namespace has ended, and with it all others there.
    Processes,
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
            ending: Vec::new(),
            accept_at: None,
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
                if matches!(event, Event::Processes) {
                    return Err(io::Error::other("the process namespace of the sandbox has ended"));
                }
                self.handle(event);
            }
            self.tick();
            if self.shutdown.is_some() && self.is_empty() {
                self.say_goodbye();
                return Ok(());
            }
        }
    }

    fn wait(&mut self) -> io::Result<Vec<Event>> {
        self.ending.extend(ending_children().into_iter().map(|child| (child, None)));
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
        let listener = self.accept_at.is_none().then_some(&self.sandbox.listener);
        let listener = listener.map(|listener| (Event::Listener, PollFd::new(listener, PollFlags::IN)));
        let connections = self.connections.iter().map(|(id, connection)| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.has_unsent());
            (Event::Connection(*id), PollFd::from_borrowed_fd(connection.as_fd(), flags))
        });
        let outputs = self.containers.iter().flat_map(|(id, container)| {
            container
                .output()
                .map(|source| (Event::Output(id.clone()), PollFd::from_borrowed_fd(source, PollFlags::IN)))
        });
        let attached = self.containers.iter().flat_map(|(id, container)| {
            container
                .attached()
                .map(|socket| (Event::Attached(id.clone()), PollFd::from_borrowed_fd(socket, PollFlags::empty())))
        });
        let ending = self.ending.iter().filter(|(_, not_before)| not_before.is_none());
        let ending = ending.map(|(child, _)| (Event::Ending, PollFd::new(child, PollFlags::IN)));
        let processes =
            self.sandbox.processes.iter().map(|first| (Event::Processes, PollFd::new(first, PollFlags::IN)));
        let ours = processes.chain(listener).chain(connections);
        lives.chain(commands).chain(ours).chain(outputs).chain(attached).chain(ending).unzip()
    }

    fn timeout(&self) -> Option<Timespec> {
        let containers = self.containers.values().filter_map(Container::wake_at);
        let commands = self.commands.iter().filter_map(Command::wake_at);
        let ending = self.ending.iter().filter_map(|(_, not_before)| *not_before);
        let next = containers.chain(commands).chain(ending).chain(self.accept_at).min()?;
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
            Event::Output(id) => {
                let changed = self.containers.get_mut(&id).is_some_and(|found| found.pump(Moment::now()));
                if changed {
                    self.changed();
                }
            }
            Event::Attached(id) => self.containers.get_mut(&id).into_iter().for_each(Container::let_go),
            Event::Ending => self.reap_ending(),
            // Ends the loop.
            Event::Processes => {}
        }
    }

    fn tick(&mut self) {
        let now = Moment::now();
        let is_due = |at: Option<Moment>| at.is_some_and(|at| at <= now);
        let withheld = self.containers.iter().filter(|(_, container)| is_due(container.look_at()));
        let withheld: Vec<_> = withheld.map(|(id, _)| id.clone()).collect();
        withheld.iter().for_each(|id| self.container_lives(id));
        let withheld = self.commands.iter().filter(|command| is_due(command.look_at()));
        let withheld: Vec<_> = withheld.map(|command| command.asker).collect();
        withheld.into_iter().for_each(|asker| self.command_lives(asker));
        let mut changed = false;
        for container in self.containers.values_mut() {
            container.tick(now);
            changed |= container.settle(now);
        }
        self.commands.iter_mut().for_each(|command| command.tick(now));
        self.end_commands();
        self.accept_at = self.accept_at.filter(|at| *at > now);
        if self.ending.iter().any(|(_, not_before)| is_due(*not_before)) {
            self.reap_ending();
        }
        if changed {
            self.changed();
        }
    }

    /// Reaps what can be reaped of the children that nobody waits for. One that has ended and cannot be is withheld by a
    /// tracer, see [`crate::program`]: it is looked at again later, instead of being polled.
    fn reap_ending(&mut self) {
        let later = Moment::now().after_ms(LATER_MS);
        self.ending.retain_mut(|(child, not_before)| {
            let is_reaped = reap(child).is_some();
            *not_before = is_over(child).then_some(later);
            !is_reaped
        });
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
                        self.reply(asker, Reply::Started { container: record, warnings });
                    }
                    self.tell_changed();
                }
                Err(failure) => {
                    self.containers.remove(id);
                    self.reply(asker, Reply::Failed(failure));
                }
            },
            Phase::Running(process, record) => match process.look(Moment::now()) {
                Look::Lives(process) => container.phase = Phase::Running(process, record),
                Look::Withheld(process) => {
                    container.phase = Phase::Running(process, record);
                    // Its tracer may be among what it has left.
                    container.kill_rest();
                }
                Look::Ended(outcome) => {
                    self.sequence += 1;
                    container.ended(record, outcome, self.sequence, Moment::now());
                }
            },
            other => container.phase = other,
        }
    }

    /// A command's start has got further, or it has ended.
    fn command_lives(&mut self, asker: Asker) {
        let Some(command) = self.commands.iter_mut().find(|command| command.asker == asker) else { return };
        match std::mem::replace(&mut command.phase, CommandPhase::Over) {
            CommandPhase::Launching(launching) => match launching.look() {
                Ok(Launched::Pending(launching)) => command.phase = CommandPhase::Launching(launching),
                Ok(Launched::Running(process, terminal, _)) => command.started(process, terminal.as_ref()),
                Err(failure) => {
                    self.commands.retain(|command| command.asker != asker);
                    self.reply(asker, Reply::Failed(failure));
                }
            },
            CommandPhase::Running(process) => match process.look(Moment::now()) {
                Look::Lives(process) | Look::Withheld(process) => command.phase = CommandPhase::Running(process),
                Look::Ended(outcome) => {
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

    /// Takes one connection, if its owner may speak. Room for it is made by those that have not introduced themselves,
    /// so that nobody keeps the agent out by connecting and saying nothing.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.sandbox.listener, flags) {
            Ok(socket) if is_root(&socket) => {
                if self.connections.len() >= CONNECTIONS {
                    self.drop_oldest_stranger();
                }
                if self.connections.len() < CONNECTIONS {
                    self.connect(Connection::new(socket), false);
                }
            }
            // Whoever may not speak, or gave up meanwhile, is not waited for.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            // No descriptors or no memory: the connection stays in the queue, and polling it would never rest.
            Err(_) => {
                self.drop_oldest_stranger();
                self.accept_at = Some(Moment::now().after_ms(LATER_MS));
            }
        }
    }

    fn drop_oldest_stranger(&mut self) {
        let stranger = self.connections.iter().find(|(_, connection)| !connection.greeted).map(|(id, _)| *id);
        if let Some(id) = stranger {
            self.disconnect(id);
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
        let is_former = |(other, connection): &(&ConnectionId, &Connection)| **other < id || connection.greeted;
        let former = self.connections.iter().filter(|(other, _)| **other != id).filter(is_former);
        let former: Vec<_> = former.map(|(other, _)| *other).collect();
        former.into_iter().for_each(|other| self.disconnect(other));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.greet();
        }
        self.send(id, &FromShim::Hello { version: VERSION, pid: own_pid() });
    }

    /// Forgets a connection; its commands end and its starts are given up, since nobody waits for them.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.containers
            .retain(|_, container| !matches!(container.phase, Phase::Launching(_, asker) if asker.connection == id));
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
