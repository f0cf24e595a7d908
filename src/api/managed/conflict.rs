//! What a configuration would take from others, in upstream's words (`managedfields/internal/conflict.go`).
//!
//! A path can be as long as an object and there can be as many, so only so much of them is told.

use super::entries::{Manager, Operation};
use super::set::Set;
use crate::status::{ApiError, Cause, Details};

/// Most bytes of paths that are told.
const MAX_TOLD: usize = 64 << 10;

/// Fields that another manager has set to something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) manager: Manager,
    pub(super) fields: Set,
}

/// 409 with one cause per field. Conflicts stand ordered by their managers.
pub(super) fn error(conflicts: &[Conflict]) -> ApiError {
    let mut told = 0;
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in conflicts {
        let manager = shown(&conflict.manager);
        lines.push(format!("conflicts with {manager}:"));
        conflict.fields.show(&mut |path| {
            told += path.len();
            if told > MAX_TOLD {
                return false;
            }
            lines.push(format!("- {path}"));
            let (reason, message) = ("FieldManagerConflict".to_owned(), format!("conflict with {manager}"));
            causes.push(Cause { reason, message, field: path.to_owned() });
            true
        });
    }
    let count: usize = conflicts.iter().map(|conflict| conflict.fields.count()).sum();
    let text = match causes.as_slice() {
        [one] if count == 1 => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        _ => format!("Apply failed with {count} conflicts: {}", lines.join("\n")),
    };
    let mut error = ApiError::new(409, "Conflict", text);
    error.details = Some(Box::new(Details { causes, ..Details::default() }));
    error
}

fn shown(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", manager.subresource));
    }
    if manager.operation == Operation::Update {
        text.push_str(&format!(" using {}", manager.version));
    }
    text
}
