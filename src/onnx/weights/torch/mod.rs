//! Checkpoints of `torch.save`: a pickle of anything, with tensors that refer to storages.
//!
//! No code in a checkpoint can run: no function of a pickle is ever called and no class is looked
//! up. `unpickler` builds plain objects, `call` knows the few functions that make tensors, and
//! `collect` finds the tensors in dictionaries and lists. Everything else is passed over: the
//! arguments of a program, hyper-parameters, dates. `archive` finds the storages in zip files, and
//! `legacy` in the format before PyTorch 1.6.

mod archive;
mod call;
mod collect;
mod legacy;
mod object;
mod operands;
mod storage;
mod unpickler;

use bytes::Bytes;

use super::Checkpoint;
use crate::error::{Error, Result};

/// Reads the floating-point tensors of a checkpoint, and which objects with tensors it cannot read.
/// A name consists of the keys that lead to the tensor, with dots between them: `{"model": {"a":
/// …}}` has `model.a`.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if the file is no checkpoint, is damaged, or holds a pickled
/// module instead of tensors.
pub fn read_torch(file: Bytes) -> Result<Checkpoint> {
    if file.starts_with(b"PK") {
        archive::read(file)
    } else if legacy::is_legacy(&file) {
        legacy::read(&file)
    } else {
        Err(Error::artifact(
            "the file is no checkpoint of torch.save: it is neither a zip file nor a pickle with \
             PyTorch's magic number; save it again with torch.save(model.state_dict(), FILE)",
        ))
    }
}
