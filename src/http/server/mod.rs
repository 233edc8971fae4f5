//! Connections: accepting, serving and closing them.

pub(crate) mod activity;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod tls;
