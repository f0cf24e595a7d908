//! Which objects of a collection a request is about.

use std::borrow::Cow;

use api::resources::Resource;
use api::selector::{FieldSelector, LabelSelector};
use api::status::ApiError;
use serde_json::Value;

use crate::query::Query;

/// Label and field conditions of one request.
#[derive(Debug)]
pub(crate) struct Filter {
    row: Resource,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Reads both selectors; 400 for a malformed one and for a field that the kind does not offer.
    pub(crate) fn from_query(row: &Resource, query: &Query) -> Result<Self, ApiError> {
        let labels =
            query.get("labelSelector").map_or_else(|| Ok(LabelSelector::everything()), LabelSelector::parse)?;
        let fields = query.get("fieldSelector").map_or_else(|| Ok(FieldSelector::default()), FieldSelector::parse)?;
        let known = row.field_names();
        for requirement in &fields.requirements {
            if !known.contains(&requirement.field.as_str()) {
                let text = format!("field label not supported: {}", requirement.field);
                return Err(ApiError::bad_request(text));
            }
        }
        Ok(Self { row: row.clone(), labels, fields })
    }

    /// Whether every object matches, so that none needs to be looked at.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object matches.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object["metadata"]["labels"].as_object())
            && self.fields.matches(|field| Cow::Owned(self.row.field(object, field).unwrap_or_default()))
    }

    /// The one name that can match, if the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        let mut requirements = self.fields.requirements.iter();
        requirements.find(|r| r.field == "metadata.name" && r.equal).map(|r| r.value.as_str())
    }
}
