//! Documents compared with files below `testdata/api`; `UPDATE_EXPECT=1` writes what came out.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Compares a document with its file.
pub(crate) fn check(file: &str, found: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/api").join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, serde_json::to_string_pretty(found).unwrap() + "\n").unwrap();
    }
    let expected: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(found, &expected, "{file}");
}
