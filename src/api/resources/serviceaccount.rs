//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::items;
use super::{BLANK, Resource, Subresource, Verb};

/// `serviceaccounts`.
pub(super) const ROW: Resource = Resource {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &[Verb::Create],
    }],
    columns: &[cell::NAME, column("Secrets", "string", "", "Number of secrets that it may use.", 0), cell::AGE],
    cells,
    returns_deleted: true,
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), items(object, "secrets").len().into(), cell::age(object, now)]
}
