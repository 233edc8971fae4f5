//! Connections: accepting, serving and closing them.

mod connection;
mod connection_activity;
mod head_scanner;
mod reload;
pub(crate) mod serve;
mod strict_head;
pub(crate) mod tls;
