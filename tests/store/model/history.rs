//! What clients saw of one key, and whether one order of its writes explains it (linearizability,
//! Herlihy and Wing, 1990; searched as Wing and Gong do, with states that failed remembered).

use std::collections::HashSet;

/// A version of an item; `None` without one.
pub type State = Option<u64>;

/// A condition on the version of an item.
pub type Filter = fn(u64) -> bool;

#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Stored a version; whether the item was new, if the answer said so.
    Put(u64, Option<bool>),
    /// Deleted the item; whether there was one, if the answer said so.
    Delete(Option<bool>),
    /// Saw this state.
    Read(State),
    /// Did not find the item among those that pass a filter.
    Missed(Filter),
}

impl Operation {
    /// Returns the state after the operation; `None` if it contradicts the state before.
    fn apply(self, state: State) -> Option<State> {
        match self {
            Self::Put(version, created) => {
                let agrees = created.is_none_or(|created| created == state.is_none());
                agrees.then_some(Some(version))
            }
            Self::Delete(existed) => {
                let agrees = existed.is_none_or(|existed| existed == state.is_some());
                agrees.then_some(None)
            }
            Self::Read(seen) => (seen == state).then_some(state),
            Self::Missed(passes) => (!state.is_some_and(passes)).then_some(state),
        }
    }

    fn is_write(self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }
}

/// An operation from its begin to its end, in nanoseconds of one clock. A write without an answer
/// has no end: it may have been applied at any time since, or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub begin: u64,
    pub end: Option<u64>,
    pub operation: Operation,
}

/// A state of the search: the operations that were applied, and the version after them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    /// All answered operations before this one are applied.
    first: usize,
    /// Applied operations from there on.
    window: Vec<usize>,
    /// Applied operations without an answer.
    unanswered: Vec<usize>,
    state: State,
}

/// Checks the events of one key, which has no item before them.
pub fn check(events: &[Event]) -> Result<(), String> {
    let mut answered: Vec<Event> = Vec::new();
    let mut unanswered: Vec<Event> = Vec::new();
    for event in events {
        match event.end {
            Some(_) => answered.push(*event),
            None if event.operation.is_write() => unanswered.push(*event),
            None => {}
        }
    }
    answered.sort_by_key(|event| event.begin);
    let start = Node {
        first: 0,
        window: Vec::new(),
        unanswered: Vec::new(),
        state: None,
    };
    let mut known = HashSet::new();
    let mut open = vec![start];
    let mut furthest = 0;
    while let Some(mut node) = open.pop() {
        let writes = advance(&mut node, &answered);
        furthest = furthest.max(node.first);
        if node.first == answered.len() {
            return Ok(());
        }
        if !known.insert(node.clone()) {
            continue;
        }
        let latest = latest_begin(&node, &answered);
        // Those without an answer are tried last, so they are pushed first.
        for (index, event) in unanswered.iter().enumerate() {
            if event.begin <= latest
                && !node.unanswered.contains(&index)
                && let Some(state) = event.operation.apply(node.state)
            {
                let mut next = node.clone();
                next.unanswered.push(index);
                next.unanswered.sort_unstable();
                next.state = state;
                open.push(next);
            }
        }
        for index in writes {
            if let Some(state) = answered[index].operation.apply(node.state) {
                let mut next = node.clone();
                next.window.push(index);
                next.window.sort_unstable();
                next.state = state;
                open.push(next);
            }
        }
    }
    let from = furthest.saturating_sub(8);
    let shown = &answered[from..answered.len().min(furthest + 12)];
    Err(format!("no order explains {shown:#?} with {unanswered:#?}"))
}

/// Returns the time before which an operation must begin to come next: all answered operations
/// that ended earlier than it began come before it.
fn latest_begin(node: &Node, answered: &[Event]) -> u64 {
    let mut latest = u64::MAX;
    for (index, event) in answered.iter().enumerate().skip(node.first) {
        if event.begin > latest {
            break;
        }
        if !node.window.contains(&index) {
            latest = latest.min(event.end.unwrap_or(u64::MAX));
        }
    }
    latest
}

/// Applies all reads that can come next, which is never wrong, and returns the writes that can.
fn advance(node: &mut Node, answered: &[Event]) -> Vec<usize> {
    loop {
        while let Some(at) = node.window.iter().position(|&index| index == node.first) {
            node.window.remove(at);
            node.first += 1;
        }
        let latest = latest_begin(node, answered);
        let next = answered.iter().enumerate().skip(node.first);
        let next = next.take_while(|(_, event)| event.begin <= latest);
        let next: Vec<usize> = next
            .map(|(index, _)| index)
            .filter(|index| !node.window.contains(index))
            .collect();
        let (writes, reads): (Vec<usize>, Vec<usize>) = next
            .into_iter()
            .partition(|&index| answered[index].operation.is_write());
        let fitting: Vec<usize> = reads
            .into_iter()
            .filter(|&index| answered[index].operation.apply(node.state).is_some())
            .collect();
        if fitting.is_empty() {
            return writes;
        }
        node.window.extend(fitting);
        node.window.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation::*, *};

    fn event(begin: u64, end: u64, operation: Operation) -> Event {
        Event {
            begin,
            end: Some(end),
            operation,
        }
    }

    fn lost(begin: u64, operation: Operation) -> Event {
        Event {
            begin,
            end: None,
            operation,
        }
    }

    #[test]
    fn histories_with_an_order_pass() {
        for events in [
            vec![event(0, 1, Put(1, Some(true))), event(2, 3, Read(Some(1)))],
            // Concurrent writes in either order.
            vec![
                event(0, 9, Put(1, None)),
                event(1, 8, Put(2, None)),
                event(10, 11, Read(Some(1))),
            ],
            // A write without an answer was applied, late, or never.
            vec![
                lost(0, Put(1, None)),
                event(5, 6, Read(None)),
                event(7, 8, Read(Some(1))),
            ],
            vec![lost(0, Put(1, None)), event(5, 6, Read(None))],
            vec![
                event(0, 1, Put(4, None)),
                event(2, 3, Missed(|version| version > 9)),
                lost(4, Delete(None)),
                event(5, 6, Put(5, Some(true))),
            ],
        ] {
            check(&events).unwrap();
        }
    }

    #[test]
    fn histories_without_an_order_fail() {
        for events in [
            // A lost write.
            vec![event(0, 1, Put(1, None)), event(2, 3, Read(None))],
            // A stale read.
            vec![
                event(0, 1, Put(1, None)),
                event(2, 3, Put(2, None)),
                event(4, 5, Read(Some(1))),
            ],
            // Two readers see concurrent writes in different orders.
            vec![
                event(0, 20, Put(1, None)),
                event(0, 20, Put(2, None)),
                event(1, 2, Read(Some(1))),
                event(3, 4, Read(Some(2))),
                event(5, 6, Read(Some(1))),
            ],
            // Seen before it was written.
            vec![event(0, 1, Read(Some(1))), lost(2, Put(1, None))],
            vec![event(0, 1, Put(1, Some(false)))],
            vec![event(0, 1, Put(1, None)), event(2, 3, Delete(Some(false)))],
            vec![
                event(0, 1, Put(4, None)),
                event(2, 3, Missed(|version| version > 3)),
            ],
        ] {
            check(&events).unwrap_err();
        }
    }
}
