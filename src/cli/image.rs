//! `coracle image …`: the node's images from the command line, beside a running server or without one.
//!
//! It opens the same store as the server; locks on disk keep the two apart.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use oci::image::{Credentials, Puller, Record, Reference, RegistryOptions, Store, Usage};

/// What to do with the node's images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch an image from a registry.
    #[command(after_help = "Example:\n  coracle image pull registry.k8s.io/pause:3.10")]
    Pull {
        /// Name of the image, e.g. busybox:1.36 or localhost:5000/app@sha256:…
        image: String,
        /// User name for the registry; the password is read from the environment variable CORACLE_REGISTRY_PASSWORD.
        #[arg(long)]
        username: Option<String>,
        /// Registry (host or host:port) to be spoken to without TLS; may be repeated. Those on loopback always are.
        #[arg(long, value_name = "REGISTRY")]
        insecure_registry: Vec<String>,
    },
    /// List the images on this node.
    #[command(after_help = "Example:\n  coracle image ls --digests")]
    Ls {
        /// Show the digests under which registries know the images.
        #[arg(long)]
        digests: bool,
        /// Print the ids only, in full.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show what is known of an image, as JSON.
    #[command(after_help = "Example:\n  coracle image inspect busybox")]
    Inspect {
        /// Name, id or unique beginning of an id.
        image: String,
    },
    /// Remove images, and the layers that no other image uses.
    #[command(after_help = "Example:\n  coracle image rm busybox:1.36")]
    Rm {
        /// Names, ids or unique beginnings of ids. A name is taken off its image, which goes with its last name.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Read images from a docker-archive, an OCI archive or an OCI layout directory. They are never collected as garbage.
    #[command(
        after_help = "Example:\n  docker save app:v1 | coracle image import - \n  coracle image import --name app:v1 ./layout"
    )]
    Import {
        /// The file or directory; - for standard input. Archives may be compressed by gzip or zstd.
        source: PathBuf,
        /// Name of the image, if the archive has none or another.
        #[arg(long)]
        name: Option<String>,
    },
    /// Write an image as an OCI archive.
    #[command(after_help = "Example:\n  coracle image export busybox -o busybox.tar")]
    Export {
        /// Name, id or unique beginning of an id.
        image: String,
        /// The file to write; - for standard output.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Remove all images that no running container uses, except imported ones.
    #[command(after_help = "Example:\n  coracle image prune")]
    Prune,
}

/// Runs one command on the images below `root`.
///
/// # Errors
/// When it could not be done; the chain says why.
pub(crate) async fn run(command: ImageCommand, root: &Path) -> anyhow::Result<()> {
    let store = Store::open(root)?;
    match command {
        ImageCommand::Pull { image, username, insecure_registry } => {
            pull(store, &image, username, insecure_registry).await
        }
        ImageCommand::Ls { digests, quiet } => list(&store, digests, quiet),
        ImageCommand::Inspect { image } => inspect(&store, &image),
        ImageCommand::Rm { images } => remove(&store, &images),
        ImageCommand::Import { source, name } => import(&store, &source, name.as_deref()),
        ImageCommand::Export { image, output } => export(&store, &image, &output),
        ImageCommand::Prune => prune(&store),
    }
}

async fn pull(store: Store, image: &str, username: Option<String>, insecure: Vec<String>) -> anyhow::Result<()> {
    let name: Reference = image.parse().with_context(|| format!("couldn't parse image name {image:?}"))?;
    let password = || {
        let password = std::env::var("CORACLE_REGISTRY_PASSWORD");
        password.context("a user name needs a password in the environment variable CORACLE_REGISTRY_PASSWORD")
    };
    let credentials = match username {
        Some(username) => vec![Credentials { username, password: password()? }],
        None => Vec::new(),
    };
    let puller = Puller::new(store, RegistryOptions { insecure, ..RegistryOptions::default() });
    let record = Box::pin(puller.pull(&name, &credentials)).await;
    let record = record.with_context(|| format!("failed to pull image {name}"))?;
    print(&format!("{}\n", record.id))
}

fn import(store: &Store, source: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let name =
        name.map(|name| name.parse::<Reference>().with_context(|| format!("couldn't parse image name {name:?}")));
    let source = if source == Path::new("-") { Path::new("/dev/stdin") } else { source };
    let records = oci::image::import(store, source, name.transpose()?.as_ref()).context("failed to import images")?;
    for record in records {
        let names: Vec<&str> = record.tags.iter().map(String::as_str).collect();
        print(&format!("{} {}\n", record.id, names.join(" ")))?;
    }
    Ok(())
}

fn export(store: &Store, image: &str, output: &Path) -> anyhow::Result<()> {
    let record = find(store, image)?;
    let exported = match output == Path::new("-") {
        true if std::io::stdout().is_terminal() => bail!("an archive does not go to a terminal"),
        true => oci::image::export(store, &record, &mut std::io::stdout().lock()),
        false => {
            let mut file =
                std::fs::File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
            oci::image::export(store, &record, &mut file)
        }
    };
    exported.with_context(|| format!("failed to export {image}"))
}

fn inspect(store: &Store, image: &str) -> anyhow::Result<()> {
    let record = find(store, image)?;
    let config: serde_json::Value = serde_json::from_slice(&store.blob(&record.id)?)?;
    let manifest: serde_json::Value = serde_json::from_slice(&store.blob(&record.manifest)?)?;
    let layers = record.layers.iter().map(|layer| {
        serde_json::json!({
            "diffID": layer.diff_id, "size": layer.size, "path": store.layer_path(&layer.diff_id),
        })
    });
    let shown = serde_json::json!({
        "id": record.id, "tags": record.tags, "digests": record.digests, "size": record.size(),
        "pinned": record.pinned, "layers": layers.collect::<Vec<_>>(), "manifest": manifest, "config": config,
    });
    print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))
}

fn remove(store: &Store, images: &[String]) -> anyhow::Result<()> {
    let usage = Usage::observe(store);
    for image in images {
        let record = find(store, image)?;
        let named =
            image.parse::<Reference>().ok().filter(|name| names(&record).any(|known| *known == canonical(name)));
        let last =
            named.is_none() || record.tags.len() + record.digests.len() <= 1 || only_tag(&record, named.as_ref());
        if last && usage.has(&record) {
            bail!("{image} is in use by a running container");
        }
        match named {
            Some(name) => store.untag(&name)?,
            None => store.remove(&record.id)?,
        };
        print(&format!("{image}\n"))?;
    }
    Ok(())
}

fn prune(store: &Store) -> anyhow::Result<()> {
    let usage = Usage::observe(store);
    let mut freed = 0;
    for record in store.list()?.into_iter().filter(|record| !record.pinned && !usage.has(record)) {
        store.remove(&record.id)?;
        freed += record.size();
        let name = names(&record).next().cloned().unwrap_or_else(|| record.id.to_string());
        print(&format!("{name}\n"))?;
    }
    store.collect()?;
    print(&format!("up to {} freed\n", human(freed)))
}

fn list(store: &Store, digests: bool, quiet: bool) -> anyhow::Result<()> {
    let records = store.list()?;
    if quiet {
        let ids: String = records.iter().map(|record| format!("{}\n", record.id)).collect();
        return print(&ids);
    }
    let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE", "LAYERS", "PINNED"].map(str::to_owned).to_vec()];
    for record in &records {
        let shown: Vec<&String> = if digests { names(record).collect() } else { record.tags.iter().collect() };
        let mut shown: Vec<(String, String)> = shown.into_iter().map(|name| split(name)).collect();
        if shown.is_empty() {
            shown.push(match record.digests.first() {
                Some(name) => (split(name).0, "<none>".to_owned()),
                None => ("<none>".to_owned(), "<none>".to_owned()),
            });
        }
        rows.extend(shown.into_iter().map(|(repository, tag)| {
            let id = record.id.hex().chars().take(12).collect();
            let pinned = if record.pinned { "yes" } else { "no" };
            vec![repository, tag, id, human(record.size()), record.layers.len().to_string(), pinned.to_owned()]
        }));
    }
    print(&table(&rows))
}

fn find(store: &Store, image: &str) -> anyhow::Result<Record> {
    store.find(image)?.with_context(|| format!("no image {image:?} on this node"))
}

fn names(record: &Record) -> impl Iterator<Item = &String> {
    record.tags.iter().chain(&record.digests)
}

/// The name as the store knows it.
fn canonical(name: &Reference) -> String {
    match name.digest() {
        Some(digest) => name.with_digest(digest),
        None => name.to_string(),
    }
}

fn only_tag(record: &Record, name: Option<&Reference>) -> bool {
    record.tags.len() == 1 && name.is_some_and(|name| name.digest().is_none())
}

/// Repository, and tag or digest.
fn split(name: &str) -> (String, String) {
    let cut = name.find('@').or_else(|| name.rfind(':'));
    let (repository, rest) = name.split_at(cut.unwrap_or(name.len()));
    (repository.to_owned(), rest.trim_start_matches(['@', ':']).to_owned())
}

/// Bytes for people, in the decimal units of other image tools.
fn human(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has had enough, as `head` has.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A      B\nlong   x\n");
    }

    #[test]
    fn names_are_split_behind_the_port() {
        assert_eq!(split("localhost:5000/app:v1"), ("localhost:5000/app".to_owned(), "v1".to_owned()));
        assert_eq!(split("r.io/app@sha256:00"), ("r.io/app".to_owned(), "sha256:00".to_owned()));
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!([human(999), human(1_500), human(2_340_000_000)], ["999 B", "1.5 kB", "2.3 GB"]);
    }
}
