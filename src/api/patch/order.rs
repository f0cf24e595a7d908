//! The order of merged lists.
//!
//! As `k8s.io/apimachinery/pkg/util/strategicpatch`: items that the patch names come in the order of the patch, items
//! that only the server has keep their place relative to each other and to the items they stood beside.

use serde_json::Value;

/// What identifies an item: itself, or its value of the merge key.
pub(super) fn identity<'v>(item: &'v Value, merge_key: &str) -> &'v Value {
    if merge_key.is_empty() { item } else { &item[merge_key] }
}

fn index(list: &[Value], item: &Value, merge_key: &str) -> Option<usize> {
    let wanted = identity(item, merge_key);
    list.iter().position(|other| identity(other, merge_key) == wanted)
}

/// Orders `merged`: the items in `patch_order` by it, the others by `server_order`, both interleaved by the latter.
pub(super) fn normalize(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Vec<Value> {
    let (mut patched, mut server_only): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(patch_order, item, merge_key).is_some());
    patched.sort_by_key(|item| index(patch_order, item, merge_key));
    server_only.sort_by_key(|item| index(server_order, item, merge_key));
    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut patched = patched.into_iter().peekable();
    let mut server_only = server_only.into_iter().peekable();
    while let (Some(left), Some(right)) = (server_only.peek(), patched.peek()) {
        let places = (index(server_order, left, merge_key), index(server_order, right, merge_key));
        let left_first = matches!(places, (Some(left), Some(right)) if left < right);
        result.extend(if left_first { server_only.next() } else { patched.next() });
    }
    result.extend(server_only);
    result.extend(patched);
    result
}

/// Whether the items of a patch list that are no deletions occur in the order list, in its order.
pub(super) fn agrees(patch_list: &[Value], order: &[Value], merge_key: &str) -> bool {
    let mut rest = order.iter();
    patch_list
        .iter()
        .filter(|item| merge_key.is_empty() || item["$patch"] != "delete")
        .all(|item| rest.any(|place| identity(place, merge_key) == identity(item, merge_key)))
}
