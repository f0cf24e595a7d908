//! How much one address or one user may have of the server.

use crate::body;

/// The limits; tests have smaller ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections that one address may have; an IPv6 address stands for its subnet of 64 bits.
    pub(crate) connections_of_address: u32,
    /// Connections from other machines in all; those of this machine do not compete with them.
    pub(crate) connections_from_afar: u32,
    /// Streams that one user may have open; a controller has one for each kind that it follows.
    pub(crate) streams_of_user: u32,
    /// Bytes of bodies of one user that may be under way, by what their requests say of them.
    pub(crate) bodies_of_user: u32,
    /// What a body counts at least: it has a stream and buffers, however small it is.
    pub(crate) smallest_body: u32,
    /// What a body counts at most, and if nobody knows how long it is: more is not read.
    pub(crate) largest_body: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_of_address: 2048,
            connections_from_afar: 8192,
            streams_of_user: 2048,
            bodies_of_user: 64 * 1024 * 1024,
            smallest_body: 64 * 1024,
            largest_body: body::LIMIT,
        }
    }
}
