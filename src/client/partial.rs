//! Objects of any kind by what all kinds have: who they are, who owns them, and what holds them.
//!
//! For controllers that care for kinds which they do not know. The server is asked for `PartialObjectMetadata`, and of
//! that only what is named here is kept.

use serde::{Deserialize, Serialize};

use crate::informer::Tracked;

/// An object, known by its metadata alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Partial {
    /// The metadata.
    #[serde(default)]
    pub metadata: PartialMetadata,
}

/// What is kept of metadata. Absent texts and lists are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialMetadata {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Which of all objects that ever had the name.
    pub uid: String,
    /// Which state of it.
    pub resource_version: String,
    /// When it was marked for deletion; empty if it was not.
    pub deletion_timestamp: String,
    /// Who must agree before it goes.
    pub finalizers: Vec<String>,
    /// Without whom it is garbage.
    pub owner_references: Vec<Owner>,
}

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Whether it is the one that manages the dependent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether it waits for this dependent, if it waits for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl Owner {
    /// Whether the owner waits for the dependent that has this reference, if it waits for any.
    pub fn is_blocked(&self) -> bool {
        self.block_owner_deletion == Some(true)
    }
}

impl Tracked for Partial {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}
