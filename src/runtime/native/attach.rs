//! Somebody at the standard streams of a container.
//!
//! What a container says goes to its log and nowhere else, so that no reader can hold it up: who is attached reads there.
//! The shim hands over the container's input, if there is one, and learns by the end of a socket that somebody has gone,
//! also when that was the whole agent. What only one may have (`stdinOnce`) is handed over and not kept, so that the kernel
//! ends the container's input with whoever had it.

use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;

use oci::protocol::{Input, Reply, Request};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;

use super::terminal::{Terminal, take_both};
use super::{Node, failed};
use crate::{Attachment, ContainerId, RuntimeError, SandboxId, Typing, Window};

/// Takes part in a container.
pub(super) async fn attach(
    node: &Arc<Node>,
    id: &SandboxId,
    container: &ContainerId,
    typing: Typing,
) -> Result<Attachment, RuntimeError> {
    let sandbox = node.find(id)?;
    if !sandbox.live()?.attaches {
        let message = "the pod was started by an earlier release, whose containers cannot be attached to".to_owned();
        return Err(RuntimeError::Invalid { message });
    }
    let broken = |source| failed("attach", source);
    let (ours, its) = Socket::pair().map_err(broken)?;
    let input = match typing {
        Typing::Not => Input::Not,
        Typing::Shared => Input::Shared,
        Typing::Whole => Input::Whole,
    };
    let request = Request::Attach { container: container.0.clone(), input };
    match sandbox.ask(request, vec![its.into()]).await? {
        Reply::Done => {}
        Reply::Failed(failure) => return Err(sandbox.error(failure, container, "")),
        other => return Err(sandbox.protocol_error(&other)),
    }
    ours.set_nonblocking(true).map_err(broken)?;
    let mut socket = UnixStream::from_std(ours).map_err(broken)?;
    let (byte, given) = socket.async_io(tokio::io::Interest::READABLE, || take_both(&socket)).await.map_err(broken)?;
    let (stdin, window) = match given {
        Some(terminal) if rustix::termios::isatty(&terminal) => {
            let terminal = Terminal::new(terminal).map_err(broken)?;
            let stdin = (typing != Typing::Not).then(|| terminal.input()).transpose().map_err(broken)?;
            (stdin, Some(Box::new(terminal) as Box<dyn Window>))
        }
        Some(pipe) => (Some(Box::new(Sender::from_owned_fd(pipe).map_err(broken)?) as crate::Input), None),
        None => (None, None),
    };
    let end = Box::pin(async move {
        // Nothing more is said; whatever happens to it, it is the end.
        let _: io::Result<usize> = socket.read(&mut [0]).await;
    });
    Ok(Attachment { stdin, window, is_first: byte == 1, end })
}
