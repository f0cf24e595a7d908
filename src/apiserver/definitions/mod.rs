//! The kinds that CustomResourceDefinitions bring, as the store has them now.
//!
//! [`Definitions`] is asked for rows; like the roles and bindings it has no task behind it: whoever asks takes in what has
//! changed since the last time, so that a kind is there for the first request after the one that established it.
//! [`keeper`] is the task that gives definitions their names and removes the objects of those that go.
//! Invariant: a row is served only if its definition says that it is established.

pub(crate) mod keeper;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resources::custom::{self, TooManyNames, status};
use api::resources::{self, Resource};
use api::status::ApiError;
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use store::{Key, Range, Store, StoreError, Watch, Watched};
use tokio::sync::Mutex;

use crate::conversion::Converter;
use crate::server::ApiServer;
use crate::storage;

/// One definition, without its schemas.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Metadata, names and status.
    pub(crate) brief: Value,
    /// The rows of its versions, none if it is not established.
    rows: Result<Vec<Arc<Resource>>, TooManyNames>,
    /// Who makes objects of one version those of another, if they differ in more than its name.
    converter: Option<Converter>,
}

impl Definition {
    fn read(bytes: &Bytes) -> Option<Self> {
        Some(Self::of(&serde_json::from_slice(bytes).ok()?, custom::rows))
    }

    /// The definition, whose rows are made by `rows`.
    fn of(object: &Value, rows: fn(&Value) -> Result<Vec<Arc<Resource>>, TooManyNames>) -> Self {
        let spec = &object["spec"];
        let brief = json!({
            "metadata": object["metadata"], "status": object["status"],
            "spec": { "group": spec["group"], "scope": spec["scope"], "names": spec["names"] },
        });
        let is_served = status::is_established(object);
        // One that could not be served is looked at again: it is to say so until it can be.
        let rows = if is_served || status::is_refused(object) { rows(object) } else { Ok(Vec::new()) };
        let rows = rows.map(|rows| if is_served { rows } else { Vec::new() });
        Self { brief, rows, converter: Converter::new(&spec["conversion"]) }
    }

    fn group(&self) -> &str {
        self.brief["spec"]["group"].as_str().unwrap_or_default()
    }
}

/// All definitions at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    definitions: BTreeMap<String, Arc<Definition>>,
    rows: Vec<Arc<Resource>>,
}

impl Snapshot {
    fn of(definitions: BTreeMap<String, Arc<Definition>>) -> Self {
        let served = definitions.values().filter_map(|definition| definition.rows.as_ref().ok());
        let mut rows: Vec<Arc<Resource>> = served.flatten().cloned().collect();
        custom::in_order(&mut rows);
        Self { definitions, rows }
    }

    /// The row of a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows.iter().find(|row| row.group == group && row.version == version && row.plural == plural)
    }

    /// Who converts objects of a kind.
    pub(crate) fn converter(&self, group: &str, plural: &str) -> Option<&Converter> {
        self.definitions.get(&format!("{plural}.{group}"))?.converter.as_ref()
    }

    /// What has become of the definition of a row since the row was taken.
    pub(crate) fn standing(&self, row: &Resource) -> Standing {
        let Some(custom) = &row.custom else { return Standing::Same };
        let now = self.find(row.group, row.version, row.plural).and_then(|row| row.custom.as_ref());
        match now {
            Some(now) if Arc::ptr_eq(now, custom) || now.is_same(custom) => Standing::Same,
            Some(_) => Standing::Other,
            None if self.definitions.contains_key(&format!("{}.{}", row.plural, row.group)) => Standing::Other,
            None => Standing::Gone,
        }
    }

    /// The row of another version of a kind.
    pub(crate) fn versions_of(&self, row: &Resource) -> impl Iterator<Item = &Arc<Resource>> {
        let (group, plural, version) = (row.group, row.plural, row.version);
        self.rows.iter().filter(move |other| (other.group, other.plural) == (group, plural) && other.version != version)
    }

    /// The rows of all kinds that are served, built-in ones first.
    pub(crate) fn all(&self) -> Vec<&Resource> {
        resources::all().iter().copied().chain(self.rows.iter().map(|row| &**row)).collect()
    }
}

/// What has become of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It says of the kind what it said.
    Same,
    /// It says something else, or no longer serves the version.
    Other,
    /// It is gone, after all of its objects.
    Gone,
}

/// Definitions that follow the store.
#[derive(Default)]
pub(crate) struct Definitions {
    inner: Mutex<Option<Followed>>,
}

struct Followed {
    snapshot: Arc<Snapshot>,
    watch: Box<dyn Watch>,
}

/// Where the definition of a row is stored; none if it has none.
pub(crate) fn key_of(row: &Resource) -> Result<Option<Key>, ApiError> {
    let name = || format!("{}.{}", row.plural, row.group);
    row.custom.as_ref().map(|_| Ok(storage::key(self::row()?, "", &name()))).transpose()
}

/// The row of definitions.
fn row() -> Result<&'static Resource, ApiError> {
    let row = resources::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    row.ok_or_else(|| ApiError::internal("no customresourcedefinitions"))
}

impl Definitions {
    /// The definitions as they are now.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn now(&self, store: &dyn Store) -> Result<Arc<Snapshot>, ApiError> {
        let prefix = storage::prefix(row()?, "");
        let mut inner = self.inner.lock().await;
        let caught_up = inner.take().and_then(|followed| followed.catch_up(&prefix));
        let followed = match caught_up {
            Some(followed) => followed,
            None => Followed::load(store, &prefix).await.map_err(storage::failed)?,
        };
        let snapshot = Arc::clone(&followed.snapshot);
        *inner = Some(followed);
        Ok(snapshot)
    }
}

impl Followed {
    async fn load(store: &dyn Store, prefix: &str) -> Result<Self, StoreError> {
        let page = store.list(Range { prefix: prefix.to_owned(), after: None, limit: None, at: None }).await?;
        let watch = store.watch(prefix, page.revision).await?;
        let mut definitions = BTreeMap::new();
        for entry in &page.entries {
            put(&mut definitions, prefix, &entry.key.0, Some(&entry.value));
        }
        Ok(Self { snapshot: Arc::new(Snapshot::of(definitions)), watch })
    }

    /// Takes in what has changed; none if that is no longer known.
    fn catch_up(mut self, prefix: &str) -> Option<Self> {
        let mut changed: Option<BTreeMap<String, Arc<Definition>>> = None;
        while let Some(next) = self.watch.next().now_or_never() {
            match next {
                Some(Watched::Changed(change)) => {
                    let definitions = changed.get_or_insert_with(|| self.snapshot.definitions.clone());
                    put(definitions, prefix, &change.key.0, change.after.as_ref());
                }
                Some(Watched::Overrun) | None => return None,
            }
        }
        if let Some(definitions) = changed {
            self.snapshot = Arc::new(Snapshot::of(definitions));
        }
        Some(self)
    }
}

fn put(definitions: &mut BTreeMap<String, Arc<Definition>>, prefix: &str, key: &str, value: Option<&Bytes>) {
    let name = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/');
    match value.and_then(Definition::read) {
        Some(definition) => drop(definitions.insert(name.to_owned(), Arc::new(definition))),
        None => drop(definitions.remove(name)),
    }
}

impl ApiServer {
    /// The kinds that are served now.
    pub(crate) async fn kinds(&self) -> Result<Arc<Snapshot>, ApiError> {
        self.definitions.now(self.config.store.as_ref()).await
    }
}
