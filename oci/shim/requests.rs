//! What the agent asks for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use oci::container::{Launch, Script, Stdio, Step, begin, begin_exec};
use oci::protocol::{Exec, Failure, Input, KEPT, Reply, Request, Role, Start, ToShim};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::connection::ConnectionId;
use crate::container::{Command, Container, Kept, Phase, Plumbing};
use crate::group::GroupFiles;
use crate::program::{Launching, Process, failure};
use crate::scribe::{LogPlace, Output};
use crate::server::{Asker, Server};
use crate::setup;
use crate::time::Moment;

/// The descriptors of a [`Start`], by what they are for.
#[derive(Default)]
struct Parts {
    script: Vec<OwnedFd>,
    log_directory: Option<OwnedFd>,
    group: GroupFiles,
}

/// A container's standard streams: our ends and its ends.
struct Streams {
    stdin: Option<OwnedFd>,
    ours: [Option<OwnedFd>; 2],
    its_stdin: OwnedFd,
    its_stdout: OwnedFd,
    its_stderr: OwnedFd,
}

impl Server {
    /// Does what a message says, or closes the connection when it is out of place.
    pub(crate) fn receive(&mut self, from: ConnectionId, message: ToShim, descriptors: Vec<OwnedFd>) {
        match message {
            ToShim::Hello { .. } => self.greet(from),
            ToShim::Request { id, request } if self.is_greeted(from) => {
                self.request(Asker { connection: from, request: id }, request, descriptors);
            }
            ToShim::Request { .. } | ToShim::SetUp(_) => self.disconnect(from),
        }
    }

    fn request(&mut self, asker: Asker, request: Request, descriptors: Vec<OwnedFd>) {
        let reply = match request {
            Request::Start(start) => match self.start(asker, *start, descriptors) {
                Ok(()) => return,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Exec(exec) => match self.exec(asker, &exec, descriptors) {
                Ok(()) => return,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Keep { container, number, script } => match self.keep(&container, number, &script, descriptors) {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Failed(failure),
            },
            Request::ExecKept { container, number, timeout_ms } => {
                match self.exec_kept(asker, (&container, number), timeout_ms, &descriptors) {
                    Ok(()) => return,
                    Err(failure) => Reply::Failed(failure),
                }
            }
            Request::Attach { container, input } => match self.attach(&container, input, descriptors) {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Failed(failure),
            },
            Request::Stop { container, signal, grace_ms } => self.stop(&container, signal, grace_ms),
            Request::Remove { container } => self.remove(&container),
            Request::KillExec { request } => {
                let target = Asker { request, ..asker };
                self.commands.iter_mut().filter(|command| command.asker == target).for_each(Command::kill);
                Reply::Done
            }
            Request::List => Reply::Containers {
                sequence: self.sequence(),
                containers: self.containers.values().filter_map(Container::record).collect(),
            },
            Request::Shutdown => return self.shut_down(asker),
        };
        self.reply(asker, reply);
    }

    fn start(&mut self, asker: Asker, start: Start, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        if self.containers.contains_key(&start.container) {
            return Err(Failure::Exists);
        }
        if self.shutdown.is_some() || !is_plain_name(&start.container) || !is_plain_name(&start.log.name) {
            return Err(Failure::Invalid);
        }
        let mut parts = sort(&start.roles, descriptors)?;
        let script = Script::from_bytes(&start.script).map_err(|_| Failure::Invalid)?;
        let mut own = Vec::new();
        if let Some(place) = start.shared_memory {
            own.push((place, step("copy shared memory", self.copy_shared_memory())?));
        }
        if let Some(place) = start.processes {
            let first = self.sandbox.processes.as_ref().ok_or(Failure::Invalid)?;
            own.push((place, step("copy process namespace", rustix::io::fcntl_dupfd_cloexec(first, 3))?));
        }
        own.sort_by_key(|(place, _)| *place);
        for (place, descriptor) in own {
            let place = usize::from(place);
            if place > parts.script.len() {
                return Err(Failure::Invalid);
            }
            parts.script.insert(place, descriptor);
        }
        let directory = parts.log_directory.ok_or(Failure::Invalid)?;
        let streams = step("make pipes", self.streams(start.stdin))?;
        let stdio = Stdio {
            stdin: streams.its_stdin.as_fd(),
            stdout: streams.its_stdout.as_fd(),
            stderr: streams.its_stderr.as_fd(),
        };
        let fds: Vec<BorrowedFd<'_>> = parts.script.iter().map(AsFd::as_fd).collect();
        let starting =
            begin(&Launch { script: &script, fds: &fds, stdio }).map_err(|error| failure(&error, &script))?;
        let log = LogPlace { directory, options: start.log };
        let output = Output::new(&start.container, log, streams.ours);
        let plumbing = Plumbing { output, stdin: streams.stdin, group: parts.group };
        let container = Container::new(Launching::new(starting, Rc::new(script)), asker, plumbing);
        self.containers.insert(start.container, container);
        Ok(())
    }

    fn copy_shared_memory(&self) -> Result<OwnedFd, Errno> {
        setup::copy_mount(self.sandbox.shared_memory.as_ref().ok_or(Errno::NODEV)?)
    }

    fn streams(&self, open_stdin: bool) -> Result<Streams, Errno> {
        let (out, its_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (err, its_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Only our ends: whether its ends block is the container's business.
        rustix::fs::fcntl_setfl(&out, OFlags::NONBLOCK)?;
        rustix::fs::fcntl_setfl(&err, OFlags::NONBLOCK)?;
        let (its_stdin, stdin) = if open_stdin {
            let (its, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            (its, Some(ours))
        } else {
            (rustix::io::fcntl_dupfd_cloexec(&self.sandbox.null, 0)?, None)
        };
        Ok(Streams { stdin, ours: [Some(out), Some(err)], its_stdin, its_stdout, its_stderr })
    }

    fn exec(&mut self, asker: Asker, exec: &Exec, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        let (_, target) = self.running(&exec.container)?;
        let script = Script::from_bytes(&exec.script).map_err(|_| Failure::Invalid)?;
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let [stdin, stdout, stderr, fds @ ..] = &fds[..] else { return Err(Failure::Invalid) };
        let stdio = Stdio { stdin: *stdin, stdout: *stdout, stderr: *stderr };
        let launch = Launch { script: &script, fds, stdio };
        let starting = begin_exec(&launch, target.as_fd()).map_err(|error| failure(&error, &script))?;
        let has_terminal = script.steps.iter().any(|step| matches!(step, Step::Terminal { .. }));
        let terminal_to = descriptors.into_iter().next().filter(|_| has_terminal);
        let launching = Launching::new(starting, Rc::new(script));
        self.commands.push(Command::new(asker, launching, exec.timeout_ms, terminal_to));
        Ok(())
    }

    fn running(&self, id: &str) -> Result<(&Container, &Process), Failure> {
        let container = self.containers.get(id).ok_or(Failure::NoContainer)?;
        let Phase::Running(process, _) = &container.phase else { return Err(Failure::NoContainer) };
        Ok((container, process))
    }

    fn keep(&mut self, id: &str, number: u8, script: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        self.running(id)?;
        let script = Rc::new(Script::from_bytes(script).map_err(|_| Failure::Invalid)?);
        if number >= KEPT {
            return Err(Failure::Invalid);
        }
        let container = self.containers.get_mut(id).ok_or(Failure::NoContainer)?;
        container.kept.insert(number, Kept { script, descriptors });
        Ok(())
    }

    fn exec_kept(
        &mut self,
        asker: Asker,
        (id, number): (&str, u8),
        timeout_ms: Option<u64>,
        streams: &[OwnedFd],
    ) -> Result<(), Failure> {
        let (container, target) = self.running(id)?;
        let kept = container.kept.get(&number).ok_or(Failure::Invalid)?;
        let [stdout, stderr] = streams else { return Err(Failure::Invalid) };
        let stdio = Stdio { stdin: self.sandbox.null.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let fds: Vec<BorrowedFd<'_>> = kept.descriptors.iter().map(AsFd::as_fd).collect();
        let script = Rc::clone(&kept.script);
        let starting = begin_exec(&Launch { script: &script, fds: &fds, stdio }, target.as_fd());
        let starting = starting.map_err(|error| failure(&error, &script))?;
        self.commands.push(Command::new(asker, Launching::new(starting, script), timeout_ms, None));
        Ok(())
    }

    fn attach(&mut self, id: &str, input: Input, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        self.running(id)?;
        let container = self.containers.get_mut(id).ok_or(Failure::NoContainer)?;
        let socket = descriptors.into_iter().next().ok_or(Failure::Invalid)?;
        container.attach(socket, input).map_err(|error| setup::failure("attach", &error))
    }

    /// Stops a container. One that is not executed yet has nobody who could heed a signal: its start is given up.
    fn stop(&mut self, id: &str, signal: i32, grace_ms: u64) -> Reply {
        let Some(container) = self.containers.get_mut(id) else {
            return Reply::Failed(Failure::NoContainer);
        };
        if let Phase::Launching(_, starter) = container.phase {
            self.containers.remove(id);
            self.reply(starter, Reply::Failed(given_up()));
            return Reply::Done;
        }
        let now = Moment::now();
        container.stop(signal, now.after_ms(grace_ms), now);
        Reply::Done
    }

    /// Forgets an exited container; an unknown one is fine.
    fn remove(&mut self, container: &str) -> Reply {
        match self.containers.get(container).map(|found| &found.phase) {
            Some(Phase::Exited(_)) => {
                self.containers.remove(container);
                Reply::Done
            }
            Some(_) => Reply::Failed(Failure::Runs),
            None => Reply::Done,
        }
    }

    /// Kills everything; the loop answers and ends when all of it has been reaped.
    fn shut_down(&mut self, asker: Asker) {
        self.shutdown = Some(asker);
        self.containers.retain(|_, container| !matches!(container.phase, Phase::Launching(..)));
        self.containers.values_mut().for_each(Container::kill);
        self.commands.iter_mut().for_each(Command::kill);
    }
}

fn sort(roles: &[Role], descriptors: Vec<OwnedFd>) -> Result<Parts, Failure> {
    if roles.len() != descriptors.len() {
        return Err(Failure::Invalid);
    }
    let mut parts = Parts::default();
    for (role, descriptor) in roles.iter().zip(descriptors) {
        match role {
            Role::Script => parts.script.push(descriptor),
            Role::LogDirectory => parts.log_directory = Some(descriptor),
            Role::Processes => parts.group.processes = Some(descriptor),
            Role::Kill => parts.group.kill = Some(descriptor),
            Role::MemoryEvents => parts.group.memory_events = Some(descriptor),
        }
    }
    Ok(parts)
}

/// Why a container that was stopped too early does not run.
fn given_up() -> Failure {
    Failure::Step { step: "wait for program".to_owned(), errno: Errno::CANCELED.raw_os_error() }
}

/// Whether a string names an entry of a directory.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn step<T>(name: &str, result: Result<T, Errno>) -> Result<T, Failure> {
    result.map_err(|errno| setup::failure(name, &errno.into()))
}
