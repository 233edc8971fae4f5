//! The HTTP server: from bytes on a connection to calls of the use cases, and back.
//!
//! [`router`] lists the routes. `api` has one file per resource, `request` reads what clients send,
//! `response` writes answers, `middleware` surrounds every route, and `server` owns connections.

mod api;
mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod key_permits;
mod middleware;
mod openapi;
mod page;
mod request;
mod response;
mod router;
mod server;
mod state;

pub(crate) use self::api::features::{
    anomaly::score::AnomalyJson, matching::MatchesJson, objects::ObjectsJson,
    segments::segment::SegmentsJson,
};
pub(crate) use self::page::samples;
pub(crate) use self::response::rejection::{Reason, Rejection, Result};
pub use self::{
    config::HttpConfig,
    middleware::access,
    router::description,
    server::{
        serve::{ServeConfig, Stop, serve},
        tls::Certificate,
    },
    state::AppState,
};
