//! The threads that read for requests, apart from the runtime's own: whatever is read, point reads
//! and other requests find a thread. Each kind of read has permits of its own, and waits for them
//! without a thread.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    background::{self, Priority},
    error::{Error, Kind, Result, ResultExt},
};

type Job = Box<dyn FnOnce() + Send>;

/// The request behind a read. Long reads ask whether it still waits.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a>(&'a dyn Fn() -> bool);

impl<'a> Caller<'a> {
    /// Returns a caller that has gone when `has_left` returns true.
    pub(super) fn new(has_left: &'a dyn Fn() -> bool) -> Self {
        Self(has_left)
    }

    /// Fails if the request has gone, so that its read ends.
    pub(super) fn check(self) -> Result<()> {
        if (self.0)() {
            return Err(Error::new(Kind::Unavailable, "the client has left"));
        }
        Ok(())
    }
}

/// Kinds of reads, each with its permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// A search.
    Search,
    /// A page or a list.
    Page,
}

/// The threads, which end when this is dropped.
#[derive(Debug)]
pub(super) struct Readers {
    jobs: Sender<Job>,
    searches: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

impl Readers {
    /// Starts the threads for `searches` searches and half as many pages at the same time.
    pub(super) fn start(searches: usize) -> Result<Self> {
        let pages = searches.div_ceil(2);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..searches + pages {
            let queue = Arc::clone(&queue);
            background::spawn("gallery reader", Priority::Low, move || run(&queue))
                .internal("cannot start a thread of the gallery")?;
        }
        Ok(Self {
            jobs,
            searches: Arc::new(Semaphore::new(searches)),
            pages: Arc::new(Semaphore::new(pages)),
        })
    }

    /// Runs a read. If this future is dropped, a read that waits is not run, and [`Caller::check`]
    /// ends a read that runs.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        kind: Read,
        read: impl FnOnce(Caller<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permits = match kind {
            Read::Search => &self.searches,
            Read::Page => &self.pages,
        };
        let ended = "the gallery's readers have ended";
        let permit = Arc::clone(permits).acquire_owned().await.internal(ended)?;
        let (reply, answer) = oneshot::channel();
        let job = move || {
            let has_left = || reply.is_closed();
            let caller = Caller::new(&has_left);
            let value = caller.check().and_then(|()| read(caller));
            drop(permit);
            // Fails if the caller has left.
            let _ = reply.send(value);
        };
        let sent = self.jobs.send(Box::new(job));
        sent.map_err(|_| Error::internal(ended))?;
        answer.await.internal("reading the gallery")?
    }
}

/// Runs jobs until their sender is dropped. The permits bound the queue.
fn run(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().recv();
        let Ok(job) = next else { return };
        // The panic hook has logged a panic, and the caller gets an error.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{channel, sync_channel},
        time::Duration,
    };

    use tokio::{
        task::{JoinHandle, spawn},
        time::sleep,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Starts a read that ends when something is sent.
    fn held(readers: &Arc<Readers>, kind: Read) -> (Sender<()>, JoinHandle<Result<()>>) {
        let (end, ended) = channel();
        let readers = Arc::clone(readers);
        let read = async move {
            let wait = move |_: Caller<'_>| ended.recv_timeout(PATIENCE).internal("waiting");
            readers.run(kind, wait).await
        };
        (end, spawn(read))
    }

    #[tokio::test]
    async fn pages_and_searches_have_permits_of_their_own() {
        let readers = Arc::new(Readers::start(4).expect("threads"));
        let pages: Vec<_> = (0..50).map(|_| held(&readers, Read::Page)).collect();
        while readers.pages.available_permits() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        // Whatever the pages do, searches run, as many as there are permits.
        let searches: Vec<_> = (0..4).map(|_| held(&readers, Read::Search)).collect();
        for (end, search) in searches {
            end.send(()).expect("a search that runs");
            search.await.expect("no panic").expect("a value");
        }
        for (end, page) in pages {
            end.send(()).expect("a page that waits");
            page.await.expect("no panic").expect("a value");
        }
        assert_eq!(readers.pages.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_read_ends_when_its_caller_has_left() {
        let readers = Arc::new(Readers::start(1).expect("threads"));
        let (started, start) = sync_channel(1);
        let (ended, end) = sync_channel(1);
        let reading = Arc::clone(&readers);
        let read = spawn(async move {
            let read = move |caller: Caller<'_>| {
                started.send(()).expect("the test waits");
                loop {
                    if let Err(error) = caller.check() {
                        ended.send(()).expect("the test waits");
                        return Err::<(), _>(error);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            reading.run(Read::Page, read).await
        });
        while start.try_recv().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        // One that waits for the permit is never run.
        let waiting = Arc::clone(&readers);
        let second = spawn(async move {
            let read = |_: Caller<'_>| -> Result<()> { panic!("no client waits for this read") };
            waiting.run(Read::Page, read).await
        });
        sleep(Duration::from_millis(20)).await;
        second.abort();
        read.abort();
        assert!(read.await.is_err_and(|error| error.is_cancelled()));
        end.recv_timeout(PATIENCE).expect("the read ends");
        let value = readers.run(Read::Page, |_| Ok(3)).await;
        assert_eq!(value.expect("a free permit"), 3);
    }

    #[tokio::test]
    async fn a_panic_fails_only_its_read() {
        let readers = Readers::start(1).expect("threads");
        for _ in 0..5 {
            let read = |_: Caller<'_>| -> Result<()> { panic!("as a test") };
            readers.run(Read::Page, read).await.expect_err("no value");
            assert_eq!(
                readers.run(Read::Search, |_| Ok(1)).await.expect("a value"),
                1
            );
        }
    }
}
