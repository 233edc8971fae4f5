//! `GET` and `PUT /v1/galleries/{name}/snapshot`: a gallery as one file, streamed.
//!
//! Neither has a time limit for the whole, only one for a stalled transfer. A snapshot that is
//! being written pins old pages of the store, and one that is being read occupies a staging
//! gallery.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::io::{ReaderStream, StreamReader};
use utoipa::ToSchema;

use crate::{
    background::{self, Priority},
    error::{Error, Kind, ResultExt},
    gallery::{Binding, GalleryName, GalleryReader, SnapshotSummary, restore_checked_snapshot},
    http::{
        AppState, Reason, Rejection, Result,
        api::schema::File,
        key_permits::KeyPermit,
        middleware::access::KeyName,
        openapi::{GalleryProblems, WriteProblems},
        request::{model::ModelParams, options::Options, path::NamePath},
    },
    telemetry,
};

/// Size of the buffer between the store and the connection, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Download a snapshot of a gallery.
///
/// The file has all items at one moment, with a checksum. It can be restored into any store. Other
/// requests can read and write meanwhile. The number of snapshots at the same time is limited, also
/// for each API key; the response is 503 then. On an error after the response has begun, the
/// connection is closed.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}/snapshot",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses(
        (
            status = 200, description = "The snapshot.",
            body = File, content_type = "application/octet-stream",
        ),
        GalleryProblems,
    )
)]
pub(crate) async fn get_snapshot(
    State(state): State<AppState>,
    key: Option<Extension<KeyName>>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<Response> {
    options.check_model_of(&state.service, &name).await?;
    options.reject_unknown()?;
    let permit = match &key {
        Some(Extension(KeyName(key))) => Some(take_permit(&state, key)?),
        None => None,
    };
    let service = &state.service;
    // Whatever prevents the snapshot is known before the head is sent.
    let gallery = GalleryReader::open(service.galleries()?.store(), &name).await?;
    let file = snapshot_stream(gallery, name.clone(), permit, state.config.snapshot_idle)?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    let disposition = format!("attachment; filename=\"{name}.gallery\"");
    let disposition = [(header::CONTENT_DISPOSITION, disposition)];
    Ok((kind, disposition, Body::from_stream(file)).into_response())
}

/// Takes one of the permits of a key, so that other keys find one, too.
fn take_permit(state: &AppState, key: &Arc<str>) -> Result<KeyPermit> {
    let max = state.config.max_key_snapshots;
    let permit = state.snapshots.take(key, max);
    permit.ok_or_else(|| {
        telemetry::metrics().count_rejection("overloaded");
        let detail = format!("the API key `{key}` receives {max} snapshots already; retry later");
        let error = Error::new(Kind::Overloaded, detail);
        error
            .with_limit("max_key_snapshots", max as u64, "--max-key-snapshots")
            .into()
    })
}

/// Streams a snapshot. The last element is an error if the snapshot is incomplete, so that a
/// cut-off file cannot be mistaken for a complete one.
fn snapshot_stream(
    gallery: GalleryReader,
    name: GalleryName,
    permit: Option<KeyPermit>,
    limit: Duration,
) -> Result<impl Stream<Item = io::Result<Bytes>>> {
    let (reader, writer) = tokio::io::duplex(BUFFER_BYTES);
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let write = async move {
        let _permit = permit;
        tokio::select! {
            written = gallery.write_to(writer) => Ok(written?),
            () = stalled(&sent, limit) => Err(too_slow(limit)),
        }
    };
    let (end, written) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    // Encoding and hashing take a core.
    let work = move || {
        // Fails if the client has left.
        let _ = end.send(runtime.block_on(write));
    };
    background::spawn("snapshot", Priority::Low, work).internal("cannot start a thread")?;
    let file = ReaderStream::with_capacity(reader, BUFFER_BYTES).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let end = stream::once(written).filter_map(move |written| {
        let failure = match written {
            Ok(Ok(SnapshotSummary { items, bytes })) => {
                tracing::info!(gallery = %name, items, bytes, "snapshot");
                return future::ready(None);
            }
            Ok(Err(error)) => error,
            Err(error) => Error::internal(format!("writing a snapshot: {error}")).into(),
        };
        tracing::warn!(gallery = %name, error = %failure, "a snapshot was cut off");
        future::ready(Some(Err(io::Error::other(failure.to_string()))))
    });
    Ok(file.chain(end))
}

/// Resolves when the count has not changed for the duration of the limit.
async fn stalled(count: &AtomicU64, limit: Duration) {
    loop {
        let before = count.load(Ordering::Relaxed);
        sleep(limit).await;
        if count.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// The restored gallery.
#[derive(Serialize, ToSchema)]
pub(crate) struct Restored {
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Number of items.
    #[schema(example = 20_000)]
    items: u64,
    /// Size of the snapshot, in bytes.
    #[schema(example = 123_456_789)]
    bytes: u64,
}

/// Restore a gallery from a snapshot.
///
/// Once the whole file is read and its checksum is verified, it atomically replaces the gallery of
/// that name. Until then, and on any error, the old gallery stays. A gallery is restored by one
/// request at a time; a second one gets 409. A file that states what no model can have, vectors not
/// of length 1, or an id twice, is rejected. The size and time limits of requests do not apply.
#[utoipa::path(
    put,
    path = "/v1/galleries/{name}/snapshot",
    tag = "gallery",
    params(("name" = String, Path, description = "Name of the gallery.", example = "default")),
    request_body(content((File = "application/octet-stream"))),
    responses(
        (status = 200, description = "The gallery is restored.", body = Restored),
        WriteProblems,
    )
)]
pub(crate) async fn put_snapshot(
    State(state): State<AppState>,
    NamePath(name): NamePath<GalleryName>,
    options: Options,
    body: Body,
) -> Result<Json<Restored>> {
    options.reject_unknown()?;
    let service = &state.service;
    let store = service.galleries()?.store();
    let limit = state.config.snapshot_idle;
    let is_stalled = AtomicBool::new(false);
    let parts = stream::try_unfold(body.into_data_stream(), async |mut parts| {
        let Ok(next) = timeout(limit, parts.try_next()).await else {
            is_stalled.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::TimedOut.into());
        };
        let next = next.map_err(|error| {
            io::Error::other(Error::malformed(format!(
                "the body cannot be read: {error}"
            )))
        })?;
        Ok::<_, io::Error>(next.map(|part| (part, parts)))
    });
    let reader = StreamReader::new(Box::pin(parts));
    let check = |binding: &Binding| service.check_stored_binding(&name, binding);
    let restored = restore_checked_snapshot(store, &name, reader, check).await;
    if is_stalled.load(Ordering::Relaxed) {
        return Err(too_slow(limit));
    }
    let SnapshotSummary { items, bytes } = restored?;
    tracing::info!(gallery = %name, items, bytes, "restored");
    Ok(Json(Restored {
        gallery: name,
        items,
        bytes,
    }))
}

fn too_slow(limit: Duration) -> Rejection {
    let seconds = limit.as_secs();
    let detail = format!("the snapshot made no progress for {seconds} s");
    let rejection = Rejection::new(Reason::SlowRequest, detail);
    rejection.with_limit("snapshot_idle", seconds, "--snapshot-idle-timeout")
}
