//! The command line of runc, as far as it is there.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::Signal;

/// Runs containers of OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "coracle oci", bin_name = "coracle oci", version, arg_required_else_help = true)]
pub(crate) struct OciCommand {
    /// Folder of the containers' state
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/coracle-oci")]
    pub(crate) root: PathBuf,
    /// File that errors are also written to
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How a line in that file looks
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container, start it, wait for its end and delete it
    #[command(after_help = "Example: coracle oci run --bundle /srv/web web")]
    Run(Run),
    /// Create a container, whose program waits for `start`
    #[command(after_help = "Example: coracle oci create --bundle /srv/web web")]
    Create(Start),
    /// Start the program of a created container
    #[command(after_help = "Example: coracle oci start web")]
    Start {
        /// The container
        id: String,
    },
    /// Print a container's state as JSON
    #[command(after_help = "Example: coracle oci state web")]
    State {
        /// The container
        id: String,
    },
    /// Send a signal to a container's first process
    #[command(after_help = "Example: coracle oci kill web TERM")]
    Kill {
        /// The container
        id: String,
        /// Name or number of the signal
        #[arg(default_value = "TERM")]
        signal: String,
        /// To all processes of the container
        #[arg(long, short)]
        all: bool,
    },
    /// Delete a container that has ended
    #[command(after_help = "Example: coracle oci delete --force web")]
    Delete {
        /// The container
        id: String,
        /// Kill it if it has not ended; no error if there is none
        #[arg(long, short)]
        force: bool,
    },
    /// Run a further process in a container
    #[command(after_help = "Example: coracle oci exec --tty web sh")]
    Exec(Box<Exec>),
    /// List the containers
    #[command(after_help = "Example: coracle oci list --format json")]
    List {
        /// How the list looks
        #[arg(long, short, value_enum, default_value_t = ListFormat::Table)]
        format: ListFormat,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
    },
}

/// Form of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A line each
    Table,
    /// An array of states
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) start: Start,
    /// Do not wait for its end
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// What all that starts a container needs.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Its name
    pub(crate) id: String,
    /// The folder with its config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What is told of a process that was started.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// File that its process id is written to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that the master end of its terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "process")]
    pub(crate) command: Vec<String>,
    /// File with the process as in a configuration; instead of the options below
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["command", "tty", "env", "cwd", "user", "cap", "additional_gids", "no_new_privs"])]
    pub(crate) process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Add a variable to the environment of the container's first process
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// User, and group
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Add a supplementary group
    #[arg(long, short = 'g', value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Add a capability to all sets but the ambient and inheritable ones
    #[arg(long, short, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Let execve(2) grant no privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Do not wait for its end
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A signal by number, or by name with or without `SIG`.
pub(crate) fn signal(text: &str) -> anyhow::Result<Signal> {
    let found = match text.parse::<i32>() {
        Ok(number) => Signal::from_named_raw(number),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
        }
    };
    match found {
        Some(signal) => Ok(signal),
        None => bail!("{text:?} is no signal"),
    }
}

/// signal(7).
const NAMES: [(&str, Signal); 31] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
    ("SYS", Signal::SYS),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let command = OciCommand::command();
        for sub in command.get_subcommands() {
            assert!(sub.get_after_help().is_some_and(|help| help.to_string().starts_with("Example")));
        }
        command.debug_assert();
    }

    #[test]
    fn signals_have_numbers_and_names() {
        for text in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(signal(text).unwrap(), Signal::KILL);
        }
        for text in ["", "SIG", "0", "65", "NO"] {
            signal(text).unwrap_err();
        }
    }
}
