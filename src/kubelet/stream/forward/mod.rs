//! Connections of a client to ports of a pod: `portForward` of the kubelet's API.
//!
//! ```text
//! client ◄─frames─► wire (spdy, spdy in a tunnel, channels) ◄─pieces─► relay ◄─TCP─► 127.0.0.1 or ::1 inside the pod
//! ```
//!
//! A session has many connections, and is one task. Invariants: a connection that is refused, is broken off or stands
//! still ends or stops itself alone, as far as the wire lets it; with the session all its connections end; nothing of the
//! pod's network is held between connections, so that its address is free once the pod is gone.
//!
//! Protocols, parameters and wording follow `k8s.io/kubelet/pkg/cri/streaming/portforward` and containerd.

mod channels;
mod pairs;
mod relay;
mod spdy;
mod tunnel;

#[cfg(feature = "fuzz")]
pub(super) use channels::{decode, ports};
#[cfg(feature = "fuzz")]
pub(super) use pairs::Pairs;

use std::sync::Arc;

use bytes::Bytes;
use client::Body;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::upgrade::OnUpgrade;
use runtime::{Runtime, SandboxId};

use super::asked::{self, Named};
use super::{bad_request, can_upgrade, spdy as spdy_wire, switched, switching, websocket};
use crate::serve::Refusal;
use crate::shared::Shared;

/// Whose ports are connected to.
struct Target {
    runtime: Arc<dyn Runtime>,
    sandbox: SandboxId,
    /// What errors call its network.
    network: String,
}

/// How frames look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wire {
    Spdy,
    Tunnel,
    Channels { base64: bool, ports: Vec<u16> },
}

/// Subprotocols of a WebSocket by preference.
const PROTOCOLS: [(&str, Carried); 3] = [
    ("SPDY/3.1+portforward.k8s.io", Carried::Spdy),
    ("v4.channel.k8s.io", Carried::Channels { base64: false }),
    ("v4.base64.channel.k8s.io", Carried::Channels { base64: true }),
];

/// What a WebSocket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Spdy,
    Channels { base64: bool },
}

/// What is spoken over SPDY itself.
const PROTOCOL: &str = "portforward.k8s.io";

/// Forwards connections to a pod.
pub(crate) async fn port_forward(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
    named: Named<'_>,
) -> Result<Response<Body>, Refusal> {
    let entry = asked::pod(shared, named)?;
    let (sandbox, network) = asked::sandbox(shared, &entry).await?;
    let upgrade = request.extensions().get::<OnUpgrade>().cloned();
    let upgrade = upgrade.ok_or_else(|| bad_request("the connection cannot be upgraded"))?;
    let (wire, response) = negotiate(request.headers(), request.uri().query().unwrap_or_default())?;
    let held = can_upgrade(shared)?;
    let target = Target { runtime: Arc::clone(&shared.seams.runtime), sandbox, network };
    shared.seams.tasks.spawn("port forward", async move {
        let _held = held;
        let Some(connection) = switched(upgrade).await else { return };
        match wire {
            Wire::Spdy => spdy::carry(connection, &target).await,
            Wire::Tunnel => spdy::carry(tunnel::Tunnel::new(connection).await, &target).await,
            Wire::Channels { base64, ports } => channels::carry(connection, (base64, &ports), &target).await,
        }
    });
    Ok(response)
}

/// Agrees on a protocol, or says why not.
fn negotiate(headers: &HeaderMap, query: &str) -> Result<(Wire, Response<Body>), Refusal> {
    let upgrade = headers.get(http::header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        let usual = Carried::Channels { base64: false };
        let (carried, fields) = websocket::shake_hands(headers, &PROTOCOLS, usual)?;
        let wire = match carried {
            Carried::Spdy => Wire::Tunnel,
            Carried::Channels { base64 } => {
                let ports = channels::ports(query).map_err(|why| bad_request(&why))?;
                Wire::Channels { base64, ports }
            }
        };
        return Ok((wire, switching("websocket", fields)));
    }
    if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        let offered = spdy_wire::offered(headers);
        if offered.is_empty() {
            return Err(bad_request("unable to upgrade: X-Stream-Protocol-Version is required"));
        }
        if !offered.contains(&PROTOCOL) {
            return Err(spdy_wire::disagree(&offered, &[PROTOCOL]));
        }
        let mut fields = HeaderMap::new();
        fields.insert(spdy_wire::PROTOCOL, HeaderValue::from_static(PROTOCOL));
        return Ok((Wire::Spdy, switching("SPDY/3.1", fields)));
    }
    Err(bad_request(&format!("unable to upgrade: missing upgrade headers in request: {upgrade:?}")))
}

#[cfg(test)]
mod tests;
