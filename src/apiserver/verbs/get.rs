//! `GET` of one object.

use api::status::ApiError;

use crate::call::{Call, Outcome};

pub(super) async fn get(call: &Call) -> Result<Outcome, ApiError> {
    let (object, _) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    Ok(Outcome::ok(object))
}
