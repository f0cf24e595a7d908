//! A program's terminal: handed over to somebody else, or joined to our own.

use std::io::{IoSlice, stdin, stdout};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context as _;
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Sends the master end to whoever listens on a socket (runc, docs/terminals.md).
pub(crate) fn send(master: &OwnedFd, socket: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot send the terminal to {}", socket.display());
    let stream = UnixStream::connect(socket).with_context(failed)?;
    let rights = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&rights));
    sendmsg(&stream, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).with_context(failed)?;
    Ok(())
}

/// Copies between our standard streams and a program's terminal. Our own terminal passes everything through meanwhile.
#[derive(Debug)]
pub(crate) struct Proxy {
    master: OwnedFd,
    former: Option<Termios>,
    input_open: bool,
    output_open: bool,
}

impl Proxy {
    pub(crate) fn new(master: OwnedFd) -> anyhow::Result<Self> {
        let mut former = None;
        if isatty(stdin()) {
            let present = tcgetattr(stdin()).context("cannot examine the terminal")?;
            let mut raw = present.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Drain, &raw).context("cannot set the terminal")?;
            former = Some(present);
        }
        let proxy = Self { master, former, input_open: true, output_open: true };
        proxy.resize();
        Ok(proxy)
    }

    /// The program's terminal becomes as large as ours.
    pub(crate) fn resize(&self) {
        // Without a terminal of our own there is no size to be had, and the program's stays as it is.
        if let Ok(size) = tcgetwinsize(stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// What there may be something to copy from: its output first, then our input.
    pub(crate) fn readable(&self) -> Vec<BorrowedFd<'_>> {
        let output = self.output_open.then(|| self.master.as_fd());
        let input = self.input_open.then(|| super::foreground::stdio().stdin);
        output.into_iter().chain(input).collect()
    }

    /// Copies from those of [`Self::readable`] that are ready.
    pub(crate) fn copy(&mut self, ready: &[bool]) {
        let mut ready = ready.iter().copied();
        if self.output_open && ready.next() == Some(true) {
            self.output_open = copy(self.master.as_fd(), stdout().as_fd());
        }
        if self.input_open && ready.next() == Some(true) {
            self.input_open = copy(stdin().as_fd(), self.master.as_fd());
            if !self.input_open {
                // What a terminal's user types at the end of input.
                let _ = rustix::io::write(&self.master, &[4]);
            }
        }
    }

    /// Copies what the program has left behind; a terminal whose other end is closed ends with EIO.
    pub(crate) fn drain(&mut self) {
        if rustix::io::ioctl_fionbio(&self.master, true).is_ok() {
            while self.output_open {
                self.output_open = copy(self.master.as_fd(), stdout().as_fd());
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, former);
        }
    }
}

/// Copies once; whether there may be more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    match rustix::io::read(from, &mut buffer) {
        Err(Errno::INTR) => true,
        Ok(length) if length > 0 => write_all(to, &buffer[..length]),
        _ => false,
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
