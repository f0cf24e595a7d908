//! A layer's bytes, in order and complete, however often the connection breaks.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::RegistryError;
use super::repository::{Question, Repository};
use crate::image::Digest;

/// Frames between the network and the digest; each up to some 400 KiB.
const IN_FLIGHT: usize = 16;
/// A connection that brings nothing for so long is given up and resumed.
const IDLE: Duration = Duration::from_secs(60);

/// What passes from the network to the thread that unpacks.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Everything has been sent. Without it, the end of the channel means that the download failed.
    End,
}

/// The reading end of a download.
#[derive(Debug)]
pub(crate) struct Download {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    complete: bool,
    /// Bytes that have been taken in.
    taken: Arc<AtomicU64>,
}

/// A channel for one download, whose bytes are counted.
pub(crate) fn download(taken: Arc<AtomicU64>) -> (mpsc::Sender<Piece>, Download) {
    let (sender, pieces) = mpsc::channel(IN_FLIGHT);
    (sender, Download { pieces, piece: Bytes::new(), complete: false, taken })
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.complete {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => {
                    self.taken.fetch_add(data.len() as u64, Ordering::Relaxed);
                    self.piece = data;
                }
                Some(Piece::End) => self.complete = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download broke off")),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

impl Repository {
    /// Sends a blob of the promised size through the channel. Also ends, without error, when nobody receives any more.
    pub(crate) async fn stream_blob(
        &self,
        digest: &Digest,
        size: u64,
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), RegistryError> {
        let url = self.blob_url(digest);
        let mut received = 0;
        let mut failures = 0;
        let mut pause = self.options.pause;
        loop {
            let range = (received > 0).then_some(received);
            let response = match self.get(&Question { url: &url, accept: None, range }).await {
                Err(RegistryError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => {
                    return Err(RegistryError::Truncated { url, received, size });
                }
                other => other?,
            };
            let before = received;
            let broken = match self.receive(response, &url, size, &mut received, &pieces).await? {
                Passed::NobodyListens => return Ok(()),
                Passed::Everything if received == size => {
                    let _ = pieces.send(Piece::End).await;
                    return Ok(());
                }
                Passed::Everything => None,
                Passed::Broken(source) => Some(source),
            };
            if received > before {
                (failures, pause) = (0, self.options.pause);
            }
            failures += 1;
            if failures > self.options.attempts {
                return Err(match broken {
                    Some(source) => RegistryError::Request { url, source },
                    None => RegistryError::Truncated { url, received, size },
                });
            }
            tracing::debug!(%url, received, size, "download broke off, resuming");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn receive(
        &self,
        response: Response<Incoming>,
        url: &str,
        size: u64,
        received: &mut u64,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Passed, RegistryError> {
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => skipped(&response, *received).ok_or_else(|| RegistryError::Protocol {
                url: url.to_owned(),
                message: "the registry sends another part than was asked for".to_owned(),
            })?,
            // The registry knows no ranges and begins anew.
            _ => *received,
        };
        let mut body = response.into_body();
        loop {
            let frame = match tokio::time::timeout(IDLE, body.frame()).await {
                Ok(None) => return Ok(Passed::Everything),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Ok(Passed::Broken(error.into())),
                Err(elapsed) => return Ok(Passed::Broken(elapsed.into())),
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            skip -= known as u64;
            let _ = data.split_to(known);
            if data.is_empty() {
                continue;
            }
            *received += data.len() as u64;
            if *received > size {
                return Err(RegistryError::TooLong { url: url.to_owned(), limit: size });
            }
            if pieces.send(Piece::Data(data)).await.is_err() {
                return Ok(Passed::NobodyListens);
            }
        }
    }
}

enum Passed {
    /// The answer has ended.
    Everything,
    NobodyListens,
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// How many bytes of a partial answer are known already; none if it begins behind them.
fn skipped(response: &Response<Incoming>, received: u64) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    received.checked_sub(start.parse().ok()?)
}
