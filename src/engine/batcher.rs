//! The thread that forms batches for the workers.
//!
//! There is no timer. A job goes to an idle worker at once, so batching costs a lone request
//! nothing. While all workers are busy, jobs accumulate. The next idle worker then gets the oldest
//! job along with others of the same grid.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{
    EnginePlan, EngineState,
    cores::CoreBudget,
    queue::{Event, Job, QueuedJob},
};

/// The batcher's view of a worker.
pub(super) struct WorkerSlot {
    /// Channel for the worker's batches.
    pub(super) batches: mpsc::UnboundedSender<Vec<Job>>,
    pub(super) state: WorkerState,
}

/// State of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// The worker waits for a batch.
    Idle,
    /// The worker runs a batch.
    Busy,
    /// The worker's last run failed; it is probing or replacing its session.
    Recovering,
    /// Replacing the session failed; the worker keeps retrying.
    Broken,
}

/// Distributes jobs to workers.
pub(super) struct Batcher {
    workers: Vec<WorkerSlot>,
    /// Queued jobs, oldest first.
    queued: VecDeque<QueuedJob>,
    /// How the engine runs. With solo threads, the last worker uses all cores, for an image that is
    /// alone in the engine.
    plan: Arc<EnginePlan>,
    cores: CoreBudget,
    state: watch::Sender<EngineState>,
}

impl Batcher {
    /// Creates a batcher and marks its engine as ready. The last worker is the solo worker if the
    /// plan has one.
    pub(super) fn new(
        workers: Vec<WorkerSlot>,
        plan: EnginePlan,
        cores: CoreBudget,
        state: watch::Sender<EngineState>,
    ) -> Self {
        let plan = Arc::new(plan);
        state.send_replace(EngineState::Ready(Arc::clone(&plan)));
        Self {
            workers,
            queued: VecDeque::new(),
            plan,
            cores,
            state,
        }
    }

    /// Runs until the queue is closed and its last job is assigned.
    pub(super) fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut open = true;
        while open || !self.queued.is_empty() {
            let Some(event) = events.blocking_recv() else {
                return;
            };
            let mut next = Some(event);
            while let Some(event) = next {
                match event {
                    Event::Job(job) => self.queued.push_back(job),
                    Event::Idle(worker) => self.mark_idle(worker),
                    Event::Recovering(worker) => {
                        self.workers[worker].state = WorkerState::Recovering;
                    }
                    Event::Broken(worker, reason) => self.mark_broken(worker, reason),
                    Event::Closed => open = false,
                }
                next = events.try_recv().ok();
            }
            // The callers of these jobs have left.
            self.queued.retain(|queued| !queued.job.reply.is_closed());
            if self.all_broken() {
                // Dropping the jobs fails them, because it is unknown when a worker recovers.
                self.queued.clear();
            }
            while let Some((worker, batch)) = self.assign() {
                self.workers[worker].state = WorkerState::Busy;
                // This fails only if the worker's thread has ended; the jobs fail with it.
                let _ = self.workers[worker].batches.send(batch);
            }
        }
    }

    fn mark_idle(&mut self, worker: usize) {
        self.workers[worker].state = WorkerState::Idle;
        let is_ready = matches!(*self.state.borrow(), EngineState::Ready(_));
        if !is_ready {
            let ready = EngineState::Ready(Arc::clone(&self.plan));
            self.state.send_replace(ready);
        }
    }

    /// Takes a worker out of service. The engine is ready as long as another one works.
    fn mark_broken(&mut self, worker: usize, reason: String) {
        self.workers[worker].state = WorkerState::Broken;
        if self.all_broken() {
            self.state.send_replace(EngineState::Failed(reason));
        }
    }

    fn all_broken(&self) -> bool {
        let mut workers = self.workers.iter();
        workers.all(|worker| worker.state == WorkerState::Broken)
    }

    /// Returns the next worker to get a batch, and the batch.
    fn assign(&mut self) -> Option<(usize, Vec<Job>)> {
        if self.queued.is_empty() {
            return None;
        }
        let regular = self.workers.len() - usize::from(self.plan.solo_threads.is_some());
        if let Some(solo) = self.workers.get(regular) {
            let mut workers = self.workers.iter();
            let any_busy = workers.any(|worker| worker.state == WorkerState::Busy);
            // If all regular workers are out of service, the solo worker does all the work.
            let is_last = self.workers[..regular].iter().all(|worker| {
                matches!(worker.state, WorkerState::Recovering | WorkerState::Broken)
            });
            // While another model runs, waiting for all cores would leave some of them idle.
            let is_alone = self.queued.len() == 1 && self.cores.is_idle();
            match solo.state {
                WorkerState::Idle if !any_busy && (is_alone || is_last) => {
                    return Some((regular, self.take(1)));
                }
                // The solo worker uses all cores; a concurrent image would slow down both.
                WorkerState::Busy => return None,
                WorkerState::Idle | WorkerState::Recovering | WorkerState::Broken => {}
            }
        }
        let mut idle =
            (0..regular).filter(|&worker| self.workers[worker].state == WorkerState::Idle);
        let worker = idle.next()?;
        // Idle workers share the jobs, so that no core idles while another runs a long batch.
        let sharing = 1 + idle.count();
        Some((worker, self.take(sharing)))
    }

    /// Removes the oldest job and others of its grid: the share of one of `sharing` workers.
    fn take(&mut self, sharing: usize) -> Vec<Job> {
        let Some(grid) = self.queued.front().map(|oldest| oldest.job.input.grid) else {
            return Vec::new();
        };
        let grids = self.queued.iter().map(|queued| queued.job.input.grid);
        let share = grids
            .filter(|other| *other == grid)
            .count()
            .div_ceil(sharing);
        let fitting = self.plan.max_batch_patches / grid.patches().max(1);
        let count = share.min(self.plan.max_batch).min(fitting).max(1);
        let mut batch = Vec::with_capacity(count);
        let mut index = 0;
        while batch.len() < count && index < self.queued.len() {
            if self.queued[index].job.input.grid == grid {
                batch.extend(self.queued.remove(index).map(|queued| queued.job));
            } else {
                index += 1;
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::{
        engine::{Input, Provider, RequestedOutputs, SessionOptions},
        vision::{Grid, RgbImage},
    };

    fn batcher(workers: usize, solo_threads: Option<usize>, grids: &[usize]) -> Batcher {
        let plan = EnginePlan {
            providers: vec![Provider::Cpu],
            workers,
            solo_threads,
            max_batch: 8,
            max_batch_patches: 4,
            session: SessionOptions::default(),
        };
        let slots = (0..workers + usize::from(solo_threads.is_some()))
            .map(|_| WorkerSlot {
                batches: mpsc::unbounded_channel().0,
                state: WorkerState::Idle,
            })
            .collect();
        let mut batcher = Batcher::new(
            slots,
            plan,
            CoreBudget::new(),
            watch::Sender::new(EngineState::Loading),
        );
        let permits = Arc::new(Semaphore::new(grids.len()));
        batcher.queued.extend(grids.iter().map(|&height| QueuedJob {
            job: Job {
                input: Input {
                    pixels: RgbImage::new(1, 1),
                    grid: Grid { height, width: 1 },
                },
                outputs: RequestedOutputs::default(),
                queued: Instant::now(),
                reply: oneshot::channel().0,
            },
            _permit: Arc::clone(&permits).try_acquire_owned().unwrap(),
        }));
        batcher
    }

    /// Assigns one batch; returns the worker and the grids' heights.
    fn assign(batcher: &mut Batcher) -> (usize, Vec<usize>) {
        let (worker, batch) = batcher.assign().unwrap();
        batcher.workers[worker].state = WorkerState::Busy;
        let heights = batch.iter().map(|job| job.input.grid.height).collect();
        (worker, heights)
    }

    #[test]
    fn idle_workers_share_the_jobs_of_a_grid() {
        let mut batcher = batcher(2, None, &[1, 2, 1, 1]);
        assert_eq!(assign(&mut batcher), (0, vec![1, 1]));
        assert_eq!(assign(&mut batcher), (1, vec![2]));
        assert!(batcher.assign().is_none());
    }

    #[test]
    fn a_batch_has_at_most_so_many_patches() {
        let mut batcher = batcher(1, None, &[2, 2, 2]);
        assert_eq!(assign(&mut batcher), (0, vec![2, 2]));
        batcher.workers[0].state = WorkerState::Idle;
        assert_eq!(assign(&mut batcher), (0, vec![2]));
    }

    #[test]
    fn a_lone_job_goes_to_the_solo_worker() {
        assert_eq!(assign(&mut batcher(2, Some(4), &[1])), (2, vec![1]));
    }

    #[test]
    fn a_busy_solo_worker_excludes_the_others() {
        let mut batcher = batcher(2, Some(4), &[1]);
        batcher.workers[2].state = WorkerState::Busy;
        assert!(batcher.assign().is_none());
    }
}
