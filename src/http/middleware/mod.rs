//! What surrounds every route.

pub mod access;
pub(crate) mod decompress;
pub(crate) mod drain_body;
pub(crate) mod observe;
pub(crate) mod route_group;
pub(crate) mod time_limit;
