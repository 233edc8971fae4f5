//! Entry points of the fuzz targets in `fuzz/`: everything that reads a request, without a server.

use axum::{body::Body, http::Request};
use bytes::Bytes;

use crate::{
    gallery::ItemFilter,
    http::{
        HttpConfig,
        api::{
            features::{
                attention::AttentionParams, embed::EmbedParams, maps::StyleParams, pca::PcaParams,
                similarity::SimilarityParams,
            },
            gallery::params::{FilterParams, ItemParams, SearchParams, VectorParams},
            schema::ImageParams,
        },
        request::{
            body,
            contents::{Batch, Contents, Images, InputImages, QueryInputs},
        },
    },
};

/// Reads a request as each kind of contents. No input may cause a panic.
pub async fn read_request(content_type: &str, query: &str, body: Bytes) {
    read_contents::<Images>(content_type, query, &body).await;
    read_contents::<QueryInputs>(content_type, query, &body).await;
    read_contents::<Batch>(content_type, query, &body).await;
    read_contents::<InputImages>(content_type, query, &body).await;
    read_contents::<()>(content_type, query, &body).await;
    if let Ok(filter) = serde_json::from_slice(&body) {
        let _ = ItemFilter::parse(&filter);
    }
}

async fn read_contents<C: Contents>(content_type: &str, query: &str, body: &Bytes) {
    let request = Request::post(format!("/?{query}")).header("content-type", content_type);
    let Ok(request) = request.body(Body::from(body.clone())) else {
        return;
    };
    let config = HttpConfig::default();
    let Ok((body, mut options)) = body::read(request, &config, C::KIND).await else {
        return;
    };
    // Errors are ignored: an invalid option is a problem of the client.
    let _ = options.take::<ImageParams>();
    let _ = options.take::<EmbedParams>();
    let _ = options.take::<PcaParams>();
    let _ = options.take::<AttentionParams>();
    let _ = options.take::<SimilarityParams>();
    let _ = options.take::<StyleParams>();
    let _ = options.take::<VectorParams>();
    let _ = options.take::<SearchParams>();
    let _ = options.take::<FilterParams>().map(FilterParams::filter);
    let _ = options.take::<ItemParams>().map(ItemParams::check);
    let _ = options.reject_unknown();
    let _ = C::from_body(body);
}
