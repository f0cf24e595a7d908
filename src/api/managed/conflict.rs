//! What a configuration would take from others, in upstream's words (`managedfields/internal/conflict.go`).

use super::entries::{Manager, Operation};
use super::set::Path;
use crate::status::{ApiError, Cause};

/// A field that another manager has set to something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) manager: Manager,
    pub(super) path: Path,
}

/// 409 with one cause per field. Conflicts stand ordered by their managers.
pub(super) fn error(conflicts: &[Conflict]) -> ApiError {
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", shown(&conflict.manager)),
        field: path(&conflict.path),
    });
    let causes: Vec<Cause> = causes.collect();
    let mut error = ApiError::new(409, "Conflict", message(conflicts));
    error.details = Some(Box::new(crate::status::Details { causes, ..Default::default() }));
    error
}

fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", shown(&one.manager), path(&one.path));
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last.replace(&conflict.manager) != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", shown(&conflict.manager)));
        }
        lines.push(format!("- {}", path(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

fn path(path: &Path) -> String {
    path.iter().map(ToString::to_string).collect()
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
