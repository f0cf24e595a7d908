//! The order of merged lists.
//!
//! As `k8s.io/apimachinery/pkg/util/strategicpatch`: items that the patch names come in the order of the patch, items
//! that only the server has keep their place relative to each other and to the items they stood beside.

use std::collections::HashMap;

use serde_json::Value;

/// What identifies an item: itself, or its value of the merge key.
pub(super) fn identity<'v>(item: &'v Value, merge_key: &str) -> &'v Value {
    if merge_key.is_empty() { item } else { &item[merge_key] }
}

/// Places of items by what identifies them; of equal ones the first counts.
fn places<'v>(list: &'v [Value], merge_key: &str) -> HashMap<&'v Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (place, item) in list.iter().enumerate() {
        places.entry(identity(item, merge_key)).or_insert(place);
    }
    places
}

/// An item with its places among those that the patch orders and those that the server has.
struct Placed {
    item: Value,
    by_patch: Option<usize>,
    by_server: Option<usize>,
}

/// Orders `merged`: the items in `patch_order` by it, the others by `server_order`, both interleaved by the latter.
pub(super) fn normalize(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Vec<Value> {
    let (by_patch, by_server) = (places(patch_order, merge_key), places(server_order, merge_key));
    let placed = merged.into_iter().map(|item| {
        let identity = identity(&item, merge_key);
        let (by_patch, by_server) = (by_patch.get(identity).copied(), by_server.get(identity).copied());
        Placed { item, by_patch, by_server }
    });
    let (mut patched, mut server_only): (Vec<Placed>, Vec<Placed>) = placed.partition(|item| item.by_patch.is_some());
    patched.sort_by_key(|item| item.by_patch);
    server_only.sort_by_key(|item| item.by_server);
    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut patched = patched.into_iter().peekable();
    let mut server_only = server_only.into_iter().peekable();
    while let (Some(left), Some(right)) = (server_only.peek(), patched.peek()) {
        let left_first = matches!((left.by_server, right.by_server), (Some(left), Some(right)) if left < right);
        result.extend(if left_first { server_only.next() } else { patched.next() });
    }
    result.extend(server_only);
    result.extend(patched);
    result.into_iter().map(|placed| placed.item).collect()
}

/// Whether the items of a patch list that are no deletions occur in the order list, in its order.
pub(super) fn agrees(patch_list: &[Value], order: &[Value], merge_key: &str) -> bool {
    let mut rest = order.iter();
    patch_list
        .iter()
        .filter(|item| merge_key.is_empty() || item["$patch"] != "delete")
        .all(|item| rest.any(|place| identity(place, merge_key) == identity(item, merge_key)))
}
