//! Who may have how much of the server at once: levels of seats, queues per user, counts of streams and connections.
//!
//! A small form of KEP-1040, API Priority and Fairness. Requests from the network are sorted into levels by the
//! `FlowSchema` and `PriorityLevelConfiguration` objects that there are ([`schemas`], [`levels`], followed by [`keeper`]),
//! and sit on seats of their level, so that a flood on one level takes nothing from another; within a level flows take
//! turns. What takes long without work (a watch, a log) holds no seat but is counted per user. Components of this process
//! call the server without a network and never wait here; probes of health do not either. Invariants: no lock is held
//! across an await; a request that is dropped gives back what it holds; nobody waits longer than [`WAIT`].

mod keeper;
mod levels;
mod limits;
mod queues;
mod schemas;
mod seats;
mod tally;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::resources::flowcontrol::{CATCH_ALL, EXEMPT, bootstrap};
use api::status::ApiError;
use api::user::{AUTHENTICATED, UserInfo};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::Body;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use levels::Present;
pub(crate) use levels::{Class, Label};
pub(crate) use limits::Limits;
use seats::Seat;
pub(crate) use tally::{Counted, Tally};

/// How long a request waits for a seat at most; upstream gives a quarter of a request's minute.
const WAIT: Duration = Duration::from_secs(15);
/// By which responses say which schema and which level their request belongs to.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// Upstream's words.
const REFUSAL: &str = "Too many requests, please try again later.";
/// As many objects of a list weigh as much as one other request; upstream's figure.
const OBJECTS_PER_SEAT: u32 = 100;
/// Upstream's limit of what a list weighs.
const HEAVIEST: u32 = 10;
/// What a list of unknown length weighs within one namespace.
const LIST_OF_NAMESPACE: u32 = 2;
/// What a list of unknown length weighs over all namespaces.
const LIST_OF_ALL: u32 = 5;

/// Marks a request that came over the network, with the address it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outside(pub(crate) IpAddr);

/// What a request takes of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Seats while it is answered; 0 if it never waits.
    weight: u32,
    /// Whether the answer goes on after the request is carried out.
    streams: bool,
}

/// What a request holds while it is carried out.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    _seat: Option<Seat>,
    stream: Option<Counted<String>>,
}

/// The seats of all levels.
pub(crate) struct Fairness {
    present: RwLock<Arc<Present>>,
    streams: Arc<Tally<String>>,
    bodies: Arc<Tally<String>>,
    limits: Limits,
}

impl Fairness {
    /// Seats that nobody holds, on the levels that every cluster has.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            present: RwLock::new(Arc::new(Present::of(&bootstrap::objects(), &Present::default()))),
            streams: Arc::default(),
            bodies: Arc::default(),
            limits,
        }
    }

    /// Sorts requests by these schemas and levels from now on. Without those that must be there, they are as they must be.
    fn adopt(&self, objects: &[Value]) {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let is_there = |wanted: &Value| {
            objects.iter().any(|object| object["kind"] == wanted["kind"] && name(object) == name(wanted))
        };
        let missing = bootstrap::objects().into_iter().filter(|wanted| [EXEMPT, CATCH_ALL].contains(&&*name(wanted)));
        let missing = missing.filter(|wanted| !is_there(wanted));
        let objects: Vec<Value> = objects.iter().cloned().chain(missing).collect();
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(Present::of(&objects, &present));
    }

    /// Where a request belongs that came from outside.
    pub(crate) fn classify(&self, outside: Option<Outside>, user: &UserInfo, info: &RequestInfo) -> Option<Class> {
        outside?;
        let present = Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner));
        present.classify(user, info)
    }

    /// Lets a body in that came from outside, of so many bytes if that is known; 429 if too much of the user's is under
    /// way. It counts until it is dropped.
    pub(crate) fn receive(
        &self,
        outside: Option<Outside>,
        user: &UserInfo,
        bytes: Option<u64>,
    ) -> Result<Option<Counted<String>>, ApiError> {
        let Some(outside) = outside else { return Ok(None) };
        let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(u32::MAX);
        let bytes = bytes.clamp(self.limits.smallest_body, self.limits.largest_body);
        let counted = self.bodies.add(flow(user, outside), bytes, self.limits.bodies_of_user);
        counted.map(Some).ok_or_else(|| ApiError::too_many_requests(REFUSAL, 1))
    }

    /// Waits for a seat for what came from outside; 429 if there is none in time.
    pub(crate) async fn admit(
        &self,
        outside: Option<Outside>,
        user: &UserInfo,
        class: Option<Class>,
        work: Work,
    ) -> Result<Permit, ApiError> {
        let Some(outside) = outside else { return Ok(Permit::default()) };
        let refused = || ApiError::too_many_requests(REFUSAL, 1);
        let own = flow(user, outside);
        let stream = match work.streams {
            true => Some(self.streams.count(own.clone(), self.limits.streams_of_user).ok_or_else(refused)?),
            false => None,
        };
        let seat = match class {
            Some(Class { seats: Some(level), flow, .. }) if work.weight > 0 => {
                Some(level.enter(flow.unwrap_or(own), work.weight, WAIT).await.ok_or_else(refused)?)
            }
            _ => None,
        };
        Ok(Permit { _seat: seat, stream })
    }
}

/// Whose share it is: a user's, or that of all strangers at one address.
fn flow(user: &UserInfo, Outside(address): Outside) -> String {
    if user.is_in(AUTHENTICATED) { user.username.clone() } else { address.to_string() }
}

impl Label {
    /// Says in a response where its request belongs.
    pub(crate) fn put(&self, response: &mut Response<Body>) {
        for (name, uid) in [(SCHEMA_UID, &self.schema), (LEVEL_UID, &self.level)] {
            if let Ok(value) = HeaderValue::from_str(uid)
                && !uid.is_empty()
            {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

impl Permit {
    /// Gives back the seat; a stream stays counted until its body ends or is dropped.
    pub(crate) fn follow(self, response: Response<Body>) -> Response<Body> {
        let Some(stream) = self.stream else { return response };
        response.map(|body| {
            body.map_frame(move |frame| {
                let _held = &stream;
                frame
            })
            .boxed()
        })
    }
}

impl Work {
    /// What a request takes, as far as its address tells.
    pub(crate) fn of(info: &RequestInfo, query: &Query) -> Self {
        match info {
            RequestInfo::Path { path, .. } => {
                let first = path.split('/').find(|segment| !segment.is_empty()).unwrap_or_default();
                let is_probe = matches!(first, "healthz" | "livez" | "readyz");
                Self { weight: u32::from(!is_probe), streams: false }
            }
            RequestInfo::Resource(request) => match request.subresource.as_str() {
                "log" | "exec" | "attach" | "portforward" | "proxy" => Self { weight: 0, streams: true },
                _ => Self { weight: weight(request, query), streams: request.verb == "watch" },
            },
        }
    }
}

fn weight(request: &ResourceRequest, query: &Query) -> u32 {
    if !matches!(request.verb.as_str(), "list" | "deletecollection") || !request.name.is_empty() {
        return 1;
    }
    match query.get("limit").and_then(|limit| limit.parse::<u32>().ok()).filter(|limit| *limit > 0) {
        Some(limit) => limit.div_ceil(OBJECTS_PER_SEAT).min(HEAVIEST),
        None if request.namespace.is_empty() => LIST_OF_ALL,
        None => LIST_OF_NAMESPACE,
    }
}

#[cfg(test)]
mod tests;
