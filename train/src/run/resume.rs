//! What a run can be resumed from: a checkpoint of the same method, images and step size.

use anyhow::bail;

use super::{DatasetId, RunFiles, SavedRun};
use crate::method::Method;

/// Reads the checkpoint of a run.
///
/// # Errors
/// If it is damaged, or of another method or dataset; the message says what to do.
pub(super) fn read_resumable(
    files: &RunFiles,
    method: Method,
    dataset: &DatasetId,
) -> anyhow::Result<SavedRun> {
    let saved = SavedRun::read(&files.checkpoint())?;
    check_method(saved.method, method, files)?;
    check_dataset(&saved.checkpoint.dataset, dataset, files)?;
    Ok(saved)
}

/// Checks that a checkpoint is of the method of the configuration.
fn check_method(saved: Method, current: Method, files: &RunFiles) -> anyhow::Result<()> {
    if saved == current {
        return Ok(());
    }
    bail!(
        "the run in {} was trained by the method {saved}; resume it with `--method {saved}`, or \
         train by the method {current} in another folder (--out)",
        files.root().display()
    )
}

/// Checks that a checkpoint is of the same images and step size, on which its epochs depend.
fn check_dataset(saved: &DatasetId, current: &DatasetId, files: &RunFiles) -> anyhow::Result<()> {
    if saved == current {
        return Ok(());
    }
    let root = files.root().display();
    bail!(
        "the run in {root} was trained on {} images, {} in a step, and now has {} images, {} in a \
         step, or images of other names, which would move its epochs; keep them, or start a new \
         run from the export of this one: `dinoserve-train export {root}`, and then another --out \
         with `--config {}` and `--init {}`",
        saved.images,
        saved.images_per_step,
        current.images,
        current.images_per_step,
        files.config().display(),
        files.export().join("model.safetensors").display()
    )
}
