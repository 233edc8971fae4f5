//! Panics that are expected now and then, such as those of decoders on damaged files.
//!
//! The standard hook prints a backtrace if `RUST_BACKTRACE` is set, and keeps the symbols of the
//! whole binary in memory from then on, which are more than 200 MB. These panics get a log line.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
};

thread_local! {
    /// Whether this thread does work whose panics get a log line.
    static LOGGED: Cell<bool> = const { Cell::new(false) };
}

/// Replaces the standard hook inside [`catch_logged`].
pub(super) fn install_hook() {
    let standard = take_hook();
    set_hook(Box::new(move |panic| {
        if LOGGED.get() {
            log(panic);
        } else {
            standard(panic);
        }
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    tracing::error!(location, message, "a panic was caught");
}

/// Runs `work` and catches its panic, which is logged in one line without a backtrace.
pub fn catch_logged<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = LOGGED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    LOGGED.set(outer);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static STANDARD: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn the_standard_hook_runs_only_for_other_panics() {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            STANDARD.set(STANDARD.get() + 1);
            before(panic);
        }));
        install_hook();
        assert!(catch_logged::<()>(|| panic!("a decoder's")).is_err());
        assert_eq!(STANDARD.get(), 0);
        assert!(catch_unwind(|| -> () { panic!("another") }).is_err());
        assert_eq!(STANDARD.get(), 1);
        assert_eq!(catch_logged(|| 7).ok(), Some(7));
    }
}
