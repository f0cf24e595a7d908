//! Schemas and levels as they are now, and the seats behind them.
//!
//! Every level has its share of [`SEATS`], and whoever belongs to none is of the level `catch-all`. Each flow of a level
//! has a queue of its own, so that nobody's luck with a hash matters and the numbers of queues and hands do not; levels
//! do not lend each other seats.

use std::collections::HashMap;
use std::sync::Arc;

use api::resources::flowcontrol::CATCH_ALL;
use api::user::UserInfo;
use serde_json::Value;

use super::queues::Shape;
use super::schemas::Schema;
use super::seats::Level;
use crate::request::RequestInfo;

/// Requests that are worked on at once, those of exempt levels aside. Upstream's figure is 600, for larger machines.
const SEATS: u64 = 240;

/// What is known of the schemas and levels at a time.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// The first to be asked first.
    schemas: Vec<Schema>,
    levels: HashMap<String, Place>,
}

/// A level.
#[derive(Debug, Clone)]
struct Place {
    uid: String,
    /// None if its requests never wait.
    seats: Option<Arc<Level>>,
}

/// Where a request belongs.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    /// What responses say of it.
    pub(crate) label: Label,
    pub(super) seats: Option<Arc<Level>>,
    /// Whose turn it takes; none if that is its user's.
    pub(super) flow: Option<String>,
}

/// Which schema and which level a request belongs to, by their UIDs; empty before they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(super) schema: String,
    pub(super) level: String,
}

impl Present {
    /// What the objects say; levels that were there before keep who sits on their seats.
    pub(super) fn of(objects: &[Value], before: &Self) -> Self {
        let kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        let found: Vec<(&Value, Option<u64>)> =
            kind("PriorityLevelConfiguration").map(|level| (level, shares(level))).collect();
        let sum: u64 = found.iter().filter_map(|(_, shares)| *shares).sum();
        let place = |(level, shares): (&Value, Option<u64>)| {
            let name = level["metadata"]["name"].as_str().unwrap_or_default();
            let seats = shares.map(|shares| {
                let shape = shape(level, (SEATS * shares).div_ceil(sum.max(1)));
                match before.levels.get(name).and_then(|place| place.seats.as_ref()) {
                    Some(seats) => {
                        seats.reshape(shape);
                        Arc::clone(seats)
                    }
                    None => Level::new(shape),
                }
            });
            let uid = level["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            (name.to_owned(), Place { uid, seats })
        };
        let levels: HashMap<String, Place> = found.into_iter().map(place).collect();
        // What names a level that is not there is as if it were not there itself.
        let schemas = kind("FlowSchema").map(Schema::parse).filter(|schema| levels.contains_key(&schema.level));
        let mut schemas: Vec<Schema> = schemas.collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        Self { schemas, levels }
    }

    /// Where a request belongs; none if there is not even a level for everything else.
    pub(super) fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Class> {
        let found = self.schemas.iter().find(|schema| schema.is_about(user, info));
        let schema = found.or_else(|| self.schemas.iter().find(|schema| schema.name == CATCH_ALL))?;
        let place = self.levels.get(&schema.level)?;
        Some(Class {
            label: Label { schema: schema.uid.clone(), level: place.uid.clone() },
            seats: place.seats.clone(),
            // Flows of two schemas are never one, though they meet in a level.
            flow: schema.flow(info).map(|flow| format!("{}/{flow}", schema.name)),
        })
    }
}

/// The share of a level; none if its requests never wait.
fn shares(level: &Value) -> Option<u64> {
    let limited = &level["spec"]["limited"];
    (level["spec"]["type"] == "Limited").then(|| limited["nominalConcurrencyShares"].as_u64().unwrap_or(0))
}

fn shape(level: &Value, seats: u64) -> Shape {
    let response = &level["spec"]["limited"]["limitResponse"];
    let queue = match response["type"] == "Queue" {
        true => response["queuing"]["queueLengthLimit"].as_u64().unwrap_or(0),
        false => 0,
    };
    let bounded = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Shape { seats: bounded(seats), queue: usize::try_from(queue).unwrap_or(usize::MAX) }
}
