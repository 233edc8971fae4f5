//! Clients that are answered while they still send are heard out: a connection that is closed on
//! them can lose the answer.

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

/// Most bytes of a body that are read though nobody looks at them, and the time for it.
const THROWN_AWAY: usize = 4 << 20;
const THROWING_AWAY: Duration = Duration::from_secs(2);

/// Sees to it that the body is read on when whoever answers has dropped it.
pub(crate) async fn hear_out(request: Request) -> Request {
    // Whoever waits to be asked for the body has not sent it, and would be asked by reading on.
    if request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| {
        if body.is_end_stream() {
            body
        } else {
            Body::new(HeardOut(Some(body)))
        }
    })
}

/// A body; `None` when it has come to its end.
struct HeardOut(Option<Body>);

impl HttpBody for HeardOut {
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

impl Drop for HeardOut {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(timeout(THROWING_AWAY, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await
        && bytes < THROWN_AWAY
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
