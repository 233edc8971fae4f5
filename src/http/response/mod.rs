//! Responses: content negotiation, bodies, rejections and problems.

pub(crate) mod answer;
pub(crate) mod negotiate;
pub(crate) mod problem;
pub(crate) mod rejection;
