//! Answers: representations and problems.

pub(crate) mod maps;
pub(crate) mod negotiate;
pub(crate) mod problem;
