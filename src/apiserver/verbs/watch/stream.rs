//! The frames of a watch.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use api::resources::Resource;
use api::status::ApiError;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream};
use http_body::Frame;
use serde_json::Value;
use store::{Change, Revision, Watch, Watched};
use tokio::time::Instant;

use super::initial_end;
use crate::BoxError;
use crate::definitions::{self, Standing};
use crate::negotiate::Form;
use crate::object;
use crate::render::Renderer;
use crate::select::Filter;
use crate::server::ApiServer;
use crate::storage;

/// How often a quiet watch says how far it is, as upstream does.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A watch before and while it streams.
pub(super) struct Events {
    renderer: Renderer,
    filter: Filter,
    ready: VecDeque<Bytes>,
    source: Option<Box<dyn Watch>>,
    /// Changes of the definition of a custom kind.
    definition: Option<Box<dyn Watch>>,
    is_first: bool,
    bookmarks: bool,
    last_bookmark: Revision,
    next_bookmark: Instant,
    end: Instant,
    /// Whoever serves it: the watch ends early when the server closes, ages in tables follow its clock.
    server: Arc<ApiServer>,
}

/// Why the stream goes on.
enum Wake {
    Source(Option<Watched>),
    Definition(Option<Watched>),
    Bookmark,
    End,
}

impl Events {
    pub(super) fn new(
        server: &Arc<ApiServer>,
        renderer: Renderer,
        filter: Filter,
        lasts: Duration,
        bookmarks: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            server: Arc::clone(server),
            renderer,
            filter,
            ready: VecDeque::new(),
            source: None,
            definition: None,
            is_first: true,
            bookmarks,
            last_bookmark: Revision(0),
            next_bookmark: now + BOOKMARK_EVERY,
            end: now + lasts,
        }
    }

    /// Ends from now on once the kind is no longer what it was; returns whether it still is.
    pub(super) async fn follow_definition(&mut self) -> Result<bool, ApiError> {
        let Some(key) = definitions::key_of(&self.renderer.row)? else { return Ok(true) };
        let store = &self.server.config.store;
        self.definition = Some(store.watch(&key.0, store.revision()).await.map_err(storage::failed)?);
        Ok(standing(&self.server, &self.renderer.row).await == Standing::Same)
    }

    /// Goes on with changes after the initial events.
    pub(super) fn follow(&mut self, watch: Box<dyn Watch>) {
        self.source = Some(watch);
    }

    /// Ends with an error after what is ready.
    pub(super) fn fail(&mut self, error: &ApiError) {
        self.source = None;
        self.ready.push_back(frame("ERROR", error.to_value().to_string().as_bytes()));
    }

    /// An object that is there at the start.
    pub(super) fn initial(&mut self, object: &Value) {
        if self.source.is_some() && self.filter.matches(object) {
            self.push("ADDED", object);
        }
    }

    /// Says that the initial events are complete.
    pub(super) fn mark_initial_end(&mut self, revision: Revision) {
        let bookmark = self.renderer.bookmark(&revision.to_string(), Some(initial_end()));
        self.ready.push_back(frame("BOOKMARK", bookmark.to_string().as_bytes()));
    }

    /// The stream of frames.
    pub(super) fn into_frames(self) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
        futures_util::stream::unfold(self, |mut events| async move {
            let bytes = events.next().await?;
            Some((Ok(Frame::data(bytes)), events))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            let wake = self.wake().await?;
            self.handle(wake).await;
        }
    }

    /// What comes next; none once the stream has ended.
    async fn wake(&mut self) -> Option<Wake> {
        let source = self.source.as_mut()?;
        let definition = self.definition.as_mut();
        let definition = async move {
            match definition {
                Some(definition) => definition.next().await,
                None => std::future::pending().await,
            }
        };
        Some(tokio::select! {
            biased;
            () = self.server.closing.cancelled() => Wake::End,
            () = tokio::time::sleep_until(self.end) => Wake::End,
            () = tokio::time::sleep_until(self.next_bookmark) => Wake::Bookmark,
            watched = source.next() => Wake::Source(watched),
            watched = definition => Wake::Definition(watched),
        })
    }

    async fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Source(Some(Watched::Changed(change))) => {
                if let Err(error) = self.change(&change).await {
                    self.fail(&error);
                }
            }
            Wake::Source(Some(Watched::Overrun)) => {
                self.fail(&ApiError::expired("the watch was too slow: list again"));
            }
            Wake::Source(None) => self.source = None,
            Wake::Definition(watched) => self.definition_changed(watched.as_ref()).await,
            // Also without bookmarks: asking the store again tells it that this watch has seen all until now, so that
            // its history may go without the watch being late.
            Wake::Bookmark => {
                self.bookmark();
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
            }
            Wake::End => {
                self.bookmark();
                self.source = None;
            }
        }
    }

    /// Ends if the kind is not what it was; what was there before a definition went is told to its end.
    async fn definition_changed(&mut self, watched: Option<&Watched>) {
        match (watched, standing(&self.server, &self.renderer.row).await) {
            (Some(Watched::Changed(_)), Standing::Same) => return,
            (_, Standing::Gone) => loop {
                let next = self.source.as_mut().and_then(|source| source.next().now_or_never().flatten());
                let Some(Watched::Changed(change)) = next else { break };
                if let Err(error) = self.change(&change).await {
                    return self.fail(&error);
                }
            },
            _ => {}
        }
        self.source = None;
    }

    fn bookmark(&mut self) {
        let Some(progress) = self.source.as_ref().map(|source| source.progress()) else { return };
        if self.bookmarks && progress > self.last_bookmark {
            self.last_bookmark = progress;
            let bookmark = self.renderer.bookmark(&progress.to_string(), None);
            self.ready.push_back(frame("BOOKMARK", bookmark.to_string().as_bytes()));
        }
    }

    /// One change as this watch sees it: what starts to match appears, what stops to match disappears.
    async fn change(&mut self, change: &Change) -> Result<(), ApiError> {
        let revision = change.revision;
        let row = &self.renderer.row;
        if self.filter.is_everything() && row.is_served_as_stored() && self.renderer.form != Form::Table {
            let (kind, value) = match (&change.before, &change.after) {
                (None, Some(after)) => ("ADDED", after),
                (Some(_), Some(after)) => ("MODIFIED", after),
                (Some(before), None) => ("DELETED", before),
                (None, None) => return Ok(()),
            };
            let put = if self.renderer.form == Form::Plain { object::splice } else { object::splice_partial };
            self.ready.push_back(frame_with(kind, value.len(), |text| put(value, revision, text)));
            return Ok(());
        }
        // The row is that of the moment at which the watch began; by another one it would be another object.
        if row.custom.is_some() && standing(&self.server, &self.renderer.row).await == Standing::Other {
            self.source = None;
            return Ok(());
        }
        let row = &self.renderer.row;
        let before = read(&self.server, row, change.before.as_ref(), revision).await?;
        let after = read(&self.server, row, change.after.as_ref(), revision).await?;
        let matches = |object: &Option<Value>| object.as_ref().is_some_and(|object| self.filter.matches(object));
        match (matches(&before), matches(&after)) {
            (false, false) => {}
            (false, true) => self.push("ADDED", after.as_ref().unwrap_or(&Value::Null)),
            (true, true) => self.push("MODIFIED", after.as_ref().unwrap_or(&Value::Null)),
            (true, false) => self.push("DELETED", before.as_ref().unwrap_or(&Value::Null)),
        }
        Ok(())
    }

    fn push(&mut self, kind: &str, object: &Value) {
        self.renderer.now = self.server.config.clock.now();
        let rendered = self.renderer.event(object, self.is_first);
        self.is_first = false;
        self.ready.push_back(frame(kind, rendered.to_string().as_bytes()));
    }
}

/// What the kind is now; that this cannot be known is an end as well.
async fn standing(server: &ApiServer, row: &Resource) -> Standing {
    server.kinds().await.map_or(Standing::Other, |kinds| kinds.standing(row))
}

/// One side of a change, as an object of a row.
async fn read(
    server: &ApiServer,
    row: &Resource,
    value: Option<&Bytes>,
    revision: Revision,
) -> Result<Option<Value>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let object = object::decode(value, revision)?;
    if !row.is_converted_elsewhere() {
        return Ok(Some(row.of_stored(object)));
    }
    Ok(server.of_stored(row, vec![object]).await?.pop())
}

/// One event, with the newline that upstream's encoder puts behind each.
fn frame(kind: &str, object: &[u8]) -> Bytes {
    frame_with(kind, object.len(), |text| text.extend_from_slice(object))
}

/// As [`frame`]; `put` appends the object, of about `size` bytes.
fn frame_with(kind: &str, size: usize, put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut text = Vec::with_capacity(size + 96);
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(kind.as_bytes());
    text.extend_from_slice(b"\",\"object\":");
    put(&mut text);
    text.extend_from_slice(b"}\n");
    text.into()
}

/// Makes a stream that is only ever used by one task shareable by type, as bodies have to be.
pub(super) struct Exclusive<T>(Mutex<Pin<Box<T>>>);

impl<T> Exclusive<T> {
    pub(super) fn new(inner: T) -> Self {
        Self(Mutex::new(Box::pin(inner)))
    }
}

impl<T: Stream> Stream for Exclusive<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.as_mut().poll_next(context)
    }
}
