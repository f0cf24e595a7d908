//! `POST /run/<namespace>/<pod>/[<uid>/]<container>?cmd=…`: a command in a container, and what it printed.
//!
//! After `getRun` of `pkg/kubelet/server`: the command is split at spaces, nothing else is interpreted. One difference: both
//! streams are bounded here, because they are kept until the command has ended.

use std::sync::Arc;
use std::time::Duration;

use client::Body;
use http::{Response, StatusCode};
use runtime::ExecSpec;
use task::chain;

use super::{Refusal, plain};
use crate::logs::pairs;
use crate::shared::Shared;
use crate::stream::{Named, running};

/// How much of what is printed is kept of each stream.
const OUTPUT_LIMIT: usize = 1 << 20;
/// How long a command may take: the `streamingConnectionIdleTimeout` of upstream, which has no other bound.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);

/// Runs it.
pub(super) async fn run(shared: &Arc<Shared>, named: Named<'_>, query: &str) -> Result<Response<Body>, Refusal> {
    let command = pairs(query).into_iter().find(|(key, _)| key == "cmd").map(|(_, command)| command);
    let args: Vec<String> = command.unwrap_or_default().split(' ').map(str::to_owned).collect();
    if args.iter().all(String::is_empty) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "you must specify a command by cmd\n".to_owned()));
    }
    let (sandbox, container) = running(shared, named).await?;
    let text = args.join(" ");
    let spec = ExecSpec { args, timeout: Some(PATIENCE), output_limit: OUTPUT_LIMIT, again: false };
    let failed = |message: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, message);
    let result = shared.seams.runtime.exec(&sandbox, &container, spec).await;
    let result = result.map_err(|error| failed(format!("{}\n", chain(&error))))?;
    let output = String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned();
    match result.code {
        Some(0) => Ok(plain(StatusCode::OK, output)),
        Some(code) => Err(failed(format!("command '{text}' exited with {code}: {output}"))),
        None => Err(failed(format!("command '{text}' timed out: {output}"))),
    }
}
