//! Who may have devices that others use: claims, and templates of claims, of namespaces that an administrator has chosen.
//!
//! After `AuthorizedForAdmin` of `pkg/registry/resource` (KEP-5018). Only new objects are looked at, as what they ask for
//! does not change; alternatives (`firstAvailable`) cannot ask for it.

use api::resources;
use api::status::{ApiError, FieldError};

use crate::call::Call;
use crate::object::meta;

/// The label of namespaces that may.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// What is wrong with a new object.
pub(crate) async fn check(call: &Call, new: &serde_json::Value) -> Result<Vec<FieldError>, ApiError> {
    let spec = match (call.row.group, call.row.plural) {
        ("resource.k8s.io", "resourceclaims") => &new["spec"],
        ("resource.k8s.io", "resourceclaimtemplates") => &new["spec"]["spec"],
        _ => return Ok(Vec::new()),
    };
    let mut requests = spec["devices"]["requests"].as_array().into_iter().flatten();
    let asks = requests.position(|request| request["exactly"]["adminAccess"] == true);
    let Some(index) = asks else { return Ok(Vec::new()) };
    let row = resources::find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    let (namespace, _) = call.server.read(row, "", meta(new, "namespace")).await?;
    if namespace["metadata"]["labels"][LABEL] == "true" {
        return Ok(Vec::new());
    }
    // Of a template, too, upstream names the place so.
    let place = format!("spec.devices.requests[{index}].adminAccess");
    let text = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    Ok(vec![FieldError::forbidden(place, &text)])
}
