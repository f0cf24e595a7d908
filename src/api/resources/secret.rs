//! Secrets.

use super::{BLANK, Resource};

/// `secrets`.
pub(super) const ROW: Resource =
    Resource { kind: "Secret", list_kind: "SecretList", plural: "secrets", singular: "secret", ..BLANK };
