//! A request with a content type, a query and a body.
//!
//! The first byte chooses the content type and the second is the length of the query. The query and
//! the body follow. The boundary of forms is `x`.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use dinoserve::http::fuzz::read_request;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

const CONTENT_TYPES: [&str; 6] = [
    "image/png",
    "multipart/form-data; boundary=x",
    "application/json",
    "application/octet-stream",
    "multipart/form-data",
    "text/plain;;=\"",
];

/// JSON is parsed on a blocking thread.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime")
});

fuzz_target!(|input: &[u8]| {
    let [choice, length, rest @ ..] = input else {
        return;
    };
    let content_type = CONTENT_TYPES[usize::from(*choice) % CONTENT_TYPES.len()];
    let (query, body) = rest.split_at(rest.len().min(usize::from(*length)));
    let Ok(query) = std::str::from_utf8(query) else {
        return;
    };
    RUNTIME.block_on(read_request(
        content_type,
        query,
        Bytes::copy_from_slice(body),
    ));
});
