//! Commands inside containers, with somebody at their streams or with what they say collected.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;
use std::time::Duration;

use oci::container::compile::{compile_exec, open};
use oci::protocol::{Exec, Outcome, Reply, Request};
use oci_spec::runtime::{Process, Spec};
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::foreign::Foreign;
use super::kept::Place;
use super::layout::{CONFIG, read_json};
use super::recover::has_ended;
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::{Node, failed, groups};
use crate::{
    ContainerId, End, ExecResult, ExecSpec, Input, Output, RuntimeError, SandboxId, Session, SessionSpec, Wanted,
};

/// How long to read on after the command has ended: a process that it left behind may hold its output open for ever.
const DRAIN: Duration = Duration::from_millis(200);

/// What is to be run.
struct Order {
    args: Vec<String>,
    timeout: Option<Duration>,
    streams: Wanted,
}

/// A command that is ready to be sent, and our ends of its streams.
struct Prepared {
    exec: Exec,
    descriptors: Vec<OwnedFd>,
    ours: Ours,
}

/// Our ends of a command's streams.
#[derive(Default)]
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Over which its terminal comes.
    terminal: Option<Socket>,
}

/// Runs a command and waits for it; dropping the future kills the command.
pub(super) async fn exec(
    node: &Arc<Node>,
    id: &SandboxId,
    container: &ContainerId,
    wanted: ExecSpec,
) -> Result<ExecResult, RuntimeError> {
    let ExecSpec { args, timeout, output_limit, again } = wanted;
    let command = args.first().cloned().unwrap_or_default();
    let sandbox = check(node, id, container, &args)?;
    let kept = if again { keep(node, &sandbox, container, &args).await? } else { None };
    let (request, descriptors, ours) = match kept {
        Some(number) => {
            let ((stdout, its_stdout), (stderr, its_stderr)) = (output_pipe()?, output_pipe()?);
            let request = Request::ExecKept { container: container.0.clone(), number, timeout_ms: millis(timeout) };
            (
                request,
                vec![its_stdout, its_stderr],
                Ours { stdout: Some(stdout), stderr: Some(stderr), ..Ours::default() },
            )
        }
        None => {
            let streams = Wanted::Pipes { stdin: false, stdout: true, stderr: true };
            let Prepared { exec, descriptors, ours } =
                ready(node, &sandbox, container, Order { args, timeout, streams }).await?;
            (Request::Exec(Box::new(exec)), descriptors, ours)
        }
    };
    let (stdout, stderr) = (receiver(ours.stdout)?, receiver(ours.stderr)?);
    let (reply, stdout, stderr) = collect(sandbox.ask(request, descriptors), (stdout, stderr), output_limit).await;
    let (code, timed_out) = outcome(&sandbox, (container, &command), reply?)?;
    Ok(ExecResult { code: (!timed_out).then_some(code), stdout, stderr })
}

/// Sees to it that the shim keeps a command, if it can; under which number.
async fn keep(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    container: &ContainerId,
    args: &[String],
) -> Result<Option<u8>, RuntimeError> {
    let place = sandbox.live()?.keeps.then(|| sandbox.kept.place(container, args)).flatten();
    let Some(Place { number, is_there }) = place else { return Ok(None) };
    let send = async || {
        let (node, of, at, args) = (Arc::clone(node), Arc::clone(sandbox), container.clone(), args.to_vec());
        let script = task::blocking(move || script(&node, &of, &at, args, false)).await?;
        let request = Request::Keep { container: container.0.clone(), number, script: script.bytes };
        match sandbox.ask(request, script.descriptors).await? {
            Reply::Done => Ok(()),
            Reply::Failed(failure) => Err(sandbox.error(failure, container, "")),
            other => Err(sandbox.protocol_error(&other)),
        }
    };
    is_there.get_or_try_init(send).await?;
    Ok(Some(number))
}

/// Begins a command and returns when its streams are there.
pub(super) async fn open_session(
    node: &Arc<Node>,
    id: &SandboxId,
    container: &ContainerId,
    wanted: SessionSpec,
) -> Result<Session, RuntimeError> {
    let SessionSpec { args, streams } = wanted;
    let command = args.first().cloned().unwrap_or_default();
    let sandbox = check(node, id, container, &args)?;
    let order = Order { args, timeout: None, streams };
    let Prepared { exec, descriptors, ours } = ready(node, &sandbox, container, order).await?;
    let container = container.clone();
    let mut end: End = Box::pin(async move {
        let reply = sandbox.ask(Request::Exec(Box::new(exec)), descriptors).await?;
        outcome(&sandbox, (&container, &command), reply).map(|(code, _)| code)
    });
    let Some(socket) = ours.terminal else {
        let stdin = ours.stdin.map(|pipe| Sender::from_owned_fd(pipe).map(|pipe| Box::new(pipe) as Input));
        let stdin = stdin.transpose().map_err(|source| failed("write input", source))?;
        let output = |pipe: Option<OwnedFd>| pipe.map(|pipe| receiver(Some(pipe)).map(|pipe| Box::new(pipe) as Output));
        let (stdout, stderr) = (output(ours.stdout).transpose()?, output(ours.stderr).transpose()?);
        return Ok(Session { stdin, stdout, stderr, window: None, end });
    };
    let terminal = |source| failed("take over terminal", source);
    socket.set_nonblocking(true).map_err(terminal)?;
    let socket = UnixStream::from_std(socket).map_err(terminal)?;
    let received = tokio::select! {
        biased;
        received = Terminal::receive(&socket) => received,
        ended = &mut end => {
            // It may have ended before anybody looked at its terminal, which has come then all the same.
            let code = ended?;
            end = Box::pin(std::future::ready(Ok(code)));
            Terminal::receive(&socket).await
        }
    };
    let master = match received {
        Ok(master) => master,
        // The other end of the socket is closed when the command could not be executed, too.
        Err(source) => return Err((&mut end).await.err().unwrap_or_else(|| terminal(source))),
    };
    let stdin = matches!(streams, Wanted::Terminal { stdin: true }).then(|| master.input());
    let (stdin, stdout) = (stdin.transpose().map_err(terminal)?, Some(master.output().map_err(terminal)?));
    Ok(Session { stdin, stdout, stderr: None, window: Some(Box::new(master)), end })
}

/// Finds a sandbox in which such a command can be run.
fn check(node: &Node, id: &SandboxId, container: &ContainerId, args: &[String]) -> Result<Arc<Sandbox>, RuntimeError> {
    let sandbox = node.find(id)?;
    sandbox.live()?;
    let no_container = || RuntimeError::NoContainer { container: container.clone() };
    if has_ended(&sandbox.container(container).ok_or_else(no_container)?.record) {
        return Err(no_container());
    }
    if args.is_empty() {
        return Err(RuntimeError::Invalid { message: "no command specified".to_owned() });
    }
    Ok(sandbox)
}

/// Prepares a command.
async fn ready(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    container: &ContainerId,
    order: Order,
) -> Result<Prepared, RuntimeError> {
    let (node, of, container) = (Arc::clone(node), Arc::clone(sandbox), container.clone());
    task::blocking(move || prepare(&node, &of, &container, order)).await
}

/// The exit status that a reply tells of, and whether the timeout was the reason.
fn outcome(
    sandbox: &Sandbox,
    (container, command): (&ContainerId, &str),
    reply: Reply,
) -> Result<(i32, bool), RuntimeError> {
    match reply {
        Reply::Exited { outcome: Outcome::Code(code), timed_out } => Ok((code, timed_out)),
        Reply::Exited { outcome: Outcome::Signal(signal), timed_out } => Ok((128 + signal, timed_out)),
        Reply::Failed(failure) => Err(sandbox.error(failure, container, command)),
        other => Err(sandbox.protocol_error(&other)),
    }
}

fn receiver(pipe: Option<OwnedFd>) -> Result<Receiver, RuntimeError> {
    let pipe = pipe.ok_or_else(|| failed("read output", io::Error::from(io::ErrorKind::NotFound)))?;
    Receiver::from_owned_fd(pipe).map_err(|source| failed("read output", source))
}

/// Waits for the reply while reading both streams, and then for the rest of them.
async fn collect<F: Future>(asked: F, streams: (Receiver, Receiver), limit: usize) -> (F::Output, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let reply = {
        let reading = async {
            tokio::join!(read_start(streams.0, &mut stdout, limit), read_start(streams.1, &mut stderr, limit))
        };
        tokio::pin!(reading);
        tokio::pin!(asked);
        tokio::select! {
            reply = &mut asked => {
                // Beyond this, what is read is what a process left behind writes.
                let _ = tokio::time::timeout(DRAIN, reading).await;
                reply
            }
            _ = &mut reading => asked.await,
        }
    };
    (reply, stdout, stderr)
}

/// Reads a stream to its end and keeps its beginning.
async fn read_start(mut stream: Receiver, kept: &mut Vec<u8>, limit: usize) {
    let mut buffer = vec![0; 8192];
    // An error of a pipe is the end of what can be had from it.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn prepare(node: &Node, sandbox: &Sandbox, container: &ContainerId, wanted: Order) -> Result<Prepared, RuntimeError> {
    let Order { args, timeout, streams } = wanted;
    let script = script(node, sandbox, container, args, matches!(streams, Wanted::Terminal { .. }))?;
    let (mut descriptors, ours) = connect(streams)?;
    descriptors.extend(script.descriptors);
    let exec = Exec { container: container.0.clone(), script: script.bytes, timeout_ms: millis(timeout) };
    Ok(Prepared { exec, descriptors, ours })
}

fn millis(timeout: Option<Duration>) -> Option<u64> {
    timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
}

/// What becomes a process of the container, but for its standard streams.
struct CommandScript {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

fn script(
    node: &Node,
    sandbox: &Sandbox,
    container: &ContainerId,
    args: Vec<String>,
    has_terminal: bool,
) -> Result<CommandScript, RuntimeError> {
    let config = node.layout.container(sandbox.id(), container).join(CONFIG);
    let spec: Option<Spec> = read_json(&config).map_err(|source| failed("read container configuration", source))?;
    let no_container = || RuntimeError::NoContainer { container: container.clone() };
    let spec = spec.ok_or_else(no_container)?;
    let mut process = spec.process().clone().ok_or_else(no_container)?;
    process.set_args(Some(args));
    process.set_terminal(Some(has_terminal));
    if has_terminal {
        name_terminal(&mut process);
    }
    let directory = node.layout.container(sandbox.id(), container);
    let compiled = match node.other_runtime(&sandbox.record.spec)? {
        Some(_) if has_terminal => {
            let message = "another runtime's containers have no terminals for commands".to_owned();
            return Err(RuntimeError::Invalid { message });
        }
        Some(program) => Foreign { program, directory: &directory, id: container }.exec(&process)?,
        None => {
            let compiled = compile_exec(&spec, &process, &node.host);
            compiled.map_err(|error| RuntimeError::Invalid { message: error.to_string() })?
        }
    };
    let group = groups::container(&node.host.cgroups, &sandbox.record.spec, container)?;
    let joins = group.open_joins().map_err(groups::cgroup_failed)?;
    let opened = open(&compiled.descriptors, None, &joins);
    let descriptors = opened.map_err(|error| failed("open what the command needs", io::Error::other(error)))?;
    let bytes = compiled.script.to_bytes().map_err(|error| failed("write script", io::Error::other(error)))?;
    Ok(CommandScript { bytes, descriptors })
}

/// Says what kind of terminal there is, as other runtimes do, unless the container knows.
fn name_terminal(process: &mut Process) {
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
        process.set_env(Some(env));
    }
}

/// A pipe for what a command writes: our end, which does not block, and its.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), RuntimeError> {
    let (ours, its) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make pipe", errno))?;
    rustix::io::ioctl_fionbio(&ours, true).map_err(|errno| failed("make pipe", errno))?;
    Ok((ours, its))
}

/// What a pipe of a session holds: several pieces, so that the command goes on while one is under way to the client. Linux
/// takes memory for what is in it only (pipe(7)).
const HOLDS: usize = 256 << 10;

/// A pipe that holds more than the usual 64 KiB, where its user may have that.
fn widen(pipe: &OwnedFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, HOLDS);
}

/// A command's ends of its streams, and ours, which do not block.
fn connect(streams: Wanted) -> Result<(Vec<OwnedFd>, Ours), RuntimeError> {
    let null = || File::open("/dev/null").map(OwnedFd::from).map_err(|source| failed("open null device", source));
    let Wanted::Pipes { stdin, stdout, stderr } = streams else {
        let (ours, its) = Socket::pair().map_err(|source| failed("make socket", source))?;
        let ours = Ours { terminal: Some(ours), ..Ours::default() };
        return Ok((vec![its.into(), null()?, null()?], ours));
    };
    let output = |is_wanted: bool| is_wanted.then(output_pipe).transpose().map(Option::unzip);
    let input = stdin.then(|| rustix::pipe::pipe_with(PipeFlags::CLOEXEC)).transpose();
    let (its_stdin, stdin) = input.map_err(|errno| failed("make pipe", errno))?.unzip();
    let ((stdout, its_stdout), (stderr, its_stderr)) = (output(stdout)?, output(stderr)?);
    if let Some(stdin) = &stdin {
        rustix::io::ioctl_fionbio(stdin, true).map_err(|errno| failed("make pipe", errno))?;
    }
    stdin.iter().chain(&stdout).for_each(widen);
    let its = [its_stdin, its_stdout, its_stderr].into_iter().map(|end| end.map_or_else(null, Ok));
    Ok((its.collect::<Result<_, _>>()?, Ours { stdin, stdout, stderr, terminal: None }))
}
