//! The images of a source, and a report on the files that are left out.

use dinoserve::sources::SourceImage;

use super::progress::log_line;
use crate::data::list_images;

/// Lists the images of a source, and reports what is left out.
pub(super) fn find_images(source: &str) -> anyhow::Result<Vec<SourceImage>> {
    let found = list_images(source)?;
    for (name, error) in &found.failures {
        log_line(format_args!("skipped {name}: {error}"));
    }
    if !found.skipped.is_empty() {
        log_line(format_args!("{}", found.skipped));
    }
    Ok(found.images)
}
