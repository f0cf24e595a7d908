//! The name of a template: the hash that its set or revision and its pods carry as a label.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Characters that make no words and are not mistaken for each other (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short hash of a template; another one for each number of collisions. FNV-1a of its JSON: it need not be upstream's,
/// because a set is recognized by its template.
pub(super) fn of(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut text = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        text.extend_from_slice(&collisions.to_le_bytes());
    }
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let number = text.iter().fold(0x811c_9dc5_u32, mix).to_string();
    number.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}
