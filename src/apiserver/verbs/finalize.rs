//! `PUT` of `namespaces/x/finalize`: the controller says that it has removed the content.

use api::status::ApiError;
use bytes::Bytes;

use super::ATTEMPTS;
use super::update::match_path;
use super::write::{Attempt, Concurrency, preconditions, put};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed;

pub(super) async fn finalize(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    managed::check_options(&call.query, "UpdateOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "UpdateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "UpdateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&call.row), validation)?;
    let mut wanted = decoded.object;
    match_path(call, &mut wanted)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
        let concurrency = preconditions(call, &wanted, &old)?;
        let mut new = old.clone();
        new["spec"]["finalizers"] = wanted["spec"]["finalizers"].clone();
        managed::record(call, &old, &mut new);
        match put(call, new, &old, &entry, dry).await? {
            Attempt::Done(object) => return Ok(Outcome { code: 200, object, warnings: decoded.warnings }),
            Attempt::Lost if concurrency == Concurrency::Certain => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}
