//! What clients send: bodies, options, and the admission of a request.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod json;
pub(crate) mod options;
