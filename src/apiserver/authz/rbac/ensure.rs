//! Makes what is missing of the roles and bindings that every cluster has.

use std::sync::Arc;

use api::resources::{self, rbac::GROUP};
use api::status::ApiError;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::Value;

use super::bootstrap;
use crate::object::meta;
use crate::server::ApiServer;

impl ApiServer {
    /// All at once, so that they are written to the disk together.
    pub(crate) async fn ensure_roles(self: &Arc<Self>) -> Result<(), ApiError> {
        let objects = bootstrap::objects();
        try_join_all(objects.iter().map(|wanted| self.ensure_role(wanted))).await.map(drop)
    }

    async fn ensure_role(self: &Arc<Self>, wanted: &Value) -> Result<(), ApiError> {
        let kind = wanted["kind"].as_str().unwrap_or_default();
        let row = resources::find_kind(GROUP, "v1", kind).ok_or_else(|| ApiError::internal("no roles"))?;
        let (namespace, name) = (meta(wanted, "namespace"), meta(wanted, "name"));
        let scope = if row.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
        let path = format!("/apis/{GROUP}/v1/{scope}{}", row.plural);
        match self.read(row, namespace, name).await {
            Err(error) if error.code == 404 => self.send(Method::POST, &path, wanted).await,
            Err(error) => Err(error),
            Ok((stored, _)) => match bootstrap::completed(&stored, wanted) {
                Some(new) => self.send(Method::PUT, &format!("{path}/{name}"), &new).await,
                None => Ok(()),
            },
        }
    }
}
