//! `dinoserve decode`, which `make parity` compares with Pillow.

use std::{
    io::{BufRead, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::vision::{DecodeLimits, DecodeOptions, decode};

/// Reads paths from standard input, one a line, and writes the pixels of each file: a line
/// `read WIDTH HEIGHT` and the RGB bytes, or a line `refused REASON` or `fault REASON`.
pub(super) fn run() -> anyhow::Result<()> {
    // A decoder's panic is reported as a line, not as a backtrace.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    for path in std::io::stdin().lock().lines() {
        let decoded = match std::fs::read(path?) {
            Ok(bytes) => catch_unwind(AssertUnwindSafe(|| {
                decode(&bytes, DecodeOptions::default(), DecodeLimits::default())
            })),
            Err(error) => {
                writeln!(out, "refused {error}")?;
                out.flush()?;
                continue;
            }
        };
        match decoded {
            Ok(Ok(image)) => {
                writeln!(out, "read {} {}", image.width(), image.height())?;
                out.write_all(image.as_raw())?;
            }
            Ok(Err(error)) => writeln!(out, "refused {}", error.detail().replace('\n', " "))?,
            Err(_) => writeln!(out, "fault the decoder panicked")?,
        }
        out.flush()?;
    }
    Ok(())
}
