//! Waiting for a program: signals are passed on to it, its end becomes ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oci::container::{Started, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::terminal::Proxy;

/// Signals that are not meant for us: all but those that tell of this process's own faults, of its children and terminal.
const OURS: [NixSignal; 9] = [
    NixSignal::SIGSEGV,
    NixSignal::SIGBUS,
    NixSignal::SIGILL,
    NixSignal::SIGFPE,
    NixSignal::SIGTRAP,
    NixSignal::SIGCHLD,
    NixSignal::SIGTTIN,
    NixSignal::SIGTTOU,
    NixSignal::SIGPIPE,
];

/// Holds signals back until there is somebody to pass them on to.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: SignalFd,
}

/// This process's own standard streams.
pub(crate) fn stdio() -> Stdio<'static> {
    Stdio { stdin: rustix::stdio::stdin(), stdout: rustix::stdio::stdout(), stderr: rustix::stdio::stderr() }
}

impl Foreground {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut mask = SigSet::all();
        for signal in OURS {
            mask.remove(signal);
        }
        mask.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { signals: signals.context("cannot receive signals")? })
    }

    /// Waits for the end of a child and returns what to exit with.
    pub(crate) fn wait(self, process: &Started, terminal: Option<OwnedFd>) -> anyhow::Result<u8> {
        let mut proxy = terminal.map(Proxy::new).transpose()?;
        loop {
            let (process_fd, signals) = (process.pidfd.as_fd(), self.signals.as_fd());
            let mut events = vec![PollFd::new(&process_fd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            let streams: Vec<BorrowedFd<'_>> = proxy.iter().flat_map(Proxy::readable).collect();
            events.extend(streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
            match poll(&mut events, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.context("cannot wait")?,
            };
            let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
            if ready[1] {
                self.pass_on(process, proxy.as_ref());
            }
            if let Some(proxy) = &mut proxy {
                proxy.copy(&ready[2..]);
            }
            if ready[0] {
                if let Some(proxy) = &mut proxy {
                    proxy.drain();
                }
                return exit_code(process);
            }
        }
    }

    fn pass_on(&self, process: &Started, proxy: Option<&Proxy>) {
        while let Ok(Some(received)) = self.signals.read_signal() {
            let Some(signal) = i32::try_from(received.ssi_signo).ok().and_then(Signal::from_named_raw) else {
                continue;
            };
            match (signal, proxy) {
                (Signal::WINCH, Some(proxy)) => proxy.resize(),
                // It may have ended just now.
                _ => drop(pidfd_send_signal(&process.pidfd, signal)),
            }
        }
    }
}

fn exit_code(process: &Started) -> anyhow::Result<u8> {
    let status = waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED).context("cannot wait")?;
    let status = status.context("the process has vanished")?;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(255)).unwrap_or(255))
}
