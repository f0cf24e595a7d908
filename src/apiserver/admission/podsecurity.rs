//! Pod security standards of namespaces at work (PodSecurity).

use api::resources::admission::podsecurity::{Level, existing, is_significant, pod_of, policy, violations};
use api::status::ApiError;
use serde_json::Value;

use super::is_core;
use crate::call::Call;
use crate::object::meta;

/// Refuses a pod that does not satisfy what its namespace enforces, and tells of what it should satisfy; tells the same of
/// workloads. Labels of namespaces must make sense.
pub(super) async fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if is_core(call, "namespaces") {
        return namespace(call, new, old).await;
    }
    let Some((metadata, spec)) = pod_of(&call.row, new) else { return Ok(()) };
    let is_pod = is_core(call, "pods");
    if is_pod && old.is_some_and(|old| !is_significant(new, old)) {
        return Ok(());
    }
    let row = api::resources::find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    let (namespace, _) = call.server.read(row, "", meta(new, "namespace")).await?;
    let (policy, _) = policy(&namespace["metadata"]["labels"]);
    if is_pod && let Some(found) = violations(policy.enforce, metadata, spec) {
        let text = format!("violates PodSecurity \"{}\": {found}", policy.enforce);
        return Err(ApiError::forbidden("", "pods", meta(new, "name"), &text));
    }
    if let Some(found) = violations(policy.warn, metadata, spec) {
        call.warn(format!("would violate PodSecurity \"{}\": {found}", policy.warn));
    }
    Ok(())
}

async fn namespace(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let (now, errors) = policy(&new["metadata"]["labels"]);
    let before = old.map(|old| policy(&old["metadata"]["labels"]));
    if !errors.is_empty() && before.as_ref().is_none_or(|(_, old)| *old != errors) {
        return Err(ApiError::invalid("", "Namespace", meta(new, "name"), &errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (now, before) = (now.enforce, before.enforce);
    let is_looser = now.version == before.version && now.level <= before.level;
    if now == before || now.level == Level::Privileged || is_looser {
        return Ok(());
    }
    let name = meta(new, "name");
    let pods = call.server.objects("pods", name).await?;
    existing(name, now, &pods).into_iter().for_each(|text| call.warn(text));
    Ok(())
}
