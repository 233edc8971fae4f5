//! What the fuzz targets in `fuzz/` reach of the edge: everything that reads a request, without a
//! server.

use axum::{body::Body, http::Request};
use bytes::Bytes;

use crate::{
    features::render::Style,
    gallery::ItemFilter,
    http::{
        HttpConfig,
        request::body::{self, Takes},
    },
    service::{AttentionOptions, EmbedOptions, PcaOptions, VectorOptions},
};

/// Reads a request of each kind from what a client may send. Nothing is to panic, whatever it is.
pub async fn read_request(content_type: &str, query: &str, body: Bytes) {
    for takes in [
        Takes::Images,
        Takes::ImagesOrVector,
        Takes::Items,
        Takes::Input,
        Takes::Nothing,
    ] {
        let request = Request::post(format!("/?{query}")).header("content-type", content_type);
        let Ok(request) = request.body(Body::from(body.clone())) else {
            return;
        };
        let Ok((contents, mut options)) = body::read(request, &HttpConfig::default(), takes).await
        else {
            continue;
        };
        // A client's wrong option is an error, and no concern here.
        let _ = options.take_image();
        let _ = options.take::<EmbedOptions>();
        let _ = options.take::<PcaOptions>();
        let _ = options.take::<AttentionOptions>();
        let _ = options.take::<Style>();
        let _ = options.take::<VectorOptions>();
        let _ = options.finish();
        match takes {
            Takes::Items => drop(contents.into_items()),
            Takes::ImagesOrVector => drop(contents.subjects()),
            _ => {}
        }
    }
    if let Ok(filter) = serde_json::from_slice(&body) {
        let _ = ItemFilter::parse(&filter);
    }
}
