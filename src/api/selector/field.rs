//! Field selectors, as `k8s.io/apimachinery/pkg/fields` reads them.

use crate::status::ApiError;

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field path, e.g. `spec.nodeName`.
    pub field: String,
    /// Value, unescaped; empty matches an absent field.
    pub value: String,
    /// True for `=` and `==`, false for `!=`.
    pub equal: bool,
}

/// All requirements must hold; without any, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// The conditions.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads the query parameter; 400 with upstream's words if it is malformed.
    pub fn parse(_text: &str) -> Result<Self, ApiError> {
        Err(ApiError::internal("field selectors are not read yet"))
    }

    /// Whether the fields satisfy all requirements; `get` gives a field's value, empty for absent.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field) == r.value) == r.equal)
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}
