//! Work on several threads.

use crate::error::{Error, Result};

/// Applies `work` to each of a few items, each on a thread of its own.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let Some((first, others)) = items.split_first() else {
        return Ok(Vec::new());
    };
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = others
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        let first = work(first);
        let others = others.into_iter().map(|thread| {
            let panicked = |_| Err(Error::internal("a thread of the index panicked"));
            thread.join().unwrap_or_else(panicked)
        });
        std::iter::once(first).chain(others).collect()
    })
}
