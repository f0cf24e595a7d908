//! Who may ask for certificates, decide about requests, and issue.
//!
//! The plugins CertificateSubjectRestriction, CertificateApproval and CertificateSigning of upstream
//! (`plugin/pkg/admission/certificates`), and that part of NodeRestriction: whoever may write to the subresources must also have the verb `approve` or
//! `sign` for the signer, so that the right to approve some certificates is not that to approve all.

use api::resources::certificate::{GROUP, PLURAL, asked, stamp_conditions, stamp_requestor};
use api::status::ApiError;
use api::user::MASTERS;
use serde_json::Value;

use crate::call::Call;
use crate::object::meta;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

/// The signer of users' certificates.
const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";
/// The signers of nodes' certificates.
const OF_NODES: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];

fn concerns(call: &Call) -> bool {
    call.row.group == GROUP && call.row.plural == PLURAL
}

fn signer_of(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

fn refused(object: &Value, text: &str) -> ApiError {
    ApiError::forbidden(GROUP, PLURAL, meta(object, "name"), text)
}

/// A new request: it names who asks, and asks for no group that may do everything.
pub(crate) fn create(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if !concerns(call) {
        return Ok(());
    }
    stamp_requestor(object, &call.user);
    if let Some(node) = call.user.node_name().map(str::to_owned).or_else(|| call.user.joins_as()) {
        own_name_only(object, &node)?;
    }
    if signer_of(object) != CLIENTS {
        return Ok(());
    }
    let request = asked(object).map_err(|error| refused(object, &format!("failed to parse CSR: {error}")))?;
    if request.organizations.iter().any(|group| group == MASTERS) {
        return Err(refused(object, &format!("use of {CLIENTS} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// A node asks for no certificate that makes it another (`admitCSR` of `plugin/pkg/admission/noderestriction`), nor does a
/// machine whose token is for one node.
fn own_name_only(object: &Value, node: &str) -> Result<(), ApiError> {
    if !OF_NODES.contains(&signer_of(object)) {
        return Ok(());
    }
    let request = asked(object).map_err(|error| refused(object, &format!("unable to parse csr: {error}")))?;
    if request.common_name.strip_prefix("system:node:") != Some(node) {
        return Err(refused(object, &format!("can only create a node CSR with CN=system:node:{node}")));
    }
    Ok(())
}

/// A change through `approval` or `status`: its author has the verb for the signer.
pub(crate) async fn update(call: &Call, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    if !concerns(call) {
        return Ok(());
    }
    let of = |object: &Value| [object["status"]["certificate"].clone(), object["status"]["conditions"].clone()];
    let verb = match call.request.subresource.as_str() {
        "approval" => "approve",
        "status" if of(new) != of(old) => "sign",
        _ => return Ok(()),
    };
    if !may(call, verb, signer_of(old)).await? {
        let text = format!("user not permitted to {verb} requests with signerName {:?}", signer_of(old));
        return Err(refused(old, &text));
    }
    stamp_conditions(new, old, call.now());
    Ok(())
}

/// Whether the user has a verb for a signer, or for all signers of its domain.
async fn may(call: &Call, verb: &str, signer: &str) -> Result<bool, ApiError> {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let request = ResourceRequest {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name: name.to_owned(),
            ..ResourceRequest::default()
        };
        let access = call.server.access(&call.user, &RequestInfo::Resource(request), &Query::default()).await?;
        if access.allowed {
            return Ok(true);
        }
    }
    Ok(false)
}
