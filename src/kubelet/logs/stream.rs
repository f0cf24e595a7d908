//! Reading a log from its first wanted line, and following it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use runtime::{ContainerId, ContainerState, Runtime, SandboxId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::files::Files;
use super::query::Query;
use super::record::{Record, first_line};
use crate::directory::Directories;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// The longest line that is waited for; a longer one is cut.
const LONGEST_LINE: usize = 1024 * 1024;

/// When to end following.
pub(crate) struct Ending {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) sandbox: SandboxId,
    pub(crate) container: ContainerId,
    pub(crate) directories: Directories,
}

impl Ending {
    /// Waits until the container does not run any more.
    async fn reached(&self) {
        let mut changes = self.runtime.changes();
        while self.runs().await {
            loop {
                match changes.recv().await {
                    Ok(changed) if changed.0 != self.sandbox => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    async fn runs(&self) -> bool {
        let Ok(Some(status)) = self.runtime.status(&self.sandbox).await else { return false };
        let own = status.containers.iter().find(|container| container.id == self.container);
        own.is_some_and(|own| matches!(own.state, ContainerState::Running { .. }))
    }
}

/// Sends what is wanted of the log at `log` until its end, or until the container's end if it is to be followed, or
/// until nobody listens.
pub(crate) async fn stream(log: PathBuf, query: Query, ending: Option<Ending>, out: mpsc::Sender<io::Result<Bytes>>) {
    let closed = out.clone();
    tokio::select! {
        result = send_all(&log, query, ending, &out) => {
            if let Err(error) = result {
                tracing::warn!(log = %log.display(), %error, "log broke off");
                // Nobody listens any more if this fails.
                let _ = out.send(Err(error)).await;
            }
        }
        () = closed.closed() => {}
    }
}

async fn send_all(
    log: &Path,
    query: Query,
    ending: Option<Ending>,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let ending = ending.filter(|_| query.follow);
    // Watched before the first read, so that nothing written in between is missed.
    let watch = match (&ending, log.parent()) {
        (Some(ending), Some(parent)) => Some(ending.directories.watch(parent)?),
        _ => None,
    };
    let log = log.to_owned();
    let mut reader = task::blocking(move || Reader::open(log, query)).await?;
    if !drain(&mut reader, out).await? {
        return Ok(());
    }
    let (Some(mut watch), Some(ending)) = (watch, ending) else { return Ok(()) };
    let mut ended = std::pin::pin!(ending.reached());
    loop {
        let last = tokio::select! {
            biased;
            () = watch.changed() => false,
            () = &mut ended => true,
        };
        if !drain(&mut reader, out).await? || last {
            return Ok(());
        }
    }
}

/// Sends all that is there; false when no more is wanted.
async fn drain(reader: &mut Reader, out: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<bool> {
    loop {
        let mut own = std::mem::take(reader);
        let (read, own) = task::blocking(move || (own.next(), own)).await;
        *reader = own;
        let Some(bytes) = read? else { return Ok(!reader.is_full()) };
        if !bytes.is_empty() && out.send(Ok(bytes.into())).await.is_err() {
            return Ok(false);
        }
        if reader.is_full() {
            return Ok(false);
        }
    }
}

/// Reads through the files of a log.
#[derive(Default)]
struct Reader {
    query: Query,
    files: Files,
    /// What was read and not rendered: between two reads a line whose end has not been read.
    pending: Vec<u8>,
    /// Lines to be left out at the beginning.
    skip: usize,
    sent: usize,
}

impl Reader {
    fn open(log: PathBuf, query: Query) -> io::Result<Self> {
        let files = Files::open(log)?;
        let mut reader = Self { query, files, ..Self::default() };
        if let Some(tail) = reader.query.tail {
            reader.skip = reader.files.count_lines(&mut vec![0; CHUNK])?.saturating_sub(tail);
        }
        Ok(reader)
    }

    fn is_full(&self) -> bool {
        self.query.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// The next piece of what is wanted; none at the end of what is there.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; CHUNK];
        let length = self.files.read(&mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        buffer.truncate(length);
        if self.pending.is_empty() {
            self.pending = buffer;
        } else {
            self.pending.extend_from_slice(&buffer);
        }
        Ok(Some(self.take()))
    }

    /// Renders the lines that are complete and wanted.
    fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.pending.len());
        let mut start = 0;
        while let Some(line) = first_line(self.pending.get(start..).unwrap_or_default()) {
            start += line.len() + 1;
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            if let Some(record) = Record::parse(line).filter(|record| self.query.admits(record)) {
                record.render(self.query.timestamps, &mut out);
            }
        }
        // Not drain(): memory is kept for incomplete lines only.
        self.pending = self.pending.split_off(start);
        if self.pending.len() > LONGEST_LINE {
            self.pending.clear();
        }
        if let Some(limit) = self.query.limit {
            out.truncate(limit.saturating_sub(self.sent));
        }
        self.sent = self.sent.saturating_add(out.len());
        out
    }
}

#[cfg(test)]
mod tests;
