//! `coracle snapshot`: all objects of the cluster as one file, and back.
//!
//! A running server is asked through a socket of its run folder, which only root can reach: a line `save PATH` or
//! `restore PATH`, answered by `ok REVISION` or `failed REASON`. Without a running server the command opens the database
//! itself. A restore makes the objects those of the file in one transaction; clients see it as changes with new
//! revisions, so that nobody needs to be restarted. Secrets in a snapshot are as they are in the database: encrypted with
//! the key of this instance, which is not part of it.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use store::{Revision, Seal, SqliteOptions, SqliteStore, StoreError};
use task::{SharedClock, SystemClock, Tasks};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::Root;
use super::instance::Instance;

/// Longest line either side reads: a path and a little.
const LINE: u64 = 8192;

/// What to do with all objects.
#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Write all objects to a new file
    #[command(after_help = "Example: coracle snapshot save /var/backups/cluster.db")]
    Save {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Make all objects those of a file; whatever was made since is deleted
    #[command(after_help = "Example: coracle snapshot restore /var/backups/cluster.db")]
    Restore {
        /// A file that `save` has written
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Save,
    Restore,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Restore => "restore",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Save => "saved",
            Self::Restore => "restored",
        }
    }

    async fn run(self, store: &SqliteStore, file: &Path) -> Result<Revision, StoreError> {
        match self {
            Self::Save => store.save(file).await,
            Self::Restore => store.restore(file).await,
        }
    }
}

/// Runs the command.
#[expect(clippy::print_stdout, reason = "what these commands print is their product")]
pub(super) async fn run(command: SnapshotCommand, root: &Root) -> anyhow::Result<()> {
    let instance = root.instance()?;
    let (operation, file) = match &command {
        SnapshotCommand::Save { file } => (Operation::Save, file),
        SnapshotCommand::Restore { file } => (Operation::Restore, file),
    };
    let file = std::path::absolute(file).with_context(|| format!("{}", file.display()))?;
    let revision = match connect(&instance).await {
        Ok(server) => ask(server, operation, &file).await?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let _taken = instance.take()?;
            let database = database_path(&instance);
            if operation == Operation::Save && !database.exists() {
                bail!("there is no database at {}", database.display());
            }
            let store = open_store(&instance, Arc::new(SystemClock))?;
            let revision = operation.run(&store, &file).await?;
            store.close().await?;
            revision.to_string()
        }
        Err(error) => return Err(error).context("cannot reach the running server"),
    };
    println!("{} {} at revision {revision}", operation.done(), file.display());
    Ok(())
}

/// Opens the database of an instance, whose Secrets are sealed with keys beside the authority.
pub(super) fn open_store(instance: &Instance, clock: SharedClock) -> anyhow::Result<SqliteStore> {
    let keys = instance.root.join("pki");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys).context("cannot make the folder of keys")?;
    let seal = Seal::open(&keys.join("secrets.keys"), SECRETS)?;
    let path = database_path(instance);
    Ok(SqliteStore::open_sealed(&path, SqliteOptions::default(), clock, seal)?)
}

/// Where Secrets are stored.
const SECRETS: &str = "/secrets/";

/// Where the database of an instance is.
pub(super) fn database_path(instance: &Instance) -> PathBuf {
    instance.root.join("store.db")
}

const SOCKET: &str = "snapshot.sock";

/// The socket by way of its open folder, since the whole path may be longer than an address (unix(7)).
fn socket_path(instance: &Instance) -> io::Result<(fs::File, PathBuf)> {
    let folder = fs::File::open(&instance.run)?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET);
    Ok((folder, path))
}

async fn connect(instance: &Instance) -> io::Result<UnixStream> {
    let (_folder, path) = socket_path(instance)?;
    UnixStream::connect(path).await
}

async fn ask(mut server: UnixStream, operation: Operation, file: &Path) -> anyhow::Result<String> {
    let name = file.as_os_str().as_bytes();
    if name.contains(&b'\n') || name.len() as u64 + 16 > LINE {
        bail!("the name of the file is too long or of several lines");
    }
    let line = [operation.word().as_bytes(), b" ", name, b"\n"].concat();
    server.write_all(&line).await.context("cannot ask the running server")?;
    let mut answer = String::new();
    server.take(LINE).read_to_string(&mut answer).await.context("the running server has not answered")?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", revision)) => Ok(revision.to_owned()),
        Some(("failed", reason)) => bail!("the running server: {reason}"),
        _ => bail!("the running server has ended"),
    }
}

/// Answers such requests for as long as the tasks run.
pub(super) fn serve(instance: &Instance, store: &Arc<SqliteStore>, tasks: &Tasks) -> anyhow::Result<()> {
    let failed = || format!("cannot listen on {}", instance.run.join(SOCKET).display());
    let (_folder, path) = socket_path(instance).with_context(failed)?;
    // That of a server which was killed; this one has the instance for itself.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(failed)?;
    let store = store.clone();
    tasks.spawn("snapshots", async move {
        loop {
            // One after another: each takes the database for itself.
            match listener.accept().await {
                Ok((client, _)) => {
                    if let Err(error) = answer(client, &store).await {
                        tracing::warn!(%error, "a request for a snapshot was not answered");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "snapshots cannot be asked for any more");
                    return;
                }
            }
        }
    });
    Ok(())
}

async fn answer(mut client: UnixStream, store: &SqliteStore) -> io::Result<()> {
    let (reader, mut writer) = client.split();
    let mut line = Vec::new();
    BufReader::new(reader).take(LINE).read_until(b'\n', &mut line).await?;
    let line = line.strip_suffix(b"\n").unwrap_or_default();
    let asked = [Operation::Save, Operation::Restore].into_iter().find_map(|operation| {
        let file = line.strip_prefix(operation.word().as_bytes())?.strip_prefix(b" ")?;
        Some((operation, Path::new(std::ffi::OsStr::from_bytes(file))))
    });
    let reply = match asked {
        None => "failed save PATH or restore PATH is expected".to_owned(),
        Some((operation, file)) => match operation.run(store, file).await {
            Ok(revision) => {
                tracing::info!(operation = operation.word(), file = %file.display(), %revision, "snapshot");
                format!("ok {revision}")
            }
            Err(error) => format!("failed {:#}", anyhow::Error::new(error)).replace('\n', " "),
        },
    };
    writer.write_all(reply.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use store::{Durability, Expect, Key, Store as _};

    use super::*;

    #[tokio::test]
    async fn a_running_server_saves_and_restores_and_says_why_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("a-folder-whose-path-is-longer-than-the-address-of-a-socket-can-be".repeat(2));
        let instance = Instance::new(Some(&own)).unwrap();
        fs::create_dir_all(&instance.run).unwrap();
        let path = database_path(&instance);
        let store = Arc::new(SqliteStore::open(&path, SqliteOptions::default(), Arc::new(SystemClock)).unwrap());
        let tasks = Tasks::new();
        serve(&instance, &store, &tasks).unwrap();
        let key = Key("/configmaps/default/a".to_owned());
        let value = Bytes::from_static(b"1");
        let first = store.put(&key, value.clone(), Expect::Absent, Durability::Durable).await.unwrap();
        let root = Root { root: Some(own) };
        let file = folder.path().join("saved");
        run(SnapshotCommand::Save { file: file.clone() }, &root).await.unwrap();
        let again = run(SnapshotCommand::Save { file: file.clone() }, &root).await.unwrap_err();
        assert!(format!("{again:#}").contains(&file.display().to_string()), "{again:#}");
        store.delete(&key, first, Durability::Durable).await.unwrap();
        run(SnapshotCommand::Restore { file: file.clone() }, &root).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
        run(SnapshotCommand::Restore { file: folder.path().join("absent") }, &root).await.unwrap_err();
        tasks.shutdown().await;
        store.close().await.unwrap();
    }
}
