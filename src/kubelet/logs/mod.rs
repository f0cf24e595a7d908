//! Container logs in the CRI format, as the shim writes them: `<time> <stream> <P|F> <text>`.
//!
//! `query` parses what a client asks, `record` one line (both pure), `files` finds the files of an attempt through
//! rotation, `stream` reads and follows, `follow` for those who are attached. Nothing here writes. Invariant: following waits for inotify(7) and never polls.

mod files;
mod follow;
mod query;
mod record;
mod stream;
mod tail;

pub(crate) use files::is_missing;
pub(crate) use follow::{Follower, From};
pub(crate) use query::{Query, pairs};
pub(crate) use stream::{Ending, stream};
pub(crate) use tail::{last_lines, read_head};
