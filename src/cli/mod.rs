//! The command line and the compositions behind it: the only code that sees all parts.
//!
//! `anyhow` and printing to standard output are allowed here and nowhere else. Invariant: a command either does what it
//! says and exits with 0, or prints one sentence with its chain of causes to standard error and exits with 1 (2 for a
//! wrong command line).

mod addresses;
mod agent;
mod bridge;
mod cluster;
mod doctor;
mod image;
mod instance;
mod logs;
mod names;
mod node;
mod oci;
mod reset;
mod server;
mod settings;
mod snapshot;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use self::instance::Instance;
use self::logs::LogOptions;

/// A whole Kubernetes node in one small binary.
#[derive(Debug, Parser)]
#[command(name = "coracle", disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    logs: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run control plane and node
    #[command(after_help = "Example: coracle server --node-name edge-1 --pod-cidr 10.42.0.0/24")]
    Server(Box<server::ServerArguments>),
    /// Run a node of a cluster whose control plane is elsewhere
    #[command(after_help = "Example: coracle agent --server https://192.0.2.1:6443 --token-file /etc/coracle/token")]
    Agent(Box<agent::AgentArguments>),
    /// Let machines join the cluster of this host's server
    Token {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Work with the images of this node
    Image {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// Print a kubeconfig for the server of this host
    #[command(after_help = "Example: coracle kubeconfig > ~/.kube/config")]
    Kubeconfig(Root),
    /// Check whether this host can run pods; every failed check names its remedy
    #[command(after_help = "Example: coracle doctor")]
    Doctor(doctor::DoctorArguments),
    /// Save all objects of the cluster to a file, or go back to them
    Snapshot {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        command: snapshot::SnapshotCommand,
    },
    /// Make the host as it was before Coracle: ends all pods and removes all state
    #[command(after_help = "Example: coracle reset --yes")]
    Reset(reset::ResetArguments),
    /// Run containers of OCI bundles; see `coracle oci --help`
    #[command(after_help = "Example: coracle oci run --bundle /srv/web web", disable_help_flag = true)]
    Oci {
        /// A command of `coracle oci`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print the version
    #[command(after_help = "Example: coracle version")]
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example: coracle completion bash > /etc/bash_completion.d/coracle")]
    Completion {
        /// The shell that is to be taught
        shell: clap_complete::Shell,
    },
}

/// Which instance a command means.
#[derive(Debug, Clone, Args)]
struct Root {
    /// Folder of all durable state; another folder is another instance [default: /var/lib/coracle]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Root {
    fn instance(&self) -> anyhow::Result<Instance> {
        Instance::new(self.root.as_deref())
    }
}

/// Parses the command line, runs the command and turns its error into text and exit code.
pub(crate) fn main() -> ExitCode {
    // Before anything else, because a container's start must not wait for what only a node needs.
    if let Some(arguments) = oci::called(std::env::args_os()) {
        return oci::main(arguments);
    }
    let cli = Cli::parse();
    if let Command::Oci { arguments } = cli.command {
        return oci::main(arguments);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            eprintln!("coracle: {}", causes.join(": "));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what these commands print is their product")]
fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Server(arguments) => arguments.run(&cli.logs),
        Command::Agent(arguments) => arguments.run(&cli.logs),
        Command::Token { root, command } => {
            cli.logs.start()?;
            one_thread()?.block_on(token::run(command, &root))
        }
        Command::Image { root, command } => {
            cli.logs.start()?;
            one_thread()?.block_on(image::run(command, &root.instance()?.root))
        }
        Command::Kubeconfig(root) => {
            print!("{}", root.instance()?.kubeconfig()?);
            Ok(())
        }
        Command::Doctor(arguments) => one_thread()?.block_on(doctor::run(&arguments)),
        Command::Reset(arguments) => {
            cli.logs.start()?;
            one_thread()?.block_on(arguments.run())
        }
        Command::Snapshot { root, command } => {
            cli.logs.start()?;
            one_thread()?.block_on(snapshot::run(command, &root))
        }
        Command::Oci { .. } => unreachable!("main has taken it"),
        Command::Version => {
            println!("coracle {}", env!("CARGO_PKG_VERSION"));
            println!("kubernetes {}", server::KUBERNETES_VERSION);
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn one_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let has_example = sub.get_after_help().is_some_and(|help| help.to_string().starts_with("Example"));
                assert!(has_example || sub.has_subcommands(), "{} has no example", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
