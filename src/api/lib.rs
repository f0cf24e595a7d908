//! Kubernetes vocabulary, pure: metadata, quantities, selectors, patches, Status, the resource table.
//!
//! Everything may use it; it depends on third parties only, does no input or output and reads no clock. Objects are
//! `serde_json::Value` here: typed round trips through k8s-openapi happen at the edges (kubelet, controllers).

pub mod cel;
pub mod cron;
pub mod discovery;
#[cfg(test)]
mod golden;
pub mod json;
pub mod managed;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod proto;
pub mod quantity;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod user;
