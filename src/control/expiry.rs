//! Removes events an hour after they last happened, as the API server's `--event-ttl` does upstream.
//!
//! Looks when the oldest event is due, so a quiet cluster is left alone for an hour at a time. Narrow by intent: only
//! time stamps and names are read.

use std::time::Duration;

use client::{Client, ClientError, unless_overtaken};
use http::Method;
use jiff::Timestamp;
use serde_json::Value;
use task::{SharedClock, Tasks};

/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(3600);
/// Between two looks at least, and at most.
const SOONEST: Duration = Duration::from_secs(300);
/// Events listed at once.
const PAGE: u32 = 500;

/// What is to become of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be removed.
    Expired,
    /// It is due after this time.
    DueIn(Duration),
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks) {
    let (client, clock) = (client.clone(), SharedClock::clone(clock));
    tasks.spawn("event-expiry", async move {
        loop {
            let next = match sweep(&client, &clock).await {
                Ok(next) => next,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot remove expired events");
                    SOONEST
                }
            };
            tokio::time::sleep(next).await;
        }
    });
}

/// Decides by the last time the event is known to have happened. One without any time stamp is kept its full time.
pub fn decide(event: &Value, now: Timestamp) -> Verdict {
    let stamps = [
        &event["lastTimestamp"],
        &event["series"]["lastObservedTime"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let last = stamps.iter().filter_map(|stamp| stamp.as_str()?.parse::<Timestamp>().ok()).max().unwrap_or(now);
    let age = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    if age >= KEPT { Verdict::Expired } else { Verdict::DueIn(KEPT - age) }
}

/// Removes what is due and says when to look again.
async fn sweep(client: &Client, clock: &SharedClock) -> Result<Duration, ClientError> {
    let mut next = KEPT;
    let mut token = String::new();
    loop {
        let page = client.request(Method::GET, &format!("/api/v1/events?limit={PAGE}{token}"), None).await?;
        for event in page["items"].as_array().into_iter().flatten() {
            match decide(event, clock.now()) {
                Verdict::DueIn(due) => next = next.min(due),
                Verdict::Expired => remove(client, event).await?,
            }
        }
        match page["metadata"]["continue"].as_str() {
            Some(more) if !more.is_empty() => token = format!("&continue={more}"),
            _ => return Ok(next.max(SOONEST)),
        }
    }
}

async fn remove(client: &Client, event: &Value) -> Result<(), ClientError> {
    let text = |field: &str| event["metadata"][field].as_str().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{}/events/{}", text("namespace"), text("name"));
    // Exactly the event that was read: one that has happened again meanwhile stays.
    let options = serde_json::json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": text("resourceVersion")},
    });
    unless_overtaken(client.request(Method::DELETE, &path, Some(&options)).await).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::scripted::{Answer, Exchange, Scripted, exchange};
    use serde_json::json;
    use task::SimulatedClock;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_latest_time_stamp_counts() {
        let old = json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00Z"}});
        assert_eq!(decide(&old, now()), Verdict::Expired);
        let repeated = json!({"metadata": old["metadata"], "lastTimestamp": "2026-01-01T11:30:00Z"});
        assert_eq!(decide(&repeated, now()), Verdict::DueIn(KEPT / 2));
        let series =
            json!({"metadata": old["metadata"], "series": {"lastObservedTime": "2026-01-01T11:59:00.000000Z"}});
        assert_eq!(decide(&series, now()), Verdict::DueIn(KEPT - Duration::from_secs(60)));
        assert_eq!(decide(&json!({}), now()), Verdict::DueIn(KEPT));
    }

    #[tokio::test(start_paused = true)]
    async fn only_expired_events_are_removed_and_the_next_look_is_when_one_is_due() {
        let event = |name: &str, last: &str| {
            let metadata = json!({"name": name, "namespace": "x", "resourceVersion": "7"});
            json!({"metadata": metadata, "lastTimestamp": last})
        };
        let items = [event("old", "2026-01-01T10:00:00Z"), event("new", "2026-01-01T11:20:00Z")];
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": "7"}});
        let transport = Scripted::new(vec![
            exchange("GET /api/v1/events?limit=500", Answer::Json(200, json!({"items": items}))),
            Exchange {
                body: options,
                ..exchange("DELETE /api/v1/namespaces/x/events/old", Answer::Json(200, json!({})))
            },
        ]);
        let client = Client::new(Arc::new(transport.clone()), "test");
        let clock: SharedClock = Arc::new(SimulatedClock::starting_at(now()));
        assert_eq!(sweep(&client, &clock).await.unwrap(), Duration::from_secs(1200));
        assert!(transport.is_over());
    }
}
