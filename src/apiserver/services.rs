//! The step of a write that gives a Service its addresses and ports.
//!
//! What is taken is read from the stored Services each time, under a lock that is held until the write is done: there is
//! nothing else to keep in step with them, before or after a crash.

use api::resources::service::assign::{Stock, Taken, assign};
use api::status::ApiError;
use serde_json::Value;
use store::Range;
use tokio::sync::MutexGuard;

use crate::call::Call;
use crate::{object, storage};

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
    let own = storage::key(row, object::meta(new, "namespace"), object::meta(new, "name"));
    let range = Range { prefix: storage::prefix(row, ""), after: None, limit: None, at: None };
    let page = server.config.store.list(range).await.map_err(storage::failed)?;
    let mut taken = Taken::default();
    for entry in page.entries.iter().filter(|entry| entry.key != own) {
        taken.add(&object::of_entry(entry)?);
    }
    let mut random = [0; 8];
    server.config.entropy.fill(&mut random);
    let stock = Stock { network: &server.config.services, taken: &taken, random: u64::from_le_bytes(random) };
    assign(new, old, stock)?;
    Ok(Some(guard))
}

/// Whether a change asks for nothing: most changes of Services do not touch what could be given.
fn same(new: &Value, old: &Value) -> bool {
    new["spec"] == old["spec"]
}
