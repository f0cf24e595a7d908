//! `coracle oci`: a runtime for OCI bundles with the command line of runc.
//!
//! A program of its own, small and static, because half of the time and memory of a command of a moment is its own start.
//! It is embedded in `coracle`, which hands over to it before anything else (`src/cli/oci.rs`); called as a file by itself
//! it is the same runtime.
//!
//! Parses flags, lends its standard streams or a terminal, and waits where that was asked for; what a container is and
//! what becomes of it is [`oci::lifecycle`]. It starts no asynchronous runtime and no logging. Invariant: `run` and `exec`
//! exit with the code of the program, or 128 and the number of the signal that ended it; everything else exits with 0 or,
//! with one sentence on standard error (and in `--log`), with 1, or 255 if `exec` could not start anything.

mod arguments;
mod exec;
mod foreground;
mod terminal;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use jiff::Timestamp;
use oci::lifecycle::{Containers, Create, Created, Force, Record, Status, When, Whom};
use serde_json::json;

use self::arguments::{Command, ListFormat, LogFormat, OciCommand, Output, Start};

/// What an unsuccessful `exec` exits with, unlike a program that fails.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let cli = OciCommand::parse();
    let failure = if matches!(cli.command, Command::Exec(_)) { EXEC_FAILED } else { 1 };
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            report(&cli, "error", &causes.join(": "));
            ExitCode::from(failure)
        }
    }
}

/// Says it on standard error and in the log, which is what whoever calls a runtime reads.
fn report(cli: &OciCommand, level: &str, message: &str) {
    eprintln!("coracle oci: {message}");
    let Some(path) = &cli.log else { return };
    let line = match cli.log_format {
        LogFormat::Text => format!("time=\"{}\" level={level} msg={message:?}\n", now()),
        LogFormat::Json => format!("{}\n", json!({"level": level, "msg": message, "time": now().to_string()})),
    };
    let written = OpenOptions::new().append(true).create(true).open(path).and_then(|mut log| {
        // In one call, so that lines of several runtimes do not mix.
        log.write_all(line.as_bytes())
    });
    if let Err(error) = written {
        eprintln!("coracle oci: cannot write to {}: {error}", path.display());
    }
}

#[expect(clippy::disallowed_methods, reason = "a command of a moment; nothing of it is simulated")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn run(cli: &OciCommand) -> anyhow::Result<u8> {
    if matches!(cli.command, Command::Run(_) | Command::Create(_) | Command::Exec(_)) {
        oci::container::sealed::seal_own_program().context("cannot seal the program against its containers")?;
    }
    let containers = Containers::new(&cli.root);
    match &cli.command {
        Command::Run(run) => {
            let detached = run.detach;
            return start(cli, &containers, &run.start, When::Now, detached);
        }
        Command::Create(create) => return start(cli, &containers, create, When::Told, true),
        Command::Start { id } => containers.start(id)?,
        Command::State { id } => print(&state(&containers, &containers.record(id)?)?)?,
        Command::Kill { id, signal, all } => {
            let whom = if *all { Whom::All } else { Whom::First };
            containers.kill(id, arguments::signal(signal)?, whom)?;
        }
        Command::Delete { id, force } => containers.delete(id, if *force { Force::Yes } else { Force::No })?,
        Command::Exec(exec) => return exec::run(cli, &containers, exec),
        Command::List { format, quiet } => list(&containers, *format, *quiet)?,
    }
    Ok(0)
}

/// `run` and `create`.
fn start(cli: &OciCommand, containers: &Containers, start: &Start, when: When, detached: bool) -> anyhow::Result<u8> {
    let foreground = foreground::Foreground::new()?;
    let id = &start.id;
    let stdio = foreground::stdio();
    let created = containers.create(&Create { id, bundle: &start.bundle, when, stdio })?;
    let done = after(cli, &start.output, created, detached, foreground);
    if done.is_err() || !detached {
        containers.delete(id, Force::Yes)?;
    }
    done
}

/// What follows once a program runs, or waits to.
fn after(
    cli: &OciCommand,
    output: &Output,
    created: Created,
    detached: bool,
    foreground: foreground::Foreground,
) -> anyhow::Result<u8> {
    for warning in &created.warnings {
        report(cli, "warning", warning);
    }
    if let Some(path) = &output.pid_file {
        write_pid(path, created.process.pid)?;
    }
    let mut process = created.process;
    let terminal = process.terminal.take();
    let terminal = match (terminal, &output.console_socket) {
        (Some(master), Some(socket)) => {
            terminal::send(&master, socket)?;
            None
        }
        (None, Some(_)) => anyhow::bail!("--console-socket is for a process with a terminal"),
        (Some(_), None) if detached => {
            anyhow::bail!("a process with a terminal that is left alone needs --console-socket")
        }
        (terminal, None) => terminal,
    };
    if detached { Ok(0) } else { foreground.wait(&process, terminal) }
}

/// Whoever reads the file finds a whole number in it.
fn write_pid(path: &Path, pid: i32) -> anyhow::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, pid.to_string())
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The state in the words of the specification (runtime.md, "State") and, beyond it, of runc.
fn state(containers: &Containers, record: &Record) -> anyhow::Result<serde_json::Value> {
    let status = containers.status(record)?;
    let created = Timestamp::from_nanosecond(i128::from(record.created)).context("the time of creation")?;
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.to_string(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": created.to_string(),
        "owner": "",
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    Ok(state)
}

#[expect(clippy::print_stdout, reason = "what these commands print is their product")]
fn print(value: &serde_json::Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what these commands print is their product")]
fn list(containers: &Containers, format: ListFormat, quiet: bool) -> anyhow::Result<()> {
    let records = containers.list()?;
    if quiet {
        records.iter().for_each(|record| println!("{}", record.id));
        return Ok(());
    }
    let states = records.iter().map(|record| state(containers, record)).collect::<anyhow::Result<Vec<_>>>()?;
    if format == ListFormat::Json {
        return print(&json!(states));
    }
    println!("{:<24} {:<10} {:<10} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE");
    for state in &states {
        let text = |name: &str| state[name].as_str().unwrap_or_default();
        let (id, pid, status) = (text("id"), state["pid"].to_string(), text("status"));
        println!("{id:<24} {pid:<10} {status:<10} {:<40} {}", text("bundle"), text("created"));
    }
    Ok(())
}
