//! The server as its clients see it: every test goes through [`ApiServer::handle`] or a TLS connection.

mod accounts;
mod apply;
mod custom;
mod delete;
mod evict;
mod exchanges;
mod kubectl;
mod kubectl_accounts;
mod kubectl_apply;
mod kubectl_custom;
mod kubectl_workloads;
mod parts;
mod pki;
mod policies;
mod protobuf;
mod rbac;
mod rows;
mod samples;
mod scale;
mod services;
mod tls;
mod verbs;
mod versions;
mod watch;
mod world;
