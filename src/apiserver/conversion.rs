//! Objects of custom kinds from one version to another, by the webhook that their definition names.
//!
//! After `pkg/apiserver/conversion/webhook_converter.go` of apiextensions. Whoever reads or writes objects of a row comes
//! through here, so that no version that a webhook should have made is served or stored unconverted: [`ApiServer::load`]
//! and [`ApiServer::load_all`] for what is stored, [`ApiServer::settle`] for what is to be. Kinds that need no webhook
//! pass without waiting. [`review`] says what a webhook is asked and what its answers mean, and is pure. It deliberately
//! keeps nothing of what was converted: a webhook that is mended is heard at the next read.
//! Invariant: no lock of the server is held while a webhook is asked.
//!
//! ```text
//! read    entry ─► form of its version ─► webhook, in portions ─► pruned by the version of the request
//! write   object of the request ─► webhook ─► pruned by the version of storage ─► entry
//! ```

mod review;

use api::resources::Resource;
use api::status::ApiError;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use store::Entry;

use crate::object;
use crate::server::ApiServer;
use crate::storage;
use crate::webhook::Reach;
use review::Review;

/// Upstream's time for an answer; a definition cannot say another.
const SECONDS: u64 = 30;
/// Most objects, and about how many bytes of them, that a webhook is sent at once.
const MOST_OBJECTS: usize = 500;
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The webhook of a definition.
#[derive(Debug)]
pub(crate) struct Converter {
    reach: Reach,
    /// The first version of reviews that both sides know; none if there is none.
    version: Option<&'static str>,
}

impl Converter {
    /// By the `conversion` of a definition; none if that names no webhook.
    pub(crate) fn new(conversion: &Value) -> Option<Self> {
        let webhook = &conversion["webhook"];
        let mut wanted = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let version = wanted.find_map(|wanted| ["v1", "v1beta1"].into_iter().find(|known| wanted == known));
        let reach = || Reach::new(&webhook["clientConfig"], SECONDS);
        (conversion["strategy"] == "Webhook").then(|| Self { reach: reach(), version })
    }

    /// The objects in another version; all of them are of others.
    async fn convert(&self, server: &ApiServer, objects: &[Value], wanted: &str) -> Result<Vec<Value>, String> {
        let version = self.version.ok_or("no supported conversion review versions")?;
        let review = Review::new(version, objects, wanted, server.config.entropy.uuid());
        let answer = self.reach.post(server, &review.document).await;
        let answer = answer.map_err(|text| review.failed(&text))?;
        review.read(answer)
    }
}

/// How many of the first objects a webhook is sent at once.
fn portion(objects: &[Value]) -> usize {
    let mut bytes = 0;
    let fits = |object: &&Value| {
        bytes += object.to_string().len();
        bytes <= MOST_BYTES
    };
    objects.iter().take(MOST_OBJECTS).take_while(fits).count().clamp(1, objects.len().max(1))
}

impl ApiServer {
    /// The object of an entry, as one of a row.
    pub(crate) async fn load(&self, row: &Resource, entry: &Entry) -> Result<Value, ApiError> {
        if !row.is_converted_elsewhere() {
            return storage::load(row, entry);
        }
        self.of_stored(row, vec![object::of_entry(entry)?]).await?.pop().ok_or_else(lost)
    }

    /// The objects of entries, as ones of a row.
    pub(crate) async fn load_all(&self, row: &Resource, entries: &[Entry]) -> Result<Vec<Value>, ApiError> {
        if !row.is_converted_elsewhere() {
            return entries.iter().map(|entry| storage::load(row, entry)).collect();
        }
        let objects = entries.iter().map(object::of_entry).collect::<Result<_, _>>()?;
        self.of_stored(row, objects).await
    }

    /// Objects in the form of storage, as ones of a row.
    pub(crate) async fn of_stored(&self, row: &Resource, mut objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        if !row.is_converted_elsewhere() {
            return Ok(objects.into_iter().map(|object| row.of_stored(object)).collect());
        }
        objects.iter_mut().for_each(|object| row.complete_stored(object));
        self.converted(row, objects, &row.api_version()).await
    }

    /// An object of a row in the form of storage.
    pub(crate) async fn to_stored(&self, row: &Resource, object: &Value) -> Result<Value, ApiError> {
        if !row.is_converted_elsewhere() {
            return Ok(row.to_stored(object).into_owned());
        }
        self.converted_to(row, object, &row.stored_api_version()).await
    }

    /// An object of a row as it will be read back, and as it is stored.
    pub(crate) async fn settle(&self, row: &Resource, mut object: Value) -> Result<(Value, Value), ApiError> {
        if !row.is_converted_elsewhere() {
            row.settle(&mut object);
            let stored = row.to_stored(&object).into_owned();
            return Ok((object, stored));
        }
        let stored = self.to_stored(row, &object).await?;
        let read = self.of_stored(row, vec![stored.clone()]).await?.pop().ok_or_else(lost)?;
        Ok((read, stored))
    }

    /// An object of a custom kind that a webhook converts, in one of its versions.
    pub(crate) async fn converted_to(&self, row: &Resource, object: &Value, version: &str) -> Result<Value, ApiError> {
        self.converted(row, vec![object.clone()], version).await?.pop().ok_or_else(lost)
    }

    /// Objects of a custom kind that a webhook converts, in one of its versions and pruned by that.
    fn converted<'a>(
        &'a self,
        row: &'a Resource,
        mut objects: Vec<Value>,
        to: &str,
    ) -> BoxFuture<'a, Result<Vec<Value>, ApiError>> {
        let others = objects.iter().enumerate().filter(|(_, object)| object["apiVersion"] != to);
        let others: Vec<usize> = others.map(|(index, _)| index).collect();
        if others.is_empty() {
            return futures_util::future::ready(Ok(objects)).boxed();
        }
        let to = to.to_owned();
        async move {
            let snapshot = self.kinds().await?;
            let converter = snapshot.converter(row.group, row.plural);
            let converter = converter.ok_or_else(|| ApiError::not_found(row.group, row.plural, ""))?;
            let mut rest: Vec<Value> = others.iter().map(|index| objects[*index].take()).collect();
            let mut places = others.into_iter();
            while !rest.is_empty() {
                let later = rest.split_off(portion(&rest));
                let done = converter.convert(self, &rest, &to).await.map_err(|text| ApiError::new(500, "", text))?;
                for mut object in done {
                    row.prune(&mut object);
                    if let Some(place) = places.next() {
                        objects[place] = object;
                    }
                }
                rest = later;
            }
            Ok(objects)
        }
        .boxed()
    }
}

fn lost() -> ApiError {
    ApiError::internal("an object was lost in its conversion")
}
