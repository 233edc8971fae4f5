//! Responses: content negotiation, bodies and problems.

pub(crate) mod answer;
pub(crate) mod negotiate;
pub(crate) mod problem;
