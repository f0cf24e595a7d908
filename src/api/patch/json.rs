//! JSON patch (RFC 6902), with bounds on what a small patch can make of an object.
//!
//! The operations themselves are the `json_patch` crate's. It knows no limits: forty copies of an object into itself
//! are more than the memory, and operations that each go deeper than the one before make an object whose mere removal
//! exhausts the stack.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::unprocessable;
use crate::status::ApiError;

/// Upstream's limit of operations (`maxJSONPatchOperations` of its patch handler).
const MAX_OPERATIONS: usize = 10_000;
/// Upstream's limit of bytes that all copies of a patch make (`JSONPatchMaxCopyBytes` of its server's configuration).
const MAX_COPIED: usize = 3 << 20;
/// How deep an object may become between two operations; what comes out is checked more narrowly. Estimated: moves
/// and copies count as if they took the deepest part of the object.
const MAX_DEPTH: usize = 512;

pub(super) fn apply(original: &Value, patch: Value) -> Result<Value, ApiError> {
    tested(original, patch)?.map_err(|failed| unprocessable(&failed))
}

/// As [`apply`]; if it fails at a test, that is told by itself.
pub(super) fn tested(original: &Value, patch: Value) -> Result<Result<Value, String>, ApiError> {
    let operations: Vec<PatchOperation> = serde_json::from_value(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > MAX_OPERATIONS {
        let text =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len());
        return Err(ApiError::too_large(text));
    }
    let mut result = original.clone();
    let mut growth = Growth { copied: 0, depth: crate::json::depth(original) };
    for (index, operation) in operations.iter().enumerate() {
        growth.allow(&result, operation)?;
        // A failure leaves a half-patched object, which is dropped.
        if let Err(mut error) = json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation)) {
            error.operation = index;
            if is_failed_test(operation, &error.kind, &result) {
                return Ok(Err(error.to_string()));
            }
            return Err(unprocessable(&error.to_string()));
        }
    }
    Ok(Ok(result))
}

/// Whether a test has found something else, or nothing where something could be.
fn is_failed_test(operation: &PatchOperation, kind: &PatchErrorKind, object: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let has_parent = || test.path.parent().is_some_and(|parent| object.pointer(parent.as_str()).is_some());
    match kind {
        PatchErrorKind::TestFailed => true,
        PatchErrorKind::InvalidPointer => has_parent(),
        _ => false,
    }
}

/// What the operations so far can have made of the object.
struct Growth {
    copied: usize,
    depth: usize,
}

impl Growth {
    fn allow(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), ApiError> {
        let depth = match operation {
            PatchOperation::Add(add) => add.path.count() + crate::json::depth(&add.value),
            PatchOperation::Replace(replace) => replace.path.count() + crate::json::depth(&replace.value),
            PatchOperation::Move(from) => from.path.count() + self.depth.saturating_sub(from.from.count()),
            PatchOperation::Copy(copy) => {
                self.copied += object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
                copy.path.count() + self.depth.saturating_sub(copy.from.count())
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        self.depth = self.depth.max(depth);
        if self.copied > MAX_COPIED {
            return Err(unprocessable(&format!("copies of the patch make more than {MAX_COPIED} bytes")));
        }
        if self.depth > MAX_DEPTH {
            return Err(unprocessable(&format!("the patch nests the object deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_of_copies_end_before_the_memory_does() {
        let double = json!([{"op": "copy", "from": "", "path": "/a"}, {"op": "copy", "from": "", "path": "/b"}]);
        let operations: Vec<Value> = double.as_array().unwrap().iter().cycle().take(40).cloned().collect();
        let error = apply(&json!({"text": "x".repeat(1000)}), Value::Array(operations)).unwrap_err();
        assert_eq!(error.code, 422);
        assert!(error.message.contains("copies of the patch"), "{}", error.message);
    }

    #[test]
    fn operations_that_go_ever_deeper_end_before_the_stack_does() {
        let deeper = |level: usize| {
            let value: Value =
                serde_json::from_str(&format!("{}{{}}{}", r#"{"a":"#.repeat(100), "}".repeat(100))).unwrap();
            json!({"op": "add", "path": "/a".repeat(100 * level + 1), "value": value})
        };
        let operations = (0..100).map(deeper).collect();
        let error = apply(&json!({}), Value::Array(operations)).unwrap_err();
        assert!(error.message.contains("deeper than 512"), "{}", error.message);
        // Copied into itself, an object twice as deep comes out.
        let copies = (0..10).map(|level| json!({"op": "copy", "from": "", "path": "/a".repeat(1 << level)})).collect();
        assert!(apply(&json!({"a": {}}), Value::Array(copies)).is_err());
    }

    #[test]
    fn a_failing_operation_is_named_by_its_place() {
        let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/b"}]);
        let error = apply(&json!({}), patch).unwrap_err();
        assert!(error.message.contains("operation '/1' failed at path '/b'"), "{}", error.message);
    }
}
