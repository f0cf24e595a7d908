//! Objects in the form that a client asked for.

use api::resources::Resource;
use api::status::ApiError;
use api::table::{self, IncludeObject};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::negotiate::Form;
use crate::query::Query;

/// Renders objects of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    pub(crate) row: Resource,
    pub(crate) form: Form,
    pub(crate) include: IncludeObject,
    pub(crate) now: Timestamp,
}

/// What table rows carry, as the query says.
pub(crate) fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    let text = query.get("includeObject").unwrap_or_default();
    IncludeObject::parse(text).ok_or_else(|| {
        ApiError::bad_request(format!("unrecognized includeObject value {text:?}: use None, Metadata or Object"))
    })
}

impl Renderer {
    /// One object.
    pub(crate) fn object(&self, object: Value) -> Value {
        match self.form {
            Form::Plain => object,
            Form::Metadata => table::partial(&object),
            Form::Table => {
                let metadata = object["metadata"].clone();
                table::render(&self.row, &[object], self.now, self.include, &metadata)
            }
        }
    }

    /// A list; `metadata` is the list's.
    pub(crate) fn list(&self, objects: &[Value], metadata: &Value) -> Value {
        match self.form {
            Form::Plain => json!({
                "kind": self.row.list_kind, "apiVersion": self.row.api_version(),
                "metadata": metadata, "items": objects,
            }),
            Form::Metadata => table::partial_list(objects, metadata),
            Form::Table => table::render(&self.row, objects, self.now, self.include, metadata),
        }
    }

    /// The object of a watch event; the first one of a watch defines the columns.
    pub(crate) fn event(&self, object: &Value, is_first: bool) -> Value {
        match self.form {
            Form::Plain => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table => table::render_event(&self.row, object, self.now, self.include, is_first),
        }
    }

    /// The object of a bookmark: a kind and a revision.
    pub(crate) fn bookmark(&self, revision: &str, annotations: Option<Value>) -> Value {
        let mut metadata = json!({ "resourceVersion": revision, "creationTimestamp": null });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        match self.form {
            Form::Table => {
                let mut table = table::render(&self.row, &[], self.now, self.include, &metadata);
                table["columnDefinitions"] = Value::Null;
                table
            }
            Form::Metadata => table::partial(&json!({ "metadata": metadata })),
            Form::Plain => json!({ "kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata }),
        }
    }
}
