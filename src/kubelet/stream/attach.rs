//! `attach` of the kubelet's API: a client at the standard streams of a container.
//!
//! What the container says comes from its log, which is written without delay as long as somebody is attached: a client that
//! does not read stops nobody, and the log lacks nothing. Clients see what is said from the moment on at which they
//! attached; the first at the input of a container that is there for one conversation (`stdinOnce`) sees all of it, since
//! otherwise what it said before its client could attach would be lost, and with it a prompt or the whole of a short answer.
//!
//! The end of input is that of `AttachContainer` of containerd (internal/cri/io/container_io.go): it ends the input of a
//! container that is there for one conversation, and the attachment to any other one.

use std::sync::Arc;

use bytes::Bytes;
use client::Body;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer};
use runtime::{Attachment, Runtime, RuntimeError, Typing, Wanted};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::asked::{self, Named, Running};
use super::{Input, Output, converse, status};
use crate::directory::Directories;
use crate::logs::{Follower, From};
use crate::serve::Refusal;
use crate::shared::{Entry, Shared};

/// Lets a client take part in a container.
pub(crate) async fn attach(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
    named: Named<'_>,
) -> Result<Response<Body>, Refusal> {
    let streams = asked::streams(request.uri().query().unwrap_or_default())?;
    let entry = asked::pod(shared, named)?;
    let to = asked::running(shared, &entry, named.container).await?;
    let stdio = Stdio::of(&entry, named.container);
    let wanted = match streams {
        Wanted::Terminal { stdin } => Heard { stdin, stdout: true, stderr: false },
        Wanted::Pipes { stdin, stdout, stderr } => Heard { stdin, stdout, stderr },
    };
    let (runtime, directories) = (Arc::clone(&shared.seams.runtime), shared.directories.clone());
    converse(shared, request, ("attach", streams), move |from_client, to_client| async move {
        let end = match begin((runtime.as_ref(), &directories), &to, stdio.typing(wanted.stdin)).await {
            Ok(begun) => take_part(begun, (stdio, wanted), from_client, &to_client).await,
            Err(error) => Some(Err(error)),
        };
        if let Some(end) = end {
            // A client that has gone need not know.
            let _ = to_client.send(Output::Status(status::of_attachment(&end))).await;
        }
    })
}

/// What a client wants to be at.
#[derive(Debug, Clone, Copy)]
struct Heard {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// How a container's specification says that its input is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stdio {
    stdin: bool,
    stdin_once: bool,
    tty: bool,
}

impl Stdio {
    fn of(entry: &Entry, name: &str) -> Self {
        let Some(spec) = &entry.pod.spec else { return Self::default() };
        let own = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let own = own.filter(|container| container.name == name).map(|container: &Container| {
            let Container { stdin, stdin_once, tty, .. } = container;
            (*stdin, *stdin_once, *tty)
        });
        let debug = spec.ephemeral_containers.iter().flatten().filter(|container| container.name == name);
        let debug = debug.map(|container: &EphemeralContainer| {
            let EphemeralContainer { stdin, stdin_once, tty, .. } = container;
            (*stdin, *stdin_once, *tty)
        });
        let (stdin, stdin_once, tty) = own.chain(debug).next().unwrap_or_default();
        let is = |flag: Option<bool>| flag.unwrap_or(false);
        Self { stdin: is(stdin), stdin_once: is(stdin_once), tty: is(tty) }
    }
    /// What to ask of its input.
    fn typing(self, is_wanted: bool) -> Typing {
        match self {
            Self { stdin: true, stdin_once: true, .. } if is_wanted => Typing::Whole,
            Self { stdin: true, .. } if is_wanted => Typing::Shared,
            _ => Typing::Not,
        }
    }

    /// Whether the container's input ends with that of its client.
    fn ends_with_client(self) -> bool {
        self.stdin_once && !self.tty
    }
}

/// Somebody who is attached, and what there is to be seen.
struct Begun {
    attachment: Attachment,
    log: Follower,
}

async fn begin(
    (runtime, directories): (&dyn Runtime, &Directories),
    to: &Running,
    typing: Typing,
) -> Result<Begun, RuntimeError> {
    let broken = |source| RuntimeError::Step { step: "follow log".to_owned(), source };
    // Before the attachment, so that nothing said in between is missed.
    let log = Follower::new(directories, &to.log, From::Now).await.map_err(broken)?;
    let attachment = runtime.attach(&to.sandbox, &to.id, typing).await?;
    if typing == Typing::Whole && attachment.is_first {
        let log = Follower::new(directories, &to.log, From::Beginning).await.map_err(broken)?;
        return Ok(Begun { attachment, log });
    }
    Ok(Begun { attachment, log })
}

/// Talks until the container or the client's part has ended; none if the client is gone.
async fn take_part(
    Begun { attachment, mut log }: Begun,
    (stdio, wanted): (Stdio, Heard),
    from_client: mpsc::Receiver<Input>,
    to_client: &mpsc::Sender<Output>,
) -> Option<Result<(), RuntimeError>> {
    let Attachment { stdin, window, end, .. } = attachment;
    let typing = type_in(stdin, window, (stdio, from_client));
    tokio::pin!(typing);
    let listening = listen(&mut log, wanted, end, to_client);
    tokio::pin!(listening);
    let broken = |source| RuntimeError::Step { step: "follow log".to_owned(), source };
    tokio::select! {
        heard = &mut listening => heard.map_err(broken).transpose(),
        typed = &mut typing => match typed {
            Typed::All => Some(Ok(())),
            Typed::Gone => None,
        },
        () = to_client.closed() => None,
    }
}

/// Why a client types no more.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    /// It has said all it had to say.
    All,
    Gone,
}

/// Passes on what the client says.
async fn type_in(
    mut stdin: Option<runtime::Input>,
    window: Option<Box<dyn runtime::Window>>,
    (stdio, mut from_client): (Stdio, mpsc::Receiver<Input>),
) -> Typed {
    while let Some(said) = from_client.recv().await {
        match said {
            Input::Stdin(bytes) => {
                if let Some(open) = &mut stdin
                    && open.write_all(&bytes).await.is_err()
                {
                    // The container has closed its end, and may go on without.
                    stdin = None;
                }
            }
            Input::EndOfStdin if stdio.ends_with_client() => stdin = None,
            Input::EndOfStdin if stdio.stdin => return Typed::All,
            Input::EndOfStdin => {}
            Input::Resize(size) => window.iter().for_each(|window| window.resize(size)),
        }
    }
    Typed::Gone
}

/// Tells the client what the container says, to its last word; none if the client is gone.
async fn listen(
    log: &mut Follower,
    wanted: Heard,
    mut end: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    to_client: &mpsc::Sender<Output>,
) -> std::io::Result<Option<()>> {
    let mut has_ended = false;
    loop {
        while let Some(written) = log.next().await? {
            let parts = [
                (wanted.stdout, Output::Stdout as fn(Bytes) -> Output, written.stdout),
                (wanted.stderr, Output::Stderr, written.stderr),
            ];
            for (_, name, bytes) in parts.into_iter().filter(|(is_wanted, _, bytes)| *is_wanted && !bytes.is_empty()) {
                if to_client.send(name(bytes.into())).await.is_err() {
                    return Ok(None);
                }
            }
        }
        if has_ended {
            return Ok(Some(()));
        }
        tokio::select! {
            () = log.changed() => {}
            () = &mut end => has_ended = true,
        }
    }
}

#[cfg(test)]
mod tests;
