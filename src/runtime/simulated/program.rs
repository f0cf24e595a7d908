//! What a simulated container does.

use std::collections::BTreeMap;
use std::time::Duration;

/// The behaviour of one attempt at a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// How long the start takes.
    pub start_latency: Duration,
    /// Why the start fails, if it does.
    pub start_failure: Option<StartFailure>,
    /// How the program ends by itself; none when it runs until it is stopped.
    pub ending: Option<Ending>,
    /// What it does about the stop signal.
    pub on_stop: OnStop,
    /// What commands inside the container do.
    pub exec: ExecOutcome,
    /// What some commands do instead, by their first word.
    pub commands: BTreeMap<String, ExecOutcome>,
    /// Lines that it writes to its log as soon as it runs.
    pub output: Vec<String>,
}

impl Program {
    /// Runs until it is stopped, and then ends at once with status 0.
    pub fn serves() -> Self {
        Self::default()
    }

    /// Ends by itself after `after` with status `code`.
    pub fn exits(after: Duration, code: i32) -> Self {
        Self { ending: Some(Ending { after, code, ..Ending::default() }), ..Self::default() }
    }

    /// Runs until SIGKILL.
    pub fn ignores_stop() -> Self {
        Self { on_stop: OnStop::Ignores, ..Self::default() }
    }

    /// Does something of its own when `command` is run in it.
    pub fn with_command(mut self, command: &str, outcome: ExecOutcome) -> Self {
        self.commands.insert(command.to_owned(), outcome);
        self
    }

    /// Cannot be started.
    pub fn fails_to_start(failure: StartFailure) -> Self {
        Self { start_failure: Some(failure), ..Self::default() }
    }
}

/// How a program ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Time from its start.
    pub after: Duration,
    /// Exit status; ignored when a signal ends it.
    pub code: i32,
    /// The signal that ends it.
    pub signal: Option<i32>,
    /// Whether the end is blamed on its memory limit; SIGKILL then.
    pub oom_killed: bool,
}

/// What a program does about the stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// Ends with a status, some time after the signal.
    Exits { after: Duration, code: i32 },
    /// Is ended by the signal at once, as a program without a handler.
    Dies,
    /// Goes on.
    Ignores,
}

impl Default for OnStop {
    fn default() -> Self {
        Self::Exits { after: Duration::ZERO, code: 0 }
    }
}

/// Why a container cannot be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The program is not in the image.
    NotFound,
    /// The image is not there any more.
    NoImage,
    /// The user is not in the image.
    UnknownUser,
    /// A step in the kernel failed.
    Step,
}

/// What a command inside a container does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutcome {
    /// How long it takes.
    pub latency: Duration,
    /// Its exit status.
    pub code: i32,
    /// What it writes to standard output.
    pub stdout: Vec<u8>,
    /// What it writes to standard error.
    pub stderr: Vec<u8>,
}
