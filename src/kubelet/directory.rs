//! Waiting for changes in directories.
//!
//! Used for logs and static pods. A change only means "look again". All watches of an agent share one instance of
//! inotify(7), of which a user may have few (`fs.inotify.max_user_instances`, 128 on most hosts), whereas hundreds may follow
//! logs. Where the kernel gives no instance or no further watch, the directory is looked at every [`POLL`] instead, which is
//! said once in the agent's own log. Invariant: what changes after a watch was made is told to whoever holds it.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use task::Tasks;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// How often a directory is looked at that cannot be watched.
const POLL: Duration = Duration::from_millis(250);

/// The directories that an agent watches. Clones share them.
#[derive(Clone)]
pub(crate) struct Directories(Arc<Inner>);

struct Inner {
    tasks: Tasks,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// None until it is needed, and after it has failed.
    instance: Option<Arc<OwnedFd>>,
    /// Who looks at what, by the kernel's number of the directory.
    lookers: HashMap<i32, Vec<Arc<Looker>>>,
    /// It has been said that directories are polled.
    complained: bool,
}

/// Who waits for changes of one directory.
#[derive(Default)]
struct Looker {
    changed: Notify,
    /// Nothing tells it any more.
    is_lost: AtomicBool,
}

/// A watch on a directory; dropping it ends it.
pub(crate) struct DirectoryWatch {
    looker: Arc<Looker>,
    /// None if the directory is polled.
    watched: Option<(Arc<Inner>, i32)>,
}

impl Directories {
    /// Watches nothing yet.
    pub(crate) fn new(tasks: &Tasks) -> Self {
        Self(Arc::new(Inner { tasks: tasks.clone(), watched: Mutex::default() }))
    }

    /// Begins to watch the files of a directory.
    ///
    /// # Errors
    /// If there is no such directory, or it cannot be read.
    pub(crate) fn watch(&self, path: &Path) -> io::Result<DirectoryWatch> {
        let looker = Arc::new(Looker::default());
        let mut watched = self.0.watched();
        match watched.add(&self.0, path) {
            Ok(number) => {
                watched.lookers.entry(number).or_default().push(Arc::clone(&looker));
                Ok(DirectoryWatch { looker, watched: Some((Arc::clone(&self.0), number)) })
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM | Errno::NOSYS) => {
                if !std::mem::replace(&mut watched.complained, true) {
                    let help = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches";
                    tracing::warn!(help, "directories cannot be watched and are looked at again and again");
                }
                looker.is_lost.store(true, Ordering::Release);
                Ok(DirectoryWatch { looker, watched: None })
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells lookers of changes until the instance fails or nobody is left who might look.
    async fn tell(self: Arc<Self>, events: AsyncFd<Arc<OwnedFd>>) {
        let error = loop {
            match self.read(&events).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        tracing::warn!(%error, "directories cannot be watched any more and are looked at again and again");
        let mut watched = self.watched();
        watched.instance = None;
        for looker in watched.lookers.drain().flat_map(|(_, lookers)| lookers) {
            looker.is_lost.store(true, Ordering::Release);
            looker.changed.notify_one();
        }
    }

    async fn read(&self, events: &AsyncFd<Arc<OwnedFd>>) -> io::Result<()> {
        let mut ready = events.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(ready.get_inner(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => self.watched().tell(event.wd(), event.events()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

impl Watched {
    fn add(&mut self, inner: &Arc<Inner>, path: &Path) -> Result<i32, Errno> {
        let instance = match &self.instance {
            Some(instance) => Arc::clone(instance),
            None => {
                let instance = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
                #[expect(deprecated, reason = "the safe constructor: an owned descriptor always names the same file")]
                let events = AsyncFd::new(Arc::clone(&instance));
                let events = events.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
                inner.tasks.spawn("directories", Arc::clone(inner).tell(events));
                self.instance = Some(Arc::clone(&instance));
                instance
            }
        };
        let kinds = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&*instance, path, kinds)
    }

    fn tell(&mut self, number: i32, what: ReadFlags) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Nobody knows what was lost.
            self.lookers.values().flatten().for_each(|looker| looker.changed.notify_one());
        }
        self.lookers.get(&number).into_iter().flatten().for_each(|looker| looker.changed.notify_one());
    }

    /// Forgets a looker, and the directory with the last one.
    fn forget(&mut self, number: i32, looker: &Arc<Looker>) {
        let Some(lookers) = self.lookers.get_mut(&number) else { return };
        lookers.retain(|other| !Arc::ptr_eq(other, looker));
        if lookers.is_empty() {
            self.lookers.remove(&number);
            if let Some(instance) = &self.instance {
                // It has ended by itself if the directory is gone. Numbers are given out anew only after very many.
                let _ = inotify::remove_watch(instance.as_fd(), number);
            }
        }
    }
}

impl DirectoryWatch {
    /// Waits until something may have changed since the last call. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.looker.is_lost.load(Ordering::Acquire) {
            tokio::time::sleep(POLL).await;
        } else {
            self.looker.changed.notified().await;
        }
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        if let Some((inner, number)) = self.watched.take() {
            inner.watched().forget(number, &self.looker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_directories_are_watched_than_a_user_may_have_instances() {
        let (tasks, folder) = (Tasks::new(), tempfile::tempdir().expect("a folder"));
        let directories = Directories::new(&tasks);
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").expect("a limit");
        let count = limit.trim().parse::<usize>().expect("a number").min(2000) + 1;
        let mut watches = Vec::new();
        for number in 0..count {
            let path = folder.path().join(number.to_string());
            std::fs::create_dir(&path).expect("made");
            watches.push((directories.watch(&path).expect("watched"), path));
        }
        for (watch, path) in &mut watches {
            assert!(watch.watched.is_some(), "it is not polled");
            std::fs::write(path.join("file"), "").expect("written");
            watch.changed().await;
        }
        drop(watches);
        assert!(directories.0.watched().lookers.is_empty());
    }

    #[tokio::test]
    async fn each_of_several_who_look_at_a_directory_is_told_until_it_goes() {
        let (tasks, folder) = (Tasks::new(), tempfile::tempdir().expect("a folder"));
        let directories = Directories::new(&tasks);
        let mut one = directories.watch(folder.path()).expect("watched");
        let mut two = directories.watch(folder.path()).expect("watched");
        std::fs::write(folder.path().join("file"), "").expect("written");
        one.changed().await;
        drop(one);
        two.changed().await;
        std::fs::write(folder.path().join("other"), "").expect("written");
        two.changed().await;
        assert_eq!(directories.0.watched().lookers.len(), 1);
        assert!(directories.watch(&folder.path().join("none")).is_err());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_watched_is_looked_at_again_and_again() {
        let (tasks, folder) = (Tasks::new(), tempfile::tempdir().expect("a folder"));
        let directories = Directories::new(&tasks);
        let mut watch = directories.watch(folder.path()).expect("watched");
        // Reading anything but an instance of inotify fails.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        drop(theirs);
        #[expect(deprecated, reason = "the safe constructor: an owned descriptor always names the same file")]
        let other = AsyncFd::new(Arc::new(OwnedFd::from(ours))).expect("registered");
        Arc::clone(&directories.0).tell(other).await;
        watch.changed().await;
        watch.changed().await;
        assert!(watch.looker.is_lost.load(Ordering::Acquire));
    }
}
