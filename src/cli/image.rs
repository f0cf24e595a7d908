//! `coracle image …`: the node's images from the command line, beside a running server or without one.

use std::path::Path;

/// What to do with the node's images.
#[derive(Debug, clap::Subcommand)]
pub enum ImageCommand {
    /// List the images on this node.
    #[command(after_help = "Example:\n  coracle image ls")]
    Ls,
}

/// Runs one command on the images below `root`.
///
/// # Errors
/// When it could not be done; the chain says why.
pub async fn run(command: ImageCommand, root: &Path) -> anyhow::Result<()> {
    let store = oci::image::Store::open(root)?;
    match command {
        ImageCommand::Ls => {
            for image in store.list()? {
                tracing::info!(id = %image.id, "image");
            }
        }
    }
    Ok(())
}
