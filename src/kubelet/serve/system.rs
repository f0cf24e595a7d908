//! `/logs/`: the files of the host's log directory, to look at (`enableSystemLogHandler` upstream, which serves them with Go's
//! `http.FileServer`; answers look like its).
//!
//! Deliberately no ranges and no `NodeLogQuery`, which is off upstream unless somebody asks for it. Invariant: nothing outside
//! of the directory is read, whatever links pods that may write to it have put there. Upstream follows them.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, statat};
use tokio::sync::mpsc;

use super::{BACKLOG, Body, full, plain, respond, stream_body};
use crate::logs::decoded;
use crate::shared::Shared;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// What there is at a place.
enum Found {
    File(File, Metadata),
    /// Names in their order, those of directories with a slash.
    Directory(Vec<String>),
}

/// Answers a request for `path`, which begins with `/logs`.
pub(super) async fn logs(shared: &Arc<Shared>, path: &str) -> Response<Body> {
    let Some(root) = shared.config.log_root.parent().map(Path::to_owned) else { return not_found() };
    let below = decoded(path.trim_start_matches('/').trim_start_matches("logs"));
    let asks_for_directory = below.ends_with('/');
    let Some(relative) = confined(&below) else { return not_found() };
    let last = relative.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match task::blocking(move || find(&root, &relative)).await {
        Ok(Found::Directory(_)) if !asks_for_directory => {
            moved(&format!("{}/", if last.is_empty() { "logs" } else { &last }))
        }
        Ok(Found::Directory(names)) => listing(&names),
        Ok(Found::File(..)) if asks_for_directory => moved(&format!("../{last}")),
        Ok(Found::File(file, metadata)) => contents(shared, file, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => not_found(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            plain(StatusCode::FORBIDDEN, "403 Forbidden\n".to_owned())
        }
        Err(error) => {
            tracing::warn!(%error, "a log of the host cannot be read");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n".to_owned())
        }
    }
}

fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

fn moved(to: &str) -> Response<Body> {
    let mut response = respond(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", full(Bytes::new()));
    // A name that cannot stand in a field leads nowhere.
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// A path without steps upward; none if it has one.
fn confined(path: &str) -> Option<PathBuf> {
    let mut confined = PathBuf::new();
    for component in Path::new(path.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => confined.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(confined)
}

/// Opens what is there. Links are followed as long as they lead to something below the root, as those in `containers` do.
fn find(root: &Path, relative: &Path) -> io::Result<Found> {
    let root = fs::canonicalize(root)?;
    let place = fs::canonicalize(root.join(relative))?;
    let below = place.strip_prefix(&root).map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied))?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let folder = File::open(&root)?;
    // Whoever puts a link into the way meanwhile is not followed; what is no file is not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(&folder, below, flags, Mode::empty(), resolve)?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return names(&file).map(Found::Directory);
    }
    if !metadata.is_file() {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(Found::File(file, metadata))
}

/// What is in a directory that is open, whatever stands at its place by now.
fn names(folder: &File) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Not all file systems say it here.
            FileType::Unknown => {
                let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
                found.map_or(FileType::Unknown, |found| FileType::from_raw_mode(found.st_mode))
            }
            known => known,
        };
        let slash = if kind == FileType::Directory { "/" } else { "" };
        names.push(format!("{}{slash}", name.to_string_lossy()));
    }
    names.sort();
    Ok(names)
}

fn listing(names: &[String]) -> Response<Body> {
    let mut text = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        text.push_str(&format!("<a href=\"{}\">{}</a>\n", link(name), in_html(name)));
    }
    text.push_str("</pre>\n");
    respond(StatusCode::OK, "text/html; charset=utf-8", full(text.into()))
}

/// A name as part of a link: what is not plain is encoded.
fn link(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/$&+,=@".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn in_html(text: &str) -> String {
    let signs = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;")];
    signs.iter().fold(text.to_owned(), |text, (sign, name)| text.replace(*sign, name))
}

/// A file as long as it was when it was opened.
fn contents(shared: &Arc<Shared>, file: File, metadata: &Metadata) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let length = metadata.len();
    shared.seams.tasks.spawn("system log", send(file, length, sender));
    let mut response = respond(StatusCode::OK, "text/plain; charset=utf-8", stream_body(receiver));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

async fn send(file: File, length: u64, out: mpsc::Sender<io::Result<Bytes>>) {
    let mut file = Some(file.take(length));
    while let Some(mut open) = file.take() {
        let (read, rest) = task::blocking(move || {
            let mut piece = vec![0; CHUNK];
            let read = open.read(&mut piece).map(|count| {
                piece.truncate(count);
                piece
            });
            (read, open)
        })
        .await;
        let is_last = !matches!(&read, Ok(piece) if !piece.is_empty());
        let piece = read.map(Bytes::from);
        if matches!(&piece, Ok(piece) if piece.is_empty()) || out.send(piece).await.is_err() || is_last {
            return;
        }
        file = Some(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_of_the_directory_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("log");
        fs::create_dir_all(root.join("pods/one")).expect("made");
        fs::write(root.join("pods/one/0.log"), "said").expect("written");
        fs::write(folder.path().join("secret"), "unsaid").expect("written");
        symlink(root.join("pods/one/0.log"), root.join("link.log")).expect("linked");
        symlink("../secret", root.join("escape")).expect("linked");
        symlink("/etc", root.join("etc")).expect("linked");
        let kind = |path: &str| match confined(path).map(|path| find(&root, &path)) {
            None => "confined".to_owned(),
            Some(Ok(Found::File(mut file, _))) => {
                let mut text = String::new();
                file.read_to_string(&mut text).expect("text");
                text
            }
            Some(Ok(Found::Directory(names))) => names.join(" "),
            Some(Err(error)) => error.kind().to_string(),
        };
        assert_eq!(kind("/"), "escape etc link.log pods/");
        assert_eq!(kind("/pods/one/0.log"), "said");
        assert_eq!(kind("/link.log"), "said");
        assert_eq!(kind("/../secret"), "confined");
        assert_eq!(kind("/pods/../../secret"), "confined");
        for path in ["/escape", "/etc/passwd", "/etc"] {
            assert_eq!(kind(path), "permission denied", "{path}");
        }
        assert_eq!(kind("/none"), "entity not found");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), Mode::RUSR).expect("made");
        let error = find(folder.path(), Path::new("pipe")).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn names_in_a_listing_are_names_whatever_they_contain() {
        assert_eq!(link("a b?<.log"), "a%20b%3F%3C.log");
        assert_eq!(in_html("<b>&\"'"), "&lt;b&gt;&amp;&#34;&#39;");
    }
}
