//! Connections: accepting, serving and closing them.

mod connection;
mod connection_activity;
mod reload;
pub(crate) mod serve;
pub(crate) mod tls;
