//! How users are told of a program that cannot be executed.
//!
//! For starts, commands that users run, hooks and probes alike. The words are those that `os/exec` and runc have for it
//! and that people look for; what they say of the layers between kubelet and runc is left out, because there are none.

use std::io;

use runtime::RuntimeError;
use task::{chain, errno_text};

/// Why a container could not be started.
pub(crate) fn not_started(error: &RuntimeError) -> String {
    match problem(error) {
        Some(problem) => format!("OCI runtime create failed: unable to start container process: {problem}: unknown"),
        None => chain(error),
    }
}

/// Why a command could not be run in a container.
pub(crate) fn not_run(error: &RuntimeError) -> String {
    match problem(error) {
        Some(problem) => format!(
            "failed to exec in container: OCI runtime exec failed: exec failed: unable to start container process: {problem}: unknown"
        ),
        None => chain(error),
    }
}

fn problem(error: &RuntimeError) -> Option<String> {
    let RuntimeError::Execute { command, source } = error else { return None };
    let problem = match source.kind() {
        io::ErrorKind::NotFound if !command.contains('/') => "executable file not found in $PATH".to_owned(),
        io::ErrorKind::NotFound => format!("stat {command}: {}", errno_text(source)),
        _ => errno_text(source),
    };
    Some(format!("exec: {command:?}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(command: &str, errno: i32) -> RuntimeError {
        RuntimeError::Execute { command: command.to_owned(), source: io::Error::from_raw_os_error(errno) }
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_and_a_path_where_it_leads() {
        let tail = |error| {
            let text = not_run(&error);
            text.split_once("unable to start container process: ").map(|(_, tail)| tail.to_owned())
        };
        let not_found = r#"exec: "nope": executable file not found in $PATH: unknown"#;
        assert_eq!(tail(failed("nope", 2)).as_deref(), Some(not_found));
        let no_file = r#"exec: "/nope": stat /nope: no such file or directory: unknown"#;
        assert_eq!(tail(failed("/nope", 2)).as_deref(), Some(no_file));
        let denied = r#"exec: "/etc/passwd": permission denied: unknown"#;
        assert_eq!(tail(failed("/etc/passwd", 13)).as_deref(), Some(denied));
    }

    #[test]
    fn starts_and_commands_say_which_of_them_failed() {
        assert!(not_started(&failed("nope", 2)).starts_with("OCI runtime create failed: "));
        assert!(not_run(&failed("nope", 2)).starts_with("failed to exec in container: OCI runtime exec failed: "));
        let other = RuntimeError::Invalid { message: "no command specified".to_owned() };
        assert_eq!(not_run(&other), "invalid container: no command specified");
    }
}
