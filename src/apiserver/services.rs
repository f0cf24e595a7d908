//! The step of a write that gives a Service its addresses and ports.
//!
//! What is taken is read from the stored Services each time, under a lock that is held until the write is done: there is
//! nothing else to keep in step with them, before or after a crash. IPAddresses that others have made are read as well, and
//! the ranges from which addresses are given now; those that tell of Services say nothing new.

use api::resources::service::assign::{Stock, Taken, assign};
use api::resources::service::ranges;
use api::status::ApiError;
use serde_json::Value;
use tokio::sync::MutexGuard;

use crate::addresses;
use crate::call::Call;
use crate::object::meta;

/// Gives a new state of an object what only one can have. The guard must live until the state is stored.
pub(crate) async fn give<'a>(
    call: &'a Call,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Option<MutexGuard<'a, ()>>, ApiError> {
    let row = &call.row;
    let is_service = (row.group, row.plural) == ("", "services");
    if !is_service || !call.request.subresource.is_empty() || old.is_some_and(|old| same(new, old)) {
        return Ok(None);
    }
    let server = &call.server;
    let guard = server.assigning.lock().await;
    let is_same = |other: &Value| ["namespace", "name"].iter().all(|field| meta(other, field) == meta(new, field));
    let mut taken = Taken::default();
    server
        .all_of(addresses::services()?)
        .await?
        .iter()
        .filter(|other| !is_same(other))
        .for_each(|other| taken.add(other));
    for other in server.told_addresses().await?.iter().filter(|other| !ranges::is_own(other)) {
        meta(other, "name").parse().into_iter().for_each(|address| taken.reserve(address));
    }
    let network = &server.config.services;
    let blocks = ranges::usable(network, &server.service_ranges().await?);
    let mut random = [0; 8];
    server.config.entropy.fill(&mut random);
    let stock = Stock { network, blocks: &blocks, taken: &taken, random: u64::from_le_bytes(random) };
    assign(new, old, stock)?;
    Ok(Some(guard))
}

/// What follows once the state is stored for which something was given.
pub(crate) async fn given(call: &Call, new: &Value, old: Option<&Value>, guard: Option<MutexGuard<'_, ()>>) {
    if guard.is_some() {
        // A webhook may be asked about what is written now, for which no other Service is to wait.
        drop(guard);
        addresses::tell(&call.server, new, old).await;
    }
}

/// Whether a change asks for nothing: most changes of Services do not touch what could be given.
fn same(new: &Value, old: &Value) -> bool {
    new["spec"] == old["spec"]
}
