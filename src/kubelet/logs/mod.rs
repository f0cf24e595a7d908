//! Container logs in the CRI format, as the shim writes them: `<time> <stream> <P|F> <text>`.
//!
//! `query` parses what a client asks, `record` one line (both pure), `files` finds the files of an attempt through
//! rotation, `stream` reads and follows, `follow` for those who are attached; `links` leads collectors to them. Nothing
//! here writes a log. Invariant: following waits for changes of the log's directory (see [`crate::directory`]).

mod files;
mod follow;
pub(crate) mod links;
mod query;
mod record;
mod stream;
mod tail;

pub(crate) use files::{is_missing, remove};
pub(crate) use follow::{Follower, From};
pub(crate) use query::{Query, decoded, pairs};
pub(crate) use stream::{Ending, stream};
pub(crate) use tail::{last_lines, read_head};
