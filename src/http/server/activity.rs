//! What goes on at a connection: whether requests are being answered, and whether their answers are
//! taken.

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

/// The requests of a connection, and its answers of HTTP/2, whose client may take nothing of them
/// and yet answer pings.
pub(crate) struct Activity {
    began: Instant,
    busy: AtomicUsize,
    used: AtomicBool,
    http2: AtomicBool,
    /// Something has begun or ended.
    changed: Notify,
    /// Answers of which not all was taken.
    answers: AtomicUsize,
    /// Those that wait for what they are made of, not for the client.
    waiting: AtomicUsize,
    /// When something was last taken, in milliseconds since the connection began.
    taken: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            busy: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            changed: Notify::new(),
            answers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// Whether there ever was a request.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether its answers are known here.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Acquire)
    }

    /// Resolves when a request begins or ends.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when no request has been there for so long.
    pub(crate) async fn quiet_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            let quiet = async {
                if self.busy.load(Ordering::Acquire) > 0 {
                    std::future::pending::<()>().await;
                }
                // A little longer than HTTP/1.1 waits for a head, which closes the connection by
                // itself.
                sleep(time + time / 4).await;
            };
            tokio::select! {
                () = changed => {}
                () = quiet => return,
            }
        }
    }

    /// Resolves when there have been answers for so long, and the client has taken nothing of any.
    pub(crate) async fn untaken_for(&self, time: Duration) {
        loop {
            sleep(time / 4).await;
            let there = self.answers.load(Ordering::Acquire) > 0
                && self.waiting.load(Ordering::Acquire) == 0;
            if there && self.since_taken() >= time {
                return;
            }
        }
    }

    /// Resolves when nothing has been asked or taken for so long. For a connection that is to end.
    pub(crate) async fn over_for(&self, time: Duration) {
        loop {
            sleep(time / 4).await;
            let busy =
                self.busy.load(Ordering::Acquire) > 0 || self.waiting.load(Ordering::Acquire) > 0;
            if !busy && self.since_taken() >= time {
                return;
            }
        }
    }

    fn since_taken(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.taken.load(Ordering::Acquire)))
    }

    fn take(&self) {
        self.taken
            .store(self.began.elapsed().as_millis() as u64, Ordering::Release);
    }
}

/// A request that is being answered.
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(crate) fn new(activity: &Arc<Activity>, is_http2: bool) -> Self {
        activity.http2.fetch_or(is_http2, Ordering::AcqRel);
        activity.busy.fetch_add(1, Ordering::AcqRel);
        activity.used.store(true, Ordering::Release);
        activity.changed.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.take();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// Most bytes that are given at once. HTTP/2 takes a piece whole as soon as the client has room for
/// one byte of it, and what it has taken nobody sees any more.
const PIECE: usize = 64 << 10;

/// The body of an answer that tells when something is taken of it.
pub(crate) struct Answer {
    body: Body,
    rest: Bytes,
    waits: bool,
    activity: Arc<Activity>,
}

impl Answer {
    pub(crate) fn new(body: Body, activity: &Arc<Activity>) -> Self {
        activity.take();
        activity.answers.fetch_add(1, Ordering::AcqRel);
        Self {
            body,
            rest: Bytes::new(),
            waits: false,
            activity: Arc::clone(activity),
        }
    }

    fn wait(&mut self, waits: bool) {
        match (std::mem::replace(&mut self.waits, waits), waits) {
            (false, true) => drop(self.activity.waiting.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.activity.waiting.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.activity.take();
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            self.wait(frame.is_pending());
            let data = match frame {
                Poll::Ready(Some(Ok(frame))) => frame.into_data(),
                other => return other,
            };
            match data {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.wait(false);
        self.activity.take();
        self.activity.answers.fetch_sub(1, Ordering::AcqRel);
    }
}
