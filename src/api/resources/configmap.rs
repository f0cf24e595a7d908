//! ConfigMaps.

use super::{BLANK, Resource};

/// `configmaps`.
pub(super) const ROW: Resource = Resource {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    ..BLANK
};
