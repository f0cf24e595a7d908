//! CSIStorageCapacities: how much storage of a class is left where.

use jiff::Timestamp;
use serde_json::Value;

use super::GROUP;
use crate::quantity::Quantity;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, present, text};
use crate::resources::{BLANK, Resource, rule, selector};
use crate::status::FieldError;

/// `csistoragecapacities`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "CSIStorageCapacity",
    list_kind: "CSIStorageCapacityList",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    validate,
    validate_update,
    columns: &[
        cell::NAME,
        column("StorageClassName", "string", "", "Which class it is about.", 0),
        column("Capacity", "string", "", "How much is left.", 0),
    ],
    cells: |capacity, _: Timestamp| {
        let left = Quantity::from_value(&capacity["capacity"]).map_or_else(|_| "<unset>".to_owned(), |q| q.to_string());
        vec![cell::name(capacity), text(capacity, "storageClassName").into(), left.into()]
    },
    ..BLANK
};

fn validate(capacity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    selector::check(&capacity["nodeTopology"], &Path::new("nodeTopology"), &mut errors);
    errors.extend(rule::subdomain(&Path::new("storageClassName"), text(capacity, "storageClassName")));
    if let Ok(left) = Quantity::from_value(&capacity["capacity"])
        && present(capacity, "capacity")
        && left.is_negative()
    {
        errors.push(FieldError::invalid("capacity", &left.to_string().into(), rule::NEGATIVE));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let fields = ["nodeTopology", "storageClassName"];
    fields.into_iter().flat_map(|field| rule::immutable(field, &new[field], &old[field])).collect()
}
