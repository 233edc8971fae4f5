//! What surrounds every route.

pub mod access;
pub(crate) mod drain_body;
pub(crate) mod observe;
