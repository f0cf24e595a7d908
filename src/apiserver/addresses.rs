//! Keeps what tells of the addresses of Services: an IPAddress for each, and the state of the ranges they come from.
//!
//! [`api::resources::service::ranges`] decides; this writes as any client would. Who makes a Service has its IPAddresses
//! before the answer ([`tell`]); [`keep`] does the rest, and what a crash has left over. It looks at one address or at all
//! ranges at a time, and every change leads to another look: whoever was faster is right.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::resources::service::ranges::{self, Step};
use api::resources::{self, Resource};
use api::status::ApiError;
use bytes::Bytes;
use http::Method;
use serde_json::Value;
use store::{Change, Range, Watch, Watched};

use crate::object::{self, is_terminating, meta};
use crate::server::ApiServer;
use crate::storage;

/// How long to wait after an error.
const RETRY: Duration = Duration::from_secs(1);
const GROUP: &str = "networking.k8s.io";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// A Service: its namespace and name.
type Owner = (String, String);

pub(crate) fn services() -> Result<&'static Resource, ApiError> {
    row("", "services")
}

fn row(group: &str, plural: &str) -> Result<&'static Resource, ApiError> {
    resources::find(group, "v1", plural).ok_or_else(|| ApiError::internal(format!("there are no {plural}")))
}

impl ApiServer {
    /// All objects of a kind that no webhook converts.
    pub(crate) async fn all_of(&self, row: &Resource) -> Result<Vec<Value>, ApiError> {
        let range = Range { prefix: storage::prefix(row, ""), after: None, limit: None, at: None };
        let page = self.config.store.list(range).await.map_err(storage::failed)?;
        page.entries.iter().map(|entry| storage::load(row, entry)).collect()
    }

    /// The ranges of Services.
    pub(crate) async fn service_ranges(&self) -> Result<Vec<Value>, ApiError> {
        self.all_of(row(GROUP, "servicecidrs")?).await
    }

    /// What has addresses of its own.
    pub(crate) async fn told_addresses(&self) -> Result<Vec<Value>, ApiError> {
        self.all_of(row(GROUP, "ipaddresses")?).await
    }

    async fn found(&self, row: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let found = self.config.store.get(&storage::key(row, namespace, name)).await.map_err(storage::failed)?;
        found.as_ref().map(|entry| storage::load(row, entry)).transpose()
    }
}

/// Tells of the addresses that a Service has got, which is stored. What fails here is done later.
pub(crate) async fn tell(server: &Arc<ApiServer>, service: &Value, before: Option<&Value>) {
    let known: Vec<IpAddr> = before.into_iter().flat_map(ranges::addresses).collect();
    for address in ranges::addresses(service).filter(|address| !known.contains(address)) {
        if let Err(error) = server.send(Method::POST, ADDRESSES, &ranges::told(address, service)).await {
            tracing::warn!(%error, %address, "an address of a Service is not told of yet");
        }
    }
}

/// Keeps them for as long as the server runs.
pub(crate) async fn keep(server: Arc<ApiServer>) {
    loop {
        if let Err(error) = follow(&server).await {
            tracing::warn!(%error, "addresses of Services and their ranges could not be kept in order");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Which objects have changed.
enum Event {
    Service(Change),
    Address(Change),
    Range,
    /// Some were missed.
    Overrun,
}

impl Event {
    fn of(watched: Option<Watched>, changed: impl FnOnce(Change) -> Self) -> Self {
        match watched {
            Some(Watched::Changed(change)) => changed(change),
            Some(Watched::Overrun) | None => Self::Overrun,
        }
    }
}

struct Watches {
    services: Box<dyn Watch>,
    addresses: Box<dyn Watch>,
    ranges: Box<dyn Watch>,
}

impl Watches {
    async fn start(server: &ApiServer) -> Result<Self, ApiError> {
        let store = &server.config.store;
        let since = store.revision();
        let watch = async |row: &Resource| store.watch(&storage::prefix(row, ""), since).await.map_err(storage::failed);
        Ok(Self {
            services: watch(services()?).await?,
            addresses: watch(row(GROUP, "ipaddresses")?).await?,
            ranges: watch(row(GROUP, "servicecidrs")?).await?,
        })
    }

    async fn next(&mut self) -> Event {
        // Whatever one of them says counts: one that was overrun never says anything else again.
        tokio::select! {
            watched = self.services.next() => Event::of(watched, Event::Service),
            watched = self.addresses.next() => Event::of(watched, Event::Address),
            watched = self.ranges.next() => Event::of(watched, |_| Event::Range),
        }
    }
}

async fn follow(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    let mut watches = Watches::start(server).await?;
    settle_all(server).await?;
    let mut is_one_going = settle_ranges(server).await?;
    loop {
        match watches.next().await {
            Event::Service(change) => {
                for (address, owners) in of_service(&change)? {
                    settle(server, address, &owners).await?;
                }
                if is_one_going {
                    is_one_going = settle_ranges(server).await?;
                }
            }
            Event::Address(change) => {
                for (address, owners) in of_address(&change)? {
                    settle(server, address, &owners).await?;
                }
            }
            Event::Range => is_one_going = settle_ranges(server).await?,
            Event::Overrun => return Ok(()),
        }
    }
}

fn states(change: &Change) -> Result<Vec<Value>, ApiError> {
    let both: [&Option<Bytes>; 2] = [&change.before, &change.after];
    both.into_iter().flatten().map(|bytes| object::decode(bytes, change.revision)).collect()
}

fn owner(service: &Value) -> Owner {
    (meta(service, "namespace").to_owned(), meta(service, "name").to_owned())
}

/// The addresses that a Service has or had.
fn of_service(change: &Change) -> Result<BTreeMap<IpAddr, Vec<Owner>>, ApiError> {
    let states = states(change)?;
    let addresses = states.iter().flat_map(|service| ranges::addresses(service).map(|own| (own, vec![owner(service)])));
    Ok(addresses.collect())
}

/// The address of an IPAddress with the Services of which it tells or told.
fn of_address(change: &Change) -> Result<BTreeMap<IpAddr, Vec<Owner>>, ApiError> {
    let mut all: BTreeMap<IpAddr, Vec<Owner>> = BTreeMap::new();
    for state in states(change)? {
        let Ok(address) = meta(&state, "name").parse() else { continue };
        let parent = ranges::parent(&state).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        all.entry(address).or_default().extend(parent);
    }
    Ok(all)
}

async fn settle_all(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    let mut all: BTreeMap<IpAddr, Vec<Owner>> = BTreeMap::new();
    for service in server.all_of(services()?).await? {
        for address in ranges::addresses(&service) {
            all.entry(address).or_default().push(owner(&service));
        }
    }
    for told in server.told_addresses().await?.iter().filter(|told| ranges::is_own(told)) {
        if let Ok(address) = meta(told, "name").parse() {
            all.entry(address).or_default();
        }
    }
    for (address, owners) in all {
        settle(server, address, &owners).await?;
    }
    Ok(())
}

/// Makes the IPAddress of an address what it should be, of which these Services may be the owner, or the one it names.
async fn settle(server: &Arc<ApiServer>, address: IpAddr, owners: &[Owner]) -> Result<(), ApiError> {
    let name = address.to_string();
    let told = server.found(row(GROUP, "ipaddresses")?, "", &name).await?;
    let named = told.as_ref().and_then(ranges::parent).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let mut holder = None;
    for (namespace, name) in named.iter().chain(owners) {
        let service = server.found(services()?, namespace, name).await?;
        holder = service.filter(|service| ranges::addresses(service).any(|own| own == address));
        if holder.is_some() {
            break;
        }
    }
    let is_right = match (&told, &holder) {
        (Some(told), Some(holder)) => ranges::is_own(told) && named == Some(owner(holder)),
        (Some(told), None) => !ranges::is_own(told),
        (None, holder) => holder.is_none(),
    };
    if is_right {
        return Ok(());
    }
    if told.is_some_and(|told| !is_terminating(&told)) {
        absent_is_well(server.send(Method::DELETE, &format!("{ADDRESSES}/{name}"), &Value::Null).await)?;
    }
    match holder {
        Some(holder) => server.send(Method::POST, ADDRESSES, &ranges::told(address, &holder)).await,
        None => Ok(()),
    }
}

fn absent_is_well(result: Result<(), ApiError>) -> Result<(), ApiError> {
    result.or_else(|error| if error.code == 404 { Ok(()) } else { Err(error) })
}

/// Does what is to be done to ranges; whether one of them waits for addresses to be given back.
async fn settle_ranges(server: &Arc<ApiServer>) -> Result<bool, ApiError> {
    let all = server.service_ranges().await?;
    let is_one_going = all.iter().any(is_terminating);
    let mut used = Vec::new();
    if is_one_going {
        // Whoever was given an address before it was seen that the range goes has stored it once this lock is free.
        drop(server.assigning.lock().await);
        let services = server.all_of(services()?).await?;
        used = services.iter().flat_map(ranges::addresses).collect();
    }
    let now = server.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for range in &all {
        let path = format!("{RANGES}/{}", meta(range, "name"));
        let mut next = range.clone();
        let written = match ranges::next(range, &all, &used, &now) {
            Step::Nothing => continue,
            Step::Metadata(metadata) => {
                next["metadata"] = metadata;
                server.send(Method::PUT, &path, &next).await
            }
            Step::Conditions(conditions) => {
                next["status"]["conditions"] = conditions;
                server.send(Method::PUT, &format!("{path}/status"), &next).await
            }
        };
        absent_is_well(written)?;
    }
    Ok(is_one_going)
}
