//! ServiceAccounts.

use super::{BLANK, Resource};

/// `serviceaccounts`.
pub(super) const ROW: Resource = Resource {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    ..BLANK
};
