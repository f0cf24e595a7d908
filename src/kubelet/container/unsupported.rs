//! Fields that nothing here acts on: an event of the pod names them. The table is the API's, which warns of them too.

use k8s_openapi::api::core::v1::Pod;

/// The paths of fields that are set and have no effect here.
pub fn unsupported_fields(pod: &Pod) -> Vec<String> {
    // A spec that cannot be written as JSON was never read from it.
    let spec = pod.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok());
    spec.map(|spec| api::resources::pod::idle_fields(&spec, "spec")).unwrap_or_default()
}
