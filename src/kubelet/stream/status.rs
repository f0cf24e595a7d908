//! How a command ended, as the `Status` that the client is told (`remotecommand.ServeExec`).

use runtime::RuntimeError;
use serde_json::{Value, json};
use task::chain;

use crate::container::not_run;

/// The `Status` of a command's end.
pub(super) fn of(end: &Result<i32, RuntimeError>, command: &[String]) -> Value {
    match end {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => {
            let shown = command.join(" ");
            let message = format!(
                "command terminated with non-zero exit code: error executing command [{shown}], exit code {code}"
            );
            let details = json!({"causes": [{"reason": "ExitCode", "message": code.to_string()}]});
            let reason = "NonZeroExitCode";
            json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details})
        }
        Err(error) => internal("error executing command in container", &not_run(error)),
    }
}

/// The `Status` of the end of an attachment, which is not that of the container (`remotecommand.ServeAttach`).
pub(super) fn of_attachment(end: &Result<(), RuntimeError>) -> Value {
    match end {
        Ok(()) => json!({"metadata": {}, "status": "Success"}),
        Err(error) => internal("error attaching to container", &chain(error)),
    }
}

fn internal(what: &str, error: &str) -> Value {
    let cause = format!("{what}: {error}");
    let message = format!("Internal error occurred: {cause}");
    let (details, reason) = (json!({"causes": [{"message": cause}]}), "InternalError");
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details, "code": 500})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_that_clients_exit_with() {
        let status = of(&Ok(7), &["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()]);
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!((&status["reason"], &status["status"]), (&json!("NonZeroExitCode"), &json!("Failure")));
        assert_eq!(of(&Ok(0), &[]), json!({"metadata": {}, "status": "Success"}));
    }

    #[test]
    fn what_could_not_be_run_is_an_internal_error() {
        let source = std::io::Error::from_raw_os_error(2);
        let status = of(&Err(RuntimeError::Execute { command: "nope".to_owned(), source }), &[]);
        assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .ends_with("exec: \"nope\": executable file not found in $PATH: unknown"),
            "{status}"
        );
    }
}
