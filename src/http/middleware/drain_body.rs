//! Drains the rest of the request body after an early response, because closing the connection
//! mid-upload can lose the response.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::header,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{runtime::Handle, time::timeout};

/// Maximum number of bytes that are drained.
const MAX_BYTES: usize = 4 << 20;
/// Maximum time that draining takes.
const MAX_TIME: Duration = Duration::from_secs(2);

/// Wraps the body so that its rest is drained when the handler drops it.
pub(crate) async fn drain(request: Request) -> Request {
    // A client that sent `Expect: 100-continue` has not sent its body yet; reading would make it
    // start.
    if request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| {
        if body.is_end_stream() {
            body
        } else {
            Body::new(DrainedBody(Some(body)))
        }
    })
}

/// A body that is drained on drop; `None` after its end.
struct DrainedBody(Option<Body>);

impl HttpBody for DrainedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for DrainedBody {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(timeout(MAX_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await
        && bytes < MAX_BYTES
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
