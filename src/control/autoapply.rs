//! Applies the manifests of a folder and keeps what they say: any kind, by server-side apply.
//!
//! [`read`] and [`plan`] are pure. The folder is looked at every few seconds, and everything is applied again once a minute, so
//! that what somebody has changed or removed comes back. What a file has no more is removed; which objects it had is noted
//! in a file of its own before they are made, so that a restart forgets none. Invariant: no object is changed or removed
//! that does not bear [`MARK`], as only those do that were made here or given over by that mark.

mod plan;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::events::{EventType, Recorder, Source};
use client::{Client, ClientError, DeleteOptions, Patch, unless_overtaken};
use http::Method;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use task::{SharedClock, Tasks};
use tokio::time::Instant;

use crate::kinds::{self, Kinds};
use plan::{Id, Record, Wanted};
use read::{Mistake, Object};

/// On every object that is kept here: the file that has it.
pub const MARK: &str = "coracle.dev/manifest";
/// Whose the fields of the files are.
const MANAGER: &str = "coracle-manifests";
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long the folder must have been the same before it is looked into.
const SETTLE: Duration = Duration::from_secs(1);
/// How often everything is applied, whether the folder has changed or not.
const REFRESH: Duration = Duration::from_secs(60);
/// After a failure, doubled with each up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(1);
/// A manifest larger than this is a mistake.
const LARGEST: u64 = 16 << 20;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of manifests.
    pub folder: PathBuf,
    /// The file that notes what was applied.
    pub record: PathBuf,
}

/// Why one object is not as its file says.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("there is no kind {kind} in {api_version}")]
    NoKind { kind: String, api_version: String },
    #[error("it was made by somebody else; annotate it with {MARK}={file} to have it kept so")]
    Foreign { file: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// When a file was last written, how large it is and which it is.
type Print = BTreeMap<String, (i64, i64, u64, u64)>;
type Files = BTreeMap<String, Result<Vec<Object>, Mistake>>;

struct Keeper {
    client: Client,
    recorder: Recorder,
    places: Places,
    kinds: Kinds,
    /// What was said of mistakes and failures last time.
    told: BTreeSet<String>,
}

/// Starts the keeper; `client` must be allowed whatever manifests may want.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, places: Places) {
    let source = Source { component: MANAGER.to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let (client, told) = (client.clone(), BTreeSet::new());
    let keeper = Keeper { client, recorder, places, kinds: Kinds::default(), told };
    tasks.spawn("manifests", keeper.run());
}

impl Keeper {
    async fn run(mut self) {
        let (mut known, mut seen) = (Print::new(), None);
        let (mut due, mut pause) = (Instant::now(), RETRY);
        loop {
            let folder = self.places.folder.clone();
            let present = task::blocking(move || print(&folder)).await;
            // What is being written is not taken for all of it: only what is twice the same is looked into.
            let is_settled = seen.as_ref() == Some(&present);
            seen = Some(present.clone());
            if !is_settled {
                tokio::time::sleep(SETTLE).await;
                continue;
            }
            if present != known || Instant::now() >= due {
                pause = if present == known { pause } else { RETRY };
                known = present;
                let is_whole = self.pass().await;
                due = Instant::now() + if is_whole { REFRESH } else { pause };
                pause = if is_whole { RETRY } else { (pause * 2).min(REFRESH) };
            }
            tokio::time::sleep(LOOK.min(due.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Makes everything as the files say; whether all of it is.
    async fn pass(&mut self) -> bool {
        let (folder, note) = (self.places.folder.clone(), self.places.record.clone());
        let (files, record) = task::blocking(move || (read_all(&folder, &note), recall(&note))).await;
        let files = match files {
            Ok(files) => files,
            // Nothing is known then, and nothing goes.
            Err(error) => {
                let failures = [format!("the folder cannot be read: {error}")].into();
                self.complain(&failures);
                self.told = failures;
                return false;
            }
        };
        let plan = plan::plan(&files, &record);
        if plan.record != record && !self.note(plan.record.clone()).await {
            return false;
        }
        let (mut failures, mut applied) = (BTreeSet::new(), BTreeSet::new());
        for (file, mistake) in &plan.mistakes {
            failures.insert(format!("{file}: {mistake}"));
        }
        for wanted in &plan.apply {
            match self.apply(wanted).await {
                Ok(path) => drop(applied.insert(path)),
                Err(error) => {
                    applied.extend(self.path(&wanted.id).await.ok());
                    failures.insert(format!("{}: line {}: {}: {error}", wanted.file, wanted.line, wanted.id));
                }
            }
        }
        let mut left = plan.record;
        for (file, id) in &plan.prune {
            match self.prune(file, id, &applied).await {
                Ok(()) => {
                    left.entry(file.clone()).or_default().remove(id);
                }
                Err(error) => drop(failures.insert(format!("{file}: {id} cannot be removed: {error}"))),
            }
        }
        left.retain(|_, ids| !ids.is_empty());
        let is_noted = plan.prune.is_empty() || self.note(left).await;
        self.complain(&failures);
        let is_whole = failures.is_empty() && is_noted;
        self.told = failures;
        is_whole
    }

    async fn note(&self, record: Record) -> bool {
        let place = self.places.record.clone();
        let written = task::blocking(move || keep(&place, &record)).await;
        if let Err(error) = &written {
            tracing::error!(%error, "what manifests have cannot be noted, so nothing is applied");
        }
        written.is_ok()
    }

    /// Tells of what has not been told.
    fn complain(&self, failures: &BTreeSet<String>) {
        for failure in failures.difference(&self.told) {
            tracing::warn!(failure, "a manifest is not applied");
            self.tell(EventType::Warning, "FailedApply", failure);
        }
    }

    /// Says something of manifests, which are no objects: of the namespace of the system, then.
    fn tell(&self, kind: EventType, reason: &str, message: &str) {
        let subject = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some("kube-system".to_owned()),
            ..ObjectReference::default()
        };
        self.recorder.event(&subject, kind, reason, message);
    }

    /// The path of an object; its namespace is `default` unless it says another.
    async fn path(&mut self, id: &Id) -> Result<String, ApplyError> {
        let find =
            |kinds: &Kinds| kinds.known.iter().find(|kind| kind.group == id.group() && kind.kind == id.kind).cloned();
        let mut found = find(&self.kinds);
        if found.is_none() {
            self.kinds = kinds::discover(&self.client).await?;
            found = find(&self.kinds);
        }
        let unknown = || ApplyError::NoKind { kind: id.kind.clone(), api_version: id.api_version.clone() };
        let mut kind = found.ok_or_else(unknown)?;
        // The version that the file names, which need not be the preferred one.
        kind.version = id.api_version.rsplit('/').next().unwrap_or_default().to_owned();
        let namespace = if id.namespace.is_empty() { "default" } else { &id.namespace };
        Ok(kind.object(namespace, &id.name))
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, ClientError> {
        match self.client.request(Method::GET, path, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply(&mut self, wanted: &Wanted) -> Result<String, ApplyError> {
        let path = self.path(&wanted.id).await?;
        let found = self.get(&path).await?;
        if found.as_ref().is_some_and(|found| mark(found).is_none()) {
            return Err(ApplyError::Foreign { file: wanted.file.clone() });
        }
        let mut value = wanted.value.clone();
        for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        value["metadata"]["annotations"][MARK] = json!(wanted.file);
        let query = format!("{path}?fieldManager={MANAGER}&force=true");
        let new = self.client.patch_path(&query, &Patch::Apply(value)).await?;
        let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if found.as_ref().map(revision) != Some(revision(&new)) {
            tracing::info!(file = wanted.file, object = %wanted.id, "applied a manifest");
            self.tell(EventType::Normal, "Applied", &format!("{}: {}", wanted.file, wanted.id));
        }
        Ok(path)
    }

    async fn prune(&mut self, file: &str, id: &Id, applied: &BTreeSet<String>) -> Result<(), ApplyError> {
        let path = match self.path(id).await {
            // With its kind it has gone, unless nobody could say which kinds there are.
            Err(ApplyError::NoKind { .. }) if self.kinds.undiscovered.is_empty() => return Ok(()),
            result => result?,
        };
        if applied.contains(&path) {
            return Ok(());
        }
        let Some(found) = self.get(&path).await?.filter(|found| mark(found).is_some()) else { return Ok(()) };
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let options = DeleteOptions { uid, propagation: "Background", ..DeleteOptions::default() };
        unless_overtaken(self.client.delete_path(&path, &options).await)?;
        tracing::info!(file, object = %id, "removed what a manifest has no more");
        self.tell(EventType::Normal, "Pruned", &format!("{file}: {id}"));
        Ok(())
    }
}

/// The file that an object is kept by.
fn mark(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][MARK].as_str()
}

/// The manifests of a folder. Hidden files and editors' leavings are none.
fn manifests(folder: &Path) -> io::Result<Vec<(String, io::Result<fs::Metadata>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')) else { continue };
        let is_known =
            ["yaml", "yml", "json"].iter().any(|kind| name.rsplit_once('.').is_some_and(|(_, own)| own == *kind));
        let about = fs::metadata(entry.path());
        if is_known && about.as_ref().map_or(true, fs::Metadata::is_file) {
            found.push((name, about));
        }
    }
    Ok(found)
}

/// None of a folder that cannot be read.
fn print(folder: &Path) -> Print {
    let about = |(name, about): (String, io::Result<fs::Metadata>)| {
        (name, about.map_or_else(|_| Default::default(), |own| (own.mtime(), own.mtime_nsec(), own.size(), own.ino())))
    };
    manifests(folder).into_iter().flatten().map(about).collect()
}

/// A file that cannot be read has a mistake, so that nothing of it goes. Without a folder there are no files if there never
/// were any.
fn read_all(folder: &Path, record: &Path) -> io::Result<Files> {
    let read = |(name, about): (String, io::Result<fs::Metadata>)| {
        let mistake = |message: String| Mistake { line: 1, message };
        let objects = match about {
            Ok(about) if about.size() > LARGEST => Err(mistake("the file is too large".to_owned())),
            Ok(_) => {
                let text = fs::read_to_string(folder.join(&name)).map_err(|error| mistake(error.to_string()));
                text.and_then(|text| read::objects(&text))
            }
            Err(error) => Err(mistake(error.to_string())),
        };
        (name, objects)
    };
    match manifests(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && recall(record).is_empty() => Ok(Files::new()),
        found => Ok(found?.into_iter().map(read).collect()),
    }
}

/// What was noted. What cannot be read is nothing: then objects stay that should go, which is the safer way.
fn recall(place: &Path) -> Record {
    let text = match fs::read(place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Record::new(),
        Err(error) => {
            tracing::error!(%error, "the note of what manifests have cannot be read");
            return Record::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(%error, "the note of what manifests have makes no sense");
        Record::new()
    })
}

/// Notes it as a whole or not at all.
fn keep(place: &Path, record: &Record) -> io::Result<()> {
    let new = place.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    fs::rename(&new, place)?;
    fs::File::open(place.parent().unwrap_or(Path::new("/")))?.sync_all()
}
