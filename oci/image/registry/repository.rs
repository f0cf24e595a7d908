//! Questions to one repository: asked, authenticated, redirected, repeated.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;

use super::auth::{self, Challenge, Credentials};
use super::error;
use super::transport::{Transport, host, is_loopback, without_query};
use super::{MANIFEST_LIMIT, RegistryError, RegistryOptions};
use crate::image::media::ACCEPTED_DOCUMENTS;
use crate::image::{Digest, Reference};

const WORDS_LIMIT: usize = 64 << 10;
const TOKEN_LIMIT: usize = 1 << 20;
const REDIRECTS: usize = 10;
const USER: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

/// One repository of a registry, as one user sees it.
#[derive(Debug)]
pub(crate) struct Repository {
    transport: Transport,
    pub(super) options: RegistryOptions,
    base: String,
    path: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest, index or configuration.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) content: Vec<u8>,
    pub(crate) media_type: Option<String>,
}

/// What is asked for.
pub(super) struct Question<'a> {
    pub(super) url: &'a str,
    pub(super) accept: Option<&'a str>,
    pub(super) range: Option<u64>,
}

impl Repository {
    pub(crate) fn new(name: &Reference, credentials: Option<Credentials>, options: RegistryOptions) -> Self {
        let api = name.api_host();
        let plain = is_loopback(api) || options.insecure.iter().any(|insecure| insecure == name.domain());
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{api}/v2/{}", name.path());
        let path = name.path().to_owned();
        Self { transport: Transport::new(), options, base, path, credentials, authorization: Mutex::new(None) }
    }

    /// The manifest or index of a tag or digest.
    pub(crate) async fn manifest(&self, selector: &str) -> Result<Fetched, RegistryError> {
        let url = format!("{}/manifests/{selector}", self.base);
        let accept = ACCEPTED_DOCUMENTS.join(", ");
        self.document(&url, Some(&accept)).await
    }

    /// A small blob, such as a configuration.
    pub(crate) async fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        Ok(self.document(&self.blob_url(digest), None).await?.content)
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    async fn document(&self, url: &str, accept: Option<&str>) -> Result<Fetched, RegistryError> {
        let mut pause = self.options.pause;
        for attempt in 0.. {
            let response = self.get(&Question { url, accept, range: None }).await?;
            let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.map(str::to_owned);
            match read_limited(url, response).await {
                Ok(content) => return Ok(Fetched { content, media_type }),
                Err(error) if error.is_passing() && attempt < self.options.attempts => {
                    tracing::debug!(url, error = &error as &dyn std::error::Error, "document broke off, trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(RegistryError::Silent { url: url.to_owned() })
    }

    /// Asks until there is an answer: authenticates, follows, waits.
    pub(super) async fn get(&self, question: &Question<'_>) -> Result<Response<Incoming>, RegistryError> {
        let mut pause = self.options.pause;
        let mut waited = Duration::ZERO;
        let mut attempts = 0;
        let mut authenticated = 0;
        loop {
            let sent = self.authorization();
            let response = match self.follow(question).await {
                Err(error @ (RegistryError::Request { .. } | RegistryError::Silent { .. })) => {
                    attempts += 1;
                    if attempts > self.options.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    continue;
                }
                other => other?,
            };
            match response.status() {
                status if status.is_success() => return Ok(response),
                // A second time: a token may run out during a long pull.
                StatusCode::UNAUTHORIZED if authenticated < 2 => {
                    authenticated += 1;
                    self.authenticate(response, sent).await?;
                }
                status if passes(status) => {
                    let asked = retry_after(response.headers());
                    let wait = asked.unwrap_or(pause);
                    attempts += 1;
                    if attempts > self.options.attempts || waited + wait > self.options.patience {
                        return Err(refused(question.url, response).await);
                    }
                    waited += wait;
                    tokio::time::sleep(wait).await;
                    pause *= 2;
                }
                _ => return Err(refused(question.url, response).await),
            }
        }
    }

    /// Sends a question and follows redirects. Credentials go to the registry itself only.
    async fn follow(&self, question: &Question<'_>) -> Result<Response<Incoming>, RegistryError> {
        let first: Uri = parse(question.url, question.url)?;
        let mut uri = first.clone();
        for _ in 0..REDIRECTS {
            let same = (uri.scheme(), uri.authority()) == (first.scheme(), first.authority());
            let response = self.transport.send(self.request(&uri, question, same)).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location else { return Ok(response) };
            let next = resolve_location(&uri, location, question.url)?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                let message = format!("redirected to {}, which has no TLS", without_query(&next));
                return Err(RegistryError::Protocol { url: question.url.to_owned(), message });
            }
            uri = next;
        }
        Err(RegistryError::Protocol { url: question.url.to_owned(), message: "redirected too often".to_owned() })
    }

    fn request(&self, uri: &Uri, question: &Question<'_>, with_credentials: bool) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER));
        if let Some(accept) = question.accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
            headers.insert(ACCEPT, accept);
        }
        if let Some(range) = question.range.and_then(|from| HeaderValue::from_str(&format!("bytes={from}-")).ok()) {
            headers.insert(RANGE, range);
        }
        if with_credentials {
            self.authorization().map(|value| headers.insert(AUTHORIZATION, value));
        }
        request
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does what the registry demands, so that the next request may succeed.
    async fn authenticate(&self, denied: Response<Incoming>, sent: Option<HeaderValue>) -> Result<(), RegistryError> {
        if self.authorization() != sent {
            // Another request of this pull has complied meanwhile.
            return Ok(());
        }
        let offers = denied.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let offered = offers.flat_map(Challenge::parse).min_by_key(|challenge| *challenge == Challenge::Basic);
        let authorization = match (offered, &self.credentials) {
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
                self.fetch_token(&Challenge::token_url(&realm, service.as_deref(), &scope)).await?
            }
            (Some(Challenge::Basic), Some(credentials)) => credentials.basic(),
            _ => None,
        };
        if authorization.is_none() || authorization == sent {
            return Err(self.denied(denied).await);
        }
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = authorization;
        Ok(())
    }

    async fn fetch_token(&self, url: &str) -> Result<Option<HeaderValue>, RegistryError> {
        let uri: Uri = parse(url, url)?;
        let secure = uri.scheme_str() == Some("https") || self.base.starts_with("http:");
        if !secure {
            let message = "the registry sends for a token without TLS".to_owned();
            return Err(RegistryError::Protocol { url: without_query(&uri), message });
        }
        let mut request = self.request(&uri, &Question { url, accept: None, range: None }, false);
        if let Some(basic) = self.credentials.as_ref().and_then(Credentials::basic) {
            request.headers_mut().insert(AUTHORIZATION, basic);
        }
        let response = self.transport.send(request).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.denied(response).await);
        }
        if !response.status().is_success() {
            return Err(refused(&without_query(&uri), response).await);
        }
        let body = collect(response, TOKEN_LIMIT).await;
        let body = body.map_err(|source| RegistryError::Request { url: without_query(&uri), source })?;
        let token: Token = serde_json::from_slice(&body).map_err(|error| RegistryError::Protocol {
            url: without_query(&uri),
            message: format!("no token: {error}"),
        })?;
        Ok(token.token.or(token.access_token).as_deref().and_then(auth::bearer))
    }

    async fn denied(&self, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let body = collect(response, WORDS_LIMIT).await.unwrap_or_default();
        let registry = self.base.parse::<Uri>().map(|uri| host(&uri)).unwrap_or_default();
        RegistryError::Denied { registry, message: error::words(status, &body) }
    }
}

#[derive(serde::Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn passes(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Seconds; the other form, a date, is as good as no answer to a client that keeps its own pace.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn refused(url: &str, response: Response<Incoming>) -> RegistryError {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let body = collect(response, WORDS_LIMIT).await.unwrap_or_default();
    let message = error::words(status, &body);
    let url = url.to_owned();
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { url, message },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let registry = url.parse::<Uri>().map(|uri| host(&uri)).unwrap_or(url);
            RegistryError::Denied { registry, message }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let registry = url.parse::<Uri>().map(|uri| host(&uri)).unwrap_or(url);
            RegistryError::TooManyRequests { registry, retry_after, message }
        }
        _ => RegistryError::Status { url, status, message },
    }
}

async fn read_limited(url: &str, response: Response<Incoming>) -> Result<Vec<u8>, RegistryError> {
    let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
    collect(response, limit).await.map_err(|source| match source.is::<http_body_util::LengthLimitError>() {
        true => RegistryError::TooLong { url: url.to_owned(), limit: MANIFEST_LIMIT },
        false => RegistryError::Request { url: url.to_owned(), source },
    })
}

async fn collect(
    response: Response<Incoming>,
    limit: usize,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Limited::new(response.into_body(), limit).collect().await?.to_bytes().to_vec())
}

fn parse(address: &str, asked: &str) -> Result<Uri, RegistryError> {
    address.parse().map_err(|error| RegistryError::Protocol {
        url: asked.to_owned(),
        message: format!("invalid address: {error}"),
    })
}

/// A `Location` header against the URL it came from: absolute, or relative to the host (RFC 9110 §10.2.2).
fn resolve_location(from: &Uri, location: &str, asked: &str) -> Result<Uri, RegistryError> {
    if location.contains("://") {
        return parse(location, asked);
    }
    let scheme = from.scheme_str().unwrap_or("https");
    match location.strip_prefix("//") {
        Some(authority) => parse(&format!("{scheme}://{authority}"), asked),
        None if location.starts_with('/') => parse(&format!("{scheme}://{}{location}", host(from)), asked),
        None => {
            let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            parse(&format!("{scheme}://{}{directory}/{location}", host(from)), asked)
        }
    }
}
