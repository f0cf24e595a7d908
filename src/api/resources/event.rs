//! Events of the core group.

use super::{BLANK, Resource, WriteBehind};

/// `events`.
pub(super) const ROW: Resource = Resource {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    create_on_update: true,
    write_behind: WriteBehind::Always,
    ..BLANK
};
