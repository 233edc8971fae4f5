//! ConnectionActivity of a connection: requests in progress, and progress of its responses.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// Requests in progress, and for HTTP/2 the progress of responses: a client may answer pings
/// without ever reading a response.
pub(crate) struct ConnectionActivity {
    opened: Instant,
    in_progress: AtomicUsize,
    had_request: AtomicBool,
    http2: AtomicBool,
    /// Notified when a request begins or ends.
    changed: Notify,
    /// Responses that are not sent completely.
    responses: AtomicUsize,
    /// Responses that wait for their source and not for the client.
    waiting: AtomicUsize,
    /// Time of the last progress, in milliseconds since the connection opened.
    last_progress: AtomicU64,
}

impl Default for ConnectionActivity {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            in_progress: AtomicUsize::new(0),
            had_request: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            changed: Notify::new(),
            responses: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            last_progress: AtomicU64::new(0),
        }
    }
}

impl ConnectionActivity {
    /// Returns whether there ever was a request.
    pub(crate) fn had_any_request(&self) -> bool {
        self.had_request.load(Ordering::Acquire)
    }

    /// Returns whether response progress is tracked.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Acquire)
    }

    /// Resolves when a request begins or ends.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when no request has been in progress for `time`.
    pub(crate) async fn idle_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            let idle = async {
                if self.in_progress.load(Ordering::Acquire) > 0 {
                    std::future::pending::<()>().await;
                }
                // Slightly longer than hyper's own timeout for an HTTP/1.1 request head.
                sleep(time + time / 4).await;
            };
            tokio::select! {
                () = changed => {}
                () = idle => return,
            }
        }
    }

    /// Resolves when there have been responses for `time` and the client has read nothing of them.
    pub(crate) async fn stalled_for(&self, time: Duration) {
        self.no_progress_for(time, || {
            self.responses.load(Ordering::Acquire) > 0 && self.waiting.load(Ordering::Acquire) == 0
        })
        .await;
    }

    /// Resolves when no request and no progress has been seen for `time`. For connections that are
    /// closing.
    pub(crate) async fn drained_for(&self, time: Duration) {
        self.no_progress_for(time, || {
            self.in_progress.load(Ordering::Acquire) == 0
                && self.waiting.load(Ordering::Acquire) == 0
        })
        .await;
    }

    /// Resolves when `applies` holds and there has been no progress for `time`.
    async fn no_progress_for(&self, time: Duration, applies: impl Fn() -> bool) {
        loop {
            sleep(time / 4).await;
            let last = Duration::from_millis(self.last_progress.load(Ordering::Acquire));
            if applies() && self.opened.elapsed().saturating_sub(last) >= time {
                return;
            }
        }
    }

    fn record_progress(&self) {
        self.last_progress
            .store(self.opened.elapsed().as_millis() as u64, Ordering::Release);
    }
}

/// Counts a request until its response is ready.
pub(crate) struct InProgress(Arc<ConnectionActivity>);

impl InProgress {
    pub(crate) fn new(activity: &Arc<ConnectionActivity>, is_http2: bool) -> Self {
        activity.http2.fetch_or(is_http2, Ordering::AcqRel);
        activity.in_progress.fetch_add(1, Ordering::AcqRel);
        activity.had_request.store(true, Ordering::Release);
        activity.changed.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.record_progress();
        self.0.in_progress.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// Maximum size of a data frame, in bytes. HTTP/2 accepts a whole frame as soon as one byte fits
/// the window, and buffered bytes are invisible here, so frames are kept small.
const MAX_FRAME_BYTES: usize = 64 << 10;

/// A response body that records its progress.
pub(crate) struct TrackedBody {
    body: Body,
    pending: Bytes,
    is_waiting: bool,
    activity: Arc<ConnectionActivity>,
}

impl TrackedBody {
    pub(crate) fn new(body: Body, activity: &Arc<ConnectionActivity>) -> Self {
        activity.record_progress();
        activity.responses.fetch_add(1, Ordering::AcqRel);
        Self {
            body,
            pending: Bytes::new(),
            is_waiting: false,
            activity: Arc::clone(activity),
        }
    }

    fn wait(&mut self, is_waiting: bool) {
        let was_waiting = std::mem::replace(&mut self.is_waiting, is_waiting);
        match (was_waiting, is_waiting) {
            (false, true) => drop(self.activity.waiting.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.activity.waiting.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.activity.record_progress();
        if self.pending.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            self.wait(frame.is_pending());
            let data = match frame {
                Poll::Ready(Some(Ok(frame))) => frame.into_data(),
                other => return other,
            };
            match data {
                Ok(data) => self.pending = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.pending.len().min(MAX_FRAME_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.pending.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, pending) = (self.body.size_hint(), self.pending.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(pending));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(pending));
        }
        hint
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.wait(false);
        self.activity.record_progress();
        self.activity.responses.fetch_sub(1, Ordering::AcqRel);
    }
}
