//! One row of the table: what a kind is described by, and the means by which the server asks it.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cell, custom, path, scale};
use crate::status::FieldError;

/// What can be done with a resource or subresource; the words of discovery and of authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A path below an object: `pods/web/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subresource {
    /// Last segment of the path.
    pub name: &'static str,
    /// What is sent and answered there.
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// That kind; the resource's own for `status`.
    pub kind: &'static str,
    /// What can be done there.
    pub verbs: &'static [Verb],
}

/// A subresource through which a part of an object is changed and nothing else, metadata included.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Last segment of the path.
    pub name: &'static str,
    /// Gives the stored object (first) the part of what a client sent (second).
    pub take: fn(&mut Value, &Value),
    /// Checks the new object against the stored one.
    pub validate: fn(&Value, &Value) -> Vec<FieldError>,
}

/// What counts as a change of the desired state, for `metadata.generation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has no generation (`configmaps`, `events` …).
    None,
    /// 1 at creation, one more with each change of one of these fields, which are JSON pointers.
    Of(&'static [&'static str]),
    /// 1 at creation, one more with each change of anything but metadata, and but status where that is a subresource.
    ButStatus,
}

impl Generation {
    /// The usual: changes of `spec`.
    pub const SPEC: Self = Self::Of(&["/spec"]);
}

/// What is acknowledged before it has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteBehind {
    /// Nothing: an acknowledged write survives power loss.
    Never,
    /// Everything (Events).
    Always,
    /// Writes in this namespace (leases of `kube-node-lease`).
    Namespace(&'static str),
    /// Updates that change nothing but heartbeat times in `status.conditions` (nodes).
    Heartbeats,
}

/// What becomes of the objects that name a deleted one as their owner, unless somebody says otherwise
/// (`DefaultGarbageCollectionPolicy` of the strategies in `pkg/registry`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them.
    Deleted,
    /// They stay, and who does not ask for anything is told so.
    Orphaned {
        /// What is told; nothing if it is empty.
        warning: &'static str,
    },
    /// Objects of the kind have none.
    None,
}

/// Which names objects of a kind may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label, at most 63 characters.
    Label,
    /// RFC 1123 subdomain, at most 253 characters.
    Subdomain,
    /// RFC 1035 label, at most 63 characters, which cannot start with a digit (Services).
    Label1035,
    /// Whatever can stand between two slashes of a path.
    PathSegment,
    /// An IPv4 or IPv6 address.
    Address,
}

/// How objects of a kind are stored that has several versions or names: as those of one row, which has no conversion
/// itself. Both functions are pure and total, and leave `apiVersion` and `kind` alone; what one version does not know of
/// the other must survive a way there and back.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// The row in whose form objects are stored.
    pub stored: &'static Resource,
    /// Gives an object the stored form.
    pub to_stored: fn(&mut Value),
    /// Gives a stored object the form of this row.
    pub from_stored: fn(&mut Value),
}

/// A column of the server-side table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `boolean`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the object's name.
    pub format: &'static str,
    /// For people.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// A function that reads one selectable field of an object.
pub type Field = fn(&Value) -> String;

/// One kind.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// CamelCase kind of one object.
    pub kind: &'static str,
    /// Kind of a list.
    pub list_kind: &'static str,
    /// The word in paths.
    pub plural: &'static str,
    /// The word in messages for one object.
    pub singular: &'static str,
    /// What kubectl users type.
    pub short_names: &'static [&'static str],
    /// Groups such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of the main resource.
    pub verbs: &'static [Verb],
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// Which of these change a part of the object.
    pub parts: &'static [Part],
    /// How its objects are stored, if not in their own form.
    pub conversion: Option<Conversion>,
    /// What the subresource `scale` reads and writes, for kinds that have it.
    pub scale: Option<scale::Scale>,
    /// Which names are allowed.
    pub name_rule: NameRule,
    /// Fills in what was left out. Idempotent.
    pub default: fn(&mut Value),
    /// What create forces, whatever the client sent. Runs after `default`.
    pub prepare: fn(&mut Value),
    /// What update forces, beyond status and generation. Takes the new object and the stored one.
    pub prepare_update: fn(&mut Value, &Value),
    /// Checks everything but `metadata`, which [`write`] checks for all kinds alike.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// Checks a change, beyond what `validate` says of the new object. Takes the new object and the stored one.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Checks a change through `status`. Takes the new object and the stored one.
    pub validate_status: fn(&Value, &Value) -> Vec<FieldError>,
    /// What its writer is told of an object that is stored all the same, without a final dot.
    pub warn: fn(&Value) -> Vec<String>,
    /// What everybody who uses the kind is told, if it is on its way out.
    pub deprecation: &'static str,
    /// Whether `status` is a subresource: then the main resource ignores it on writes, and `status` ignores the rest.
    pub has_status: bool,
    /// The status that nobody has written yet: fields that are always there have a value in it. None if it is left out.
    pub new_status: fn() -> Value,
    /// Whether create nevertheless keeps the status that the client sent.
    pub status_on_create: bool,
    /// How `metadata.generation` is kept.
    pub generation: Generation,
    /// Whether an update of an absent object creates it.
    pub create_on_update: bool,
    /// Whether an update without resourceVersion overwrites whatever is there.
    pub unconditional_update: bool,
    /// What may be acknowledged early.
    pub write_behind: WriteBehind,
    /// Whether it is a question: created only, never stored, and answered with its status filled in.
    pub is_review: bool,
    /// What of metadata a change through `status` does not reach either.
    pub status_keeps: &'static [&'static str],
    /// Whether who deletes an object gets it, and not a `Status` that tells of it (`ReturnDeletedObject` of the stores in
    /// `pkg/registry`).
    pub returns_deleted: bool,
    /// Whether a deletion waits for somebody to end what the object stands for (pods).
    pub graceful_deletion: bool,
    /// What becomes of its dependents.
    pub dependents: Dependents,
    /// Columns of the table.
    pub columns: &'static [Column],
    /// One table row; as many cells as columns.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// The `Completed` condition of the table row of an object that has run its course.
    pub completion: fn(&Value) -> Option<Value>,
    /// Fields that selectors may name, beyond `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [(&'static str, Field)],
    /// What else is known of a kind that came at run time.
    pub custom: Option<Arc<custom::Custom>>,
}

impl Resource {
    /// `apiVersion` of objects: `v1`, `coordination.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The row in whose form objects of this one are stored.
    pub fn stored(&self) -> &Self {
        self.conversion.map_or(self, |conversion| conversion.stored)
    }

    /// An object of this row as it is stored.
    pub fn to_stored<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        if let Some(custom) = &self.custom {
            let mut object = object.clone();
            path::put(&mut object, "apiVersion", &format!("{}/{}", self.group, custom.stored_version()).into());
            return Cow::Owned(object);
        }
        let Some(Conversion { stored, to_stored, .. }) = self.conversion else { return Cow::Borrowed(object) };
        let mut object = object.clone();
        to_stored(&mut object);
        stored.name_kind(&mut object);
        Cow::Owned(object)
    }

    /// A stored object as one of this row.
    pub fn of_stored(&self, mut object: Value) -> Value {
        if let Some(custom) = &self.custom {
            custom.of_stored(&mut object);
            self.name_kind(&mut object);
        }
        if let Some(Conversion { from_stored, .. }) = self.conversion {
            from_stored(&mut object);
            self.name_kind(&mut object);
        }
        object
    }

    /// Whether a webhook makes objects of one version those of another: then [`Self::to_stored`] and [`Self::of_stored`],
    /// which give an object another version in name only, are not to be asked.
    pub fn is_converted_elsewhere(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.is_converted_elsewhere())
    }

    /// `apiVersion` of objects as they are stored.
    pub fn stored_api_version(&self) -> String {
        match &self.custom {
            Some(custom) => format!("{}/{}", self.group, custom.stored_version()),
            None => self.stored().api_version(),
        }
    }

    /// Gives a stored object the form that the version in which it is stored has now.
    pub fn complete_stored(&self, object: &mut Value) {
        if let Some(custom) = &self.custom {
            custom.complete_stored(object);
        }
    }

    /// Drops what an object of a custom kind must not have in the version that it says to be of.
    pub fn prune(&self, object: &mut Value) {
        if let Some(custom) = &self.custom {
            custom.prune(object);
        }
    }

    /// Whether what is stored is what is served, to the byte.
    pub fn is_served_as_stored(&self) -> bool {
        self.conversion.is_none() && self.custom.is_none()
    }

    /// Gives an object the form in which it will be read back.
    pub fn settle(&self, object: &mut Value) {
        if !self.is_served_as_stored() {
            *object = self.of_stored(self.to_stored(object).into_owned());
        }
    }

    fn name_kind(&self, object: &mut Value) {
        path::put(object, "apiVersion", &self.api_version().into());
        path::put(object, "kind", &self.kind.into());
    }

    /// The columns of a table, as it describes them.
    pub fn table_columns(&self) -> Value {
        let definition = |column: &Column| {
            let Column { name, kind, format, description, priority } = column;
            json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
        };
        match &self.custom {
            Some(custom) => custom.columns().into(),
            None => self.columns.iter().map(definition).collect(),
        }
    }

    /// The table row of an object; as many cells as columns.
    pub fn table_cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.cells(object, now),
            None => (self.cells)(object, now),
        }
    }

    /// The named subresource.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The named part.
    pub fn part(&self, name: &str) -> Option<&'static Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The value of a selectable field, or none if selectors may not name it.
    pub fn field(&self, object: &Value, name: &str) -> Option<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match name {
            "metadata.name" => Some(text(&object["metadata"]["name"])),
            "metadata.namespace" if self.namespaced => Some(text(&object["metadata"]["namespace"])),
            _ => {
                let own = self.selectable.iter().find(|(field, _)| *field == name).map(|(_, read)| read(object));
                own.or_else(|| self.custom.as_ref()?.field(object, name))
            }
        }
    }

    /// The names of all selectable fields, for selectors to be checked against and for the message of a wrong one.
    pub fn field_names(&self) -> Vec<&str> {
        let own = self.selectable.iter().map(|(name, _)| *name);
        let own = own.chain(self.custom.iter().flat_map(|custom| custom.field_names()));
        let scope = self.namespaced.then_some("metadata.namespace");
        std::iter::once("metadata.name").chain(scope).chain(own).collect()
    }
}

pub(super) const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// What rows override: a namespaced kind without status, defaults or rules of its own, shown by name and age.
pub(super) const BLANK: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    parts: &[],
    conversion: None,
    scale: None,
    name_rule: NameRule::Subdomain,
    default: |_| (),
    prepare: |_| (),
    prepare_update: |_, _| (),
    validate: |_| Vec::new(),
    validate_update: |_, _| Vec::new(),
    validate_status: |_, _| Vec::new(),
    warn: |_| Vec::new(),
    deprecation: "",
    has_status: false,
    new_status: || Value::Null,
    status_on_create: false,
    generation: Generation::None,
    create_on_update: false,
    unconditional_update: true,
    write_behind: WriteBehind::Never,
    is_review: false,
    status_keeps: &[],
    returns_deleted: false,
    graceful_deletion: false,
    dependents: Dependents::Deleted,
    columns: &[cell::NAME, cell::AGE],
    cells: |object, now| vec![cell::name(object), cell::age(object, now)],
    completion: |_| None,
    selectable: &[],
    custom: None,
};

/// The verbs of the subresources `status` and `scale`.
pub(super) const STATUS_VERBS: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// The subresource `status` of a kind.
pub(super) const fn status_of(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    Subresource { name: "status", group, version, kind, verbs: STATUS_VERBS }
}

/// The subresource `proxy`: whatever is sent there goes on to the object's address.
pub(super) const fn proxy_of(kind: &'static str) -> Subresource {
    const VERBS: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
    Subresource { name: "proxy", group: "", version: "v1", kind, verbs: VERBS }
}

/// The subresource `scale`.
pub(super) const SCALE: Subresource =
    Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: STATUS_VERBS };
