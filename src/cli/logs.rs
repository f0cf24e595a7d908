//! Logs: to standard error, as text or JSON.

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged and how.
#[derive(Debug, Clone, Args)]
pub(super) struct LogOptions {
    /// How much is logged: off, error, warn, info, debug, trace, or per part as `info,kubelet=debug`
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log_level: Targets,
    /// How a line looks
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl LogOptions {
    /// Starts logging; libraries beneath us only warn.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let beneath = ["hyper", "hyper_util", "rustls", "h2", "tokio_util"];
        let filter =
            beneath.iter().fold(self.log_level.clone(), |filter, part| filter.with_target(*part, LevelFilter::WARN));
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        match self.log_format {
            LogFormat::Text => registry.with(layer).try_init()?,
            LogFormat::Json => registry.with(layer.json()).try_init()?,
        }
        Ok(())
    }
}
