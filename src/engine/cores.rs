//! The cores of the machine, shared by the workers of all models.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_executor::block_on;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One budget of cores for the engines of a process. A worker holds as many as its session has
/// threads while it runs a batch, so that two busy models take turns instead of slowing each other
/// down, and a model alone has all cores. Clones share the budget.
#[derive(Debug, Clone)]
pub(super) struct CoreBudget {
    free: Arc<Semaphore>,
    total: Arc<AtomicUsize>,
}

/// Cores in use. Dropping them frees them.
pub(super) struct Cores {
    _permit: Option<OwnedSemaphorePermit>,
}

impl CoreBudget {
    /// Returns a budget without cores.
    pub(super) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(0)),
            total: Arc::default(),
        }
    }

    /// Makes room for an engine that uses up to `cores` at a time, so that one engine never waits
    /// for itself, however many threads the user gave it.
    pub(super) fn grow_to(&self, cores: usize) {
        let before = self.total.fetch_max(cores, Ordering::AcqRel);
        self.free.add_permits(cores.saturating_sub(before));
    }

    /// Waits for `cores`, in the order of the calls. `None` costs no cores, as on a GPU.
    pub(super) fn take(&self, cores: Option<usize>) -> Cores {
        let permit = cores.map(|cores| {
            let cores = cores.min(self.total.load(Ordering::Acquire));
            let cores = u32::try_from(cores).unwrap_or(u32::MAX);
            block_on(Arc::clone(&self.free).acquire_many_owned(cores))
        });
        Cores {
            // The semaphore is never closed.
            _permit: permit.and_then(Result::ok),
        }
    }

    /// Returns whether no engine uses a core.
    pub(super) fn is_idle(&self) -> bool {
        self.free.available_permits() >= self.total.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn cores_are_lent_in_the_order_of_the_requests() {
        let budget = CoreBudget::new();
        budget.grow_to(2);
        budget.grow_to(1);
        assert!(budget.is_idle());
        let first = budget.take(Some(1));
        assert!(!budget.is_idle());
        let (sender, order) = mpsc::channel();
        thread::scope(|scope| {
            for (name, cores) in [("all", 2), ("one", 1)] {
                let (budget, sender) = (budget.clone(), sender.clone());
                scope.spawn(move || {
                    let _cores = budget.take(Some(cores));
                    sender.send(name).expect("the test listens");
                });
                // The next request comes after this one waits.
                thread::sleep(Duration::from_millis(100));
            }
            // One core is free, but the request for all of them came first.
            assert!(order.try_recv().is_err());
            drop(first);
        });
        assert_eq!(order.iter().take(2).collect::<Vec<_>>(), ["all", "one"]);
        assert!(budget.is_idle());
    }

    #[test]
    fn more_cores_than_there_are_take_all() {
        let budget = CoreBudget::new();
        budget.grow_to(2);
        drop(budget.take(Some(5)));
        let all = budget.take(Some(usize::MAX));
        // A GPU needs none.
        drop(budget.take(None));
        drop(all);
        assert!(budget.is_idle());
    }
}
