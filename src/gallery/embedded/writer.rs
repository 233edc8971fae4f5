//! The thread that writes. Jobs that wait at the same time are committed together, so that
//! concurrent writers share one fsync.

use std::{sync::Arc, thread::JoinHandle};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{
    environment::Environment,
    indexer::Indexer,
    memory::Memory,
    transaction::{Outcome, WriteError, WriteTransaction},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    gallery::VectorFormat,
};

/// Maximum number of queued jobs; further callers wait.
const QUEUE_CAPACITY: usize = 256;
/// Maximum number of jobs in a commit.
const MAX_JOBS: usize = 256;

/// Handle of the thread. The thread ends when it is stopped or dropped, after all jobs that were
/// sent before.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only during drop.
    messages: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(thread: WriterThread) -> Result<Self> {
        let (sender, messages) = mpsc::channel(QUEUE_CAPACITY);
        let started = std::thread::Builder::new()
            .name("gallery".to_owned())
            .spawn(move || thread.run(messages))
            .internal("cannot start the gallery's thread")?;
        Ok(Self {
            messages: Some(sender),
            thread: Mutex::new(Some(started)),
        })
    }

    /// Applies an operation and waits until it is durable. `apply` may run several times.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        apply: impl Fn(&mut WriteTransaction<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.send(false, apply).await
    }

    /// As [`Writer::write`], for an operation that frees space: on a full disk it may use the
    /// reserved space.
    pub(super) async fn delete<T: Send + 'static>(
        &self,
        apply: impl Fn(&mut WriteTransaction<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.send(true, apply).await
    }

    async fn send<T: Send + 'static>(
        &self,
        frees_space: bool,
        apply: impl Fn(&mut WriteTransaction<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let closed = || Error::new(Kind::Unavailable, "the gallery has been closed");
        let (reply, outcome) = oneshot::channel();
        let job = Operation {
            frees_space,
            apply,
            outcome: None,
            reply,
        };
        let messages = self.messages.as_ref().ok_or_else(closed)?;
        messages
            .send(Message::Job(Box::new(job)))
            .await
            .map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    /// Stops the thread and waits for its end.
    pub(super) async fn stop(&self) {
        if let Some(messages) = &self.messages
            && messages.send(Message::Stop).await.is_ok()
        {
            let thread = self.thread.lock().take();
            // The panic hook has logged a panic of the thread.
            let _ = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.messages = None;
        let _ = self.thread.get_mut().take().map(JoinHandle::join);
    }
}

enum Message {
    Job(Box<dyn Job>),
    Stop,
}

/// An operation of any result type, as the thread sees it.
trait Job: Send {
    /// Returns whether the operation leaves less on the disk than before.
    fn frees_space(&self) -> bool;

    /// Applies the operation and keeps its outcome. Fails only if the whole transaction has to be
    /// abandoned.
    fn apply(&mut self, transaction: &mut WriteTransaction<'_>) -> Result<()>;

    /// Sends the outcome to the caller, or the error of the commit.
    fn reply(self: Box<Self>, committed: Result<()>);
}

struct Operation<T, F> {
    frees_space: bool,
    apply: F,
    /// Outcome of the last run of `apply`.
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: Fn(&mut WriteTransaction<'_>) -> Outcome<T> + Send,
{
    fn frees_space(&self) -> bool {
        self.frees_space
    }

    fn apply(&mut self, transaction: &mut WriteTransaction<'_>) -> Result<()> {
        self.outcome = Some(match (self.apply)(transaction) {
            Ok(value) => Ok(value),
            Err(WriteError::Operation(error)) => Err(error),
            Err(WriteError::Store(error)) => return Err(error),
        });
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<()>) {
        let Self { outcome, reply, .. } = *self;
        let not_applied = || Err(Error::internal("a write was not applied"));
        // Sending fails if the caller has gone; the write is durable all the same.
        let _ = reply.send(committed.and_then(|()| outcome.unwrap_or_else(not_applied)));
    }
}

pub(super) struct WriterThread {
    pub(super) environment: Arc<Environment>,
    pub(super) memory: Arc<Memory>,
    pub(super) indexer: Arc<Indexer>,
    /// Precision of the vectors of new galleries.
    pub(super) vectors: VectorFormat,
}

impl WriterThread {
    fn run(self, mut messages: mpsc::Receiver<Message>) {
        let mut received = Vec::new();
        let mut stop = false;
        while !stop && messages.blocking_recv_many(&mut received, MAX_JOBS) > 0 {
            let mut jobs = Vec::with_capacity(received.len());
            for message in received.drain(..) {
                match message {
                    Message::Job(job) if !stop => jobs.push(job),
                    // Its caller gets the error that the gallery is closed.
                    Message::Job(_) => {}
                    Message::Stop => stop = true,
                }
            }
            self.commit_jobs(jobs);
            self.indexer.wake();
        }
    }

    fn commit_jobs(&self, mut jobs: Vec<Box<dyn Job>>) {
        match self.commit_or_make_room(&mut jobs) {
            Ok(()) => {
                for job in jobs {
                    job.reply(Ok(()));
                }
            }
            // A job that is too large for the disk must not fail the others.
            Err(_) if jobs.len() > 1 => {
                for job in jobs {
                    self.commit_jobs(vec![job]);
                }
            }
            Err(error) => {
                if let Some(job) = jobs.pop() {
                    job.reply(Err(error));
                }
            }
        }
    }

    /// Commits the jobs. On a full disk, deletions may use the reserved space.
    fn commit_or_make_room(&self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        match self.commit(jobs) {
            Err(error)
                if error.kind() == Kind::StorageFull
                    && jobs.iter().all(|job| job.frees_space())
                    && self.environment.drop_ballast() =>
            {
                self.commit(jobs)
            }
            Ok(()) => {
                self.environment.take_ballast();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Commits the jobs in one transaction and publishes the changes. If it fails, nothing has
    /// changed.
    fn commit(&self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        let mut transaction =
            WriteTransaction::begin(&self.environment, &self.memory, self.vectors)?;
        for job in jobs.iter_mut() {
            job.apply(&mut transaction)?;
        }
        if !jobs.iter().all(|job| job.frees_space()) {
            transaction.keep_room()?;
        }
        transaction.commit()
    }
}
