//! `GET` and `PUT /v1/galleries/{name}/snapshot`: a gallery as one file, in and out in a stream of
//! any length.
//!
//! Neither has a time limit for the whole, only one for standing still: a copy that is being
//! written holds old pages of the store, and one that is being read holds a gallery aside.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::io::{ReaderStream, StreamReader};
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, SnapshotSummary, restore_snapshot, write_snapshot},
    http::{
        AppState,
        api::{
            gallery::{
                NamePath,
                schema::{GalleryProblems, WriteProblems},
            },
            schema::File,
        },
        request::options::Options,
    },
};

/// Bytes between the store and the connection.
const BUFFER: usize = 256 << 10;

fn too_slow(limit: Duration) -> Error {
    let detail = format!("the snapshot stood still for {} s", limit.as_secs());
    Error::new(Kind::SlowRequest, detail).with_limit(
        "snapshot_idle",
        limit.as_secs(),
        "--snapshot-idle-timeout",
    )
}

/// Copy a gallery into a file.
///
/// The file has all items as they are at one moment, with a checksum, and can be restored into any
/// store. Others read and write meanwhile. If something goes wrong after the answer has begun, the
/// connection is cut.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}/snapshot",
    tag = "gallery",
    params(("name" = String, Path, description = "The gallery.", example = "default")),
    responses(
        (status = 200, description = "The file.", body = File, content_type = "application/octet-stream"),
        GalleryProblems,
    )
)]
pub(crate) async fn get_snapshot(
    State(state): State<AppState>,
    NamePath(name): NamePath<GalleryName>,
    options: Options,
) -> Result<Response> {
    options.finish()?;
    let store = state.service().gallery()?.clone();
    store.require_gallery(&name).await?;
    let limit = state.config.snapshot_idle;
    let (reader, writer) = tokio::io::duplex(BUFFER);
    let taken = Arc::new(AtomicU64::new(0));
    let (counter, of) = (Arc::clone(&taken), name.clone());
    let written = tokio::spawn(async move {
        tokio::select! {
            written = write_snapshot(&store, &of, writer) => written,
            () = stands_still(&taken, limit) => Err(too_slow(limit)),
        }
    });
    let file = ReaderStream::with_capacity(reader, BUFFER).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    // An end that is not the file's must not look like it.
    let of = name.clone();
    let end = stream::once(written).filter_map(move |written| {
        let failure = match written {
            Ok(Ok(SnapshotSummary { items, bytes })) => {
                tracing::info!(gallery = %of, items, bytes, "snapshot");
                return future::ready(None);
            }
            Ok(Err(error)) => error,
            Err(error) => Error::internal(format!("writing a snapshot: {error}")),
        };
        tracing::warn!(gallery = %of, error = %failure, "a snapshot was cut off");
        future::ready(Some(Err(io::Error::other(failure))))
    });
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.gallery\""))
        .map_err(|error| Error::internal(error.to_string()))?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(file.chain(end))).into_response())
}

/// Resolves when the count has not changed for the time of the limit.
async fn stands_still(count: &AtomicU64, limit: Duration) {
    loop {
        let before = count.load(Ordering::Relaxed);
        sleep(limit).await;
        if count.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// A gallery that was restored.
#[derive(Serialize, ToSchema)]
pub(crate) struct Restored {
    /// The gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// How many items it has.
    #[schema(example = 20_000)]
    items: u64,
    /// The length of the file.
    #[schema(example = 123_456_789)]
    bytes: u64,
}

/// Restore a gallery from a file.
///
/// When all of the file was read and its checksum agrees, it takes the place of the gallery of that
/// name, in one step; until then, and if anything is wrong, the old one stays. The limits of bodies
/// do not hold here.
#[utoipa::path(
    put,
    path = "/v1/galleries/{name}/snapshot",
    tag = "gallery",
    params(("name" = String, Path, description = "The gallery.", example = "default")),
    request_body(content((File = "application/octet-stream"))),
    responses((status = 200, description = "It is restored.", body = Restored), WriteProblems)
)]
pub(crate) async fn put_snapshot(
    State(state): State<AppState>,
    NamePath(name): NamePath<GalleryName>,
    options: Options,
    body: Body,
) -> Result<Json<Restored>> {
    options.finish()?;
    let service = state.service();
    let store = service.gallery()?;
    let limit = state.config.snapshot_idle;
    let parts = stream::try_unfold(body.into_data_stream(), move |mut parts| async move {
        let next = timeout(limit, parts.try_next())
            .await
            .map_err(|_| io::Error::other(too_slow(limit)))?;
        let unreadable =
            |error| Error::new(Kind::Malformed, format!("the body cannot be read: {error}"));
        let next = next.map_err(|error| io::Error::other(unreadable(error)))?;
        Ok::<_, io::Error>(next.map(|part| (part, parts)))
    });
    let reader = StreamReader::new(Box::pin(parts));
    let SnapshotSummary { items, bytes } = restore_snapshot(store, &name, reader).await?;
    tracing::info!(gallery = %name, items, bytes, "restored");
    Ok(Json(Restored {
        gallery: name,
        items,
        bytes,
    }))
}
