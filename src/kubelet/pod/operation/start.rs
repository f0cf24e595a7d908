//! Making a pod's files and starting its containers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use client::events::EventType;
use k8s_openapi::api::core::v1::Container;
use runtime::{ContainerId, ContainerSpec, Image, RuntimeError};
use task::chain;

use super::super::files::{PodDirs, write_whole};
use super::super::memory::{BadImage, StartError};
use super::super::plan::{Start, WaitingReason};
use super::super::{labels, observe, parts, report};
use super::{Job, Outcome};
use crate::container::{self, Request, ResolvConf};
use crate::logs::links;
use crate::references;
use crate::shared::PrepareError;
use crate::volumes::{self, MadeOf, Prepared};

/// SIGTERM
const TERM: i32 = 15;

/// Makes the pod's directories and volumes.
pub(super) async fn prepare_files(job: &Job) -> Outcome {
    let shared = &job.shared;
    let dirs = PodDirs::of(&job.pod, &shared.config);
    let failed = |message| Outcome::FilesFailed { message, bad_images: BTreeMap::new(), made_of: MadeOf::default() };
    if let Err(error) = volumes::keep_in_memory(shared).await {
        return failed(chain(&error));
    }
    if let Err(error) = make_directories(dirs.clone()).await {
        return failed(chain(&error));
    }
    let Prepared { problems, renew_at, made_of } = volumes::prepare(shared, &job.pod, &dirs).await;
    if problems.is_empty() {
        return Outcome::FilesReady { renew_at, made_of };
    }
    let tell = |reason: &str, message: &str| report::of_pod(shared, &job.pod, EventType::Warning, reason, message);
    for problem in &problems {
        match problem.bad_image() {
            None => tell("FailedMount", &chain(problem)),
            Some((_, BadImage { reference, reason, message })) => {
                if reason == WaitingReason::ErrImagePull {
                    tell("Failed", &format!("Failed to pull image {reference:?}: {message}"));
                }
                tell("Failed", &format!("Error: {}", reason.as_str()));
            }
        }
    }
    let message = problems.first().map(|problem| chain(problem)).unwrap_or_default();
    let bad_images = problems.iter().filter_map(volumes::VolumeError::bad_image).collect();
    Outcome::FilesFailed { message, bad_images, made_of }
}

async fn make_directories(dirs: PodDirs) -> Result<(), PrepareError> {
    let make = move || -> io::Result<()> {
        for dir in [&dirs.root, &dirs.run, &dirs.logs] {
            fs::create_dir_all(dir)?;
        }
        fs::set_permissions(&dirs.root, fs::Permissions::from_mode(0o750))?;
        fs::set_permissions(&dirs.run, fs::Permissions::from_mode(0o750))
    };
    task::blocking(make).await.map_err(|source| PrepareError::Write { what: "directories of the pod", source })
}

/// Translates and starts a container.
pub(super) async fn start(job: &Job, start: Start) -> Outcome {
    let shared = &job.shared;
    let name = start.name.clone();
    let tell = |kind, reason: &str, message: &str| report::of_container(shared, &job.pod, &name, kind, reason, message);
    if !job.fresh_image {
        let reference = find(job, &name).and_then(|own| own.image.clone()).unwrap_or_default();
        tell(EventType::Normal, "Pulled", &format!("Container image {reference:?} already present on machine"));
    }
    let spec = match compile(job, &start).await {
        Ok(spec) => spec,
        Err(error) => {
            let (kind, message) = (error.kind(), chain(&error));
            tell(EventType::Warning, "Failed", &format!("Error: {message}"));
            return Outcome::StartFailed { start, kind, message };
        }
    };
    let id = spec.id.clone();
    match shared.seams.runtime.start_container(&start.sandbox, spec).await {
        Ok(()) => {
            link_log(job, &start, id).await;
            tell(EventType::Normal, "Created", "Container created");
            tell(EventType::Normal, "Started", "Container started");
            Outcome::Started { container: name }
        }
        Err(error) => {
            let message = start_message(job, &name, &error);
            let kind = start_error(&error);
            if kind == StartError::Execute {
                tell(EventType::Normal, "Created", "Container created");
            }
            tell(EventType::Warning, "Failed", &format!("Error: {message}"));
            Outcome::StartFailed { start, kind, message }
        }
    }
}

/// Leads collectors to the container's log. As upstream, a container runs without as well.
async fn link_log(job: &Job, start: &Start, id: ContainerId) {
    let config = &job.shared.config;
    let (pod, logs) = (job.pod.clone(), config.log_root.clone());
    let log = PodDirs::of(&pod, config).log(&start.name, start.attempt);
    let name = start.name.clone();
    let made = task::blocking(move || {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (pod, namespace) = (text(&pod.metadata.name), text(&pod.metadata.namespace));
        links::make(&links::folder(&logs), &links::name([&pod, &namespace, &name, &id.0]), &log)
    });
    if let Err(error) = made.await {
        tracing::warn!(uid = ?job.pod.metadata.uid, container = start.name, %error, "log not linked");
    }
}

fn start_error(error: &RuntimeError) -> StartError {
    match error {
        RuntimeError::SubPath { .. } => StartError::Config,
        RuntimeError::Execute { .. } => StartError::Execute,
        _ => StartError::Create,
    }
}

/// What users are told of a failed start. Of a part of a volume that is nothing but its name, since more would tell of the
/// host.
fn start_message(job: &Job, name: &str, error: &RuntimeError) -> String {
    if let RuntimeError::SubPath { destination, created, source } = error {
        tracing::warn!(container = name, at = %destination.display(), error = %source, "part of a volume cannot be used");
        let mounts = find(job, name).and_then(|own| own.volume_mounts.clone()).unwrap_or_default();
        let mount = mounts.iter().find(|mount| Path::new("/").join(&mount.mount_path) == *destination);
        let volume = mount.map(|mount| mount.name.as_str()).unwrap_or_default();
        let what = if *created { "prepare subPath" } else { "create subPath directory" };
        return format!("failed to {what} for volumeMount {volume:?} of container {name:?}");
    }
    container::not_started(error)
}

fn find<'a>(job: &'a Job, name: &str) -> Option<Cow<'a, Container>> {
    parts::container(&job.pod, name)
}

/// All that can fail before the runtime is asked.
#[derive(Debug, thiserror::Error)]
enum CompileError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Config(#[from] container::ConfigError),
    #[error(transparent)]
    Image(#[from] runtime::ImageError),
    #[error(transparent)]
    Volume(#[from] volumes::Problem),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("image {reference:?} has gone")]
    NoImage { reference: String },
}

impl CompileError {
    /// What upstream's kubelet finds missing is an error of configuration; what the container runtime below it does is one
    /// of creation.
    fn kind(&self) -> StartError {
        match self {
            Self::Config(container::ConfigError::NoCommand) | Self::Runtime(_) => StartError::Create,
            Self::Prepare(_) | Self::Config(_) | Self::Volume(_) | Self::Image(_) | Self::NoImage { .. } => {
                StartError::Config
            }
        }
    }
}

async fn compile(job: &Job, start: &Start) -> Result<ContainerSpec, CompileError> {
    let shared = &job.shared;
    let own = find(job, &start.name).ok_or_else(|| container::ConfigError::NoContainer { name: start.name.clone() })?;
    let own = &*own;
    let image = image_of(job, own).await?;
    let mut context = observe::context(shared, &job.pod, Some(&start.sandbox));
    context.references = references::for_container(shared, &job.pod, own).await?;
    context.links = shared.links(&job.pod).await?;
    let dirs = PodDirs::of(&job.pod, &shared.config);
    let id = ContainerId(new_id());
    write_files(job, own, &dirs, &id, &context).await?;
    let mut mounts = dirs.standard_mounts(own, &id);
    mounts.extend(volumes::mounts(shared, &job.pod, own, &dirs, &context).await?);
    let labels =
        [(labels::BACKOFF, start.backoff.as_secs().to_string()), (labels::IMAGE_ID, start.image.status_id.clone())];
    let request = Request {
        pod: &job.pod,
        container: own,
        id,
        attempt: start.attempt,
        image: start.image.id.clone(),
        defaults: &image.defaults,
        mounts,
        processes_of: target(job, start).await?,
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    Ok(container::compile(request, &context)?)
}

/// The container whose processes an ephemeral one is to see: the newest life of its target.
async fn target(job: &Job, start: &Start) -> Result<Option<ContainerId>, CompileError> {
    let own = parts::ephemeral(&job.pod, &start.name).and_then(|own| own.target_container_name.clone());
    let Some(name) = own.filter(|name| !name.is_empty()) else { return Ok(None) };
    let status = job.shared.seams.runtime.status(&start.sandbox).await?;
    let records = status.into_iter().flat_map(|status| status.containers);
    let newest = records.filter(|record| record.name == name).max_by_key(|record| record.attempt);
    newest.map(|record| Some(record.id)).ok_or_else(|| container::ConfigError::NoTarget { name }.into())
}

async fn image_of(job: &Job, own: &Container) -> Result<Image, CompileError> {
    let reference = own.image.clone().unwrap_or_default();
    let found = job.shared.seams.images.find(&reference).await?;
    found.ok_or(CompileError::NoImage { reference })
}

/// The signal that ends a container: its own wish, else the image's, else SIGTERM.
pub(super) async fn stop_signal(job: &Job, name: &str) -> i32 {
    let Some(own) = find(job, name) else { return TERM };
    let wish = own.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone());
    let text = match wish {
        Some(wish) => wish,
        None => image_of(job, &own).await.map(|image| image.defaults.stop_signal).unwrap_or_default(),
    };
    parse_signal(&text).unwrap_or(TERM)
}

/// A signal by number or name, with or without `SIG`; `RTMIN+n` counts from 34 as the C library does, `RTMAX-n` down
/// from 64.
fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse().ok()? };
        return (0..=30).contains(&offset).then_some(64 - offset);
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    let position = NAMES.iter().position(|known| *known == name)?;
    i32::try_from(position + 1).ok()
}

/// 64 hexadecimal digits that nobody has had before: the standard library seeds each of these hashers from the kernel's
/// random numbers.
fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    let word = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    (0..4).map(|_| format!("{:016x}", word())).collect()
}

/// Writes the files that every container finds, as of now.
async fn write_files(
    job: &Job,
    own: &Container,
    dirs: &PodDirs,
    id: &ContainerId,
    context: &container::Context,
) -> Result<(), PrepareError> {
    let config = &job.shared.config;
    let (pod, dns, ips) = (job.pod.clone(), job.shared.dns(), context.pod_ips.clone());
    let (host_conf, host_hosts) = (config.resolv_conf.clone(), config.hosts_file.clone());
    let (dirs, words) = (dirs.clone(), dirs.last_words(&own.name, id));
    let write = move || -> io::Result<()> {
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let host = if host_network { Some(read_optional(&host_hosts)?) } else { None };
        let conf = ResolvConf::parse(&read_optional(&host_conf)?);
        let hosts = container::hosts_file(&pod, &ips, host.as_deref(), &dns.domain);
        write_whole(&dirs.hosts(), hosts.as_bytes())?;
        write_whole(&dirs.resolv_conf(), container::resolv_conf(&pod, &conf, &dns).render().as_bytes())?;
        if let Some(parent) = words.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&words, b"")?;
        // The container's user, whoever that is, writes its last words there; upstream gives the same mode.
        fs::set_permissions(&words, fs::Permissions::from_mode(0o666))
    };
    task::blocking(write).await.map_err(|source| PrepareError::Write { what: "files of the container", source })
}

fn read_optional(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    }
}
