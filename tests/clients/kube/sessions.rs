//! Commands, attachments and forwarded ports, with the pods of scripts/interactive.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, AttachParams, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(20);

/// Reads until a text has come.
async fn hears(stream: &mut (impl AsyncRead + Unpin), text: &str) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    let hearing = async {
        while !String::from_utf8_lossy(&heard).contains(text) {
            ensure!(stream.read_buf(&mut heard).await? > 0, "ended after {:?}", String::from_utf8_lossy(&heard));
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, hearing).await.context("nothing comes")?
}

pub(crate) async fn a_command_ends_with_its_code(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let asked = AttachParams::default().container("c").stdin(true).stderr(true);
    let mut command = pods.exec("talks", ["sh", "-c", "cat; exit 3"], &asked).await?;
    let status = command.take_status().context("no status")?;
    let mut stdin = command.stdin().context("no input")?;
    let mut stdout = command.stdout().context("no output")?;
    stdin.write_all(b"to the end").await?;
    stdin.shutdown().await?;
    drop(stdin);
    let mut said = String::new();
    tokio::time::timeout(PATIENCE, stdout.read_to_string(&mut said)).await??;
    ensure!(said == "to the end", "{said:?}");
    let status = tokio::time::timeout(PATIENCE, status).await?.context("no end")?;
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode"), "{status:?}");
    Ok(())
}

pub(crate) async fn a_terminal_has_a_size(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let asked = AttachParams::interactive_tty().container("c");
    let script = "until stty size | grep '33 111'; do sleep 0.05; done";
    let mut command = pods.exec("talks", ["sh", "-c", script], &asked).await?;
    let mut sizes = command.terminal_size().context("no sizes")?;
    let mut stdout = command.stdout().context("no output")?;
    futures_util::SinkExt::send(&mut sizes, TerminalSize { width: 111, height: 33 }).await?;
    hears(&mut stdout, "33 111").await
}

pub(crate) async fn a_container_is_talked_with(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let asked = AttachParams::default().container("c").stdin(true);
    let mut attached = pods.attach("repeats", &asked).await?;
    let mut stdout = attached.stdout().context("no output")?;
    attached.stdin().context("no input")?.write_all(b"from kube-rs\n").await?;
    hears(&mut stdout, "heard from kube-rs").await
}

pub(crate) async fn ports_are_forwarded(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut forward = pods.portforward("talks", &[8080, 9]).await?;
    let refused = forward.take_error(9).context("no errors")?;
    let why = tokio::time::timeout(PATIENCE, refused).await?.context("not refused")?;
    ensure!(why.contains("failed to connect to localhost:9 inside namespace"), "{why}");
    let mut served = forward.take_stream(8080).context("no stream")?;
    served.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    hears(&mut served, "served").await
}
