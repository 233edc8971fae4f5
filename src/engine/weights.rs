//! Weights that all CPU sessions of a model share.
//!
//! The large tensors are mapped from the model's data file and lent to each session. The runtime
//! packs them for its kernels once, so a further session costs only its working memory. After the
//! packing the mapped pages are not read again, and their memory is released.

#![allow(
    unsafe_code,
    reason = "a value over mapped memory has no safe constructor; the contract is below"
)]

use std::{ptr::NonNull, sync::Arc};

use half::f16;
use ort::{
    AsPointer,
    memory::Allocator,
    session::builder::{PrepackedWeights, SessionBuilder},
    value::{DynValue, PrimitiveTensorElementType, TensorRef},
};

use super::providers::OrtResult;
use crate::{
    artifacts::{Mapping, ModelFile, StoredWeight},
    error::{Error, Result},
    onnx::proto::DataType,
};

/// The weights of one model.
pub(super) struct SharedWeights {
    // The order of the fields matters: the values are dropped before the memory they point to.
    values: Vec<(String, Arc<DynValue>)>,
    prepacked: PrepackedWeights,
    mapping: Mapping,
}

impl SharedWeights {
    /// Maps the weights of `model`.
    pub(super) fn open(model: &ModelFile) -> Result<Self> {
        let mapping = Mapping::open(&model.paths.data)?;
        let values = model
            .weights
            .iter()
            .map(|weight| {
                let value = stored_value(&mapping, weight).ok_or_else(|| {
                    Error::artifact(format!(
                        "{} does not contain {}; convert the model again",
                        model.paths.data.display(),
                        weight.name
                    ))
                })?;
                Ok((weight.name.clone(), value))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            values,
            prepacked: PrepackedWeights::new(),
            mapping,
        })
    }

    /// Lends the weights to the session that `builder` creates. The session must be dropped before
    /// `self`.
    pub(super) fn lend(&self, builder: SessionBuilder) -> Result<SessionBuilder> {
        let builder = builder
            .with_prepacked_weights(&self.prepacked)
            .into_result()?;
        let mut values = self.values.iter();
        values.try_fold(builder, |builder, (name, value)| {
            let lent = builder.with_initializer(name, Arc::clone(value));
            lent.into_result()
        })
    }

    /// Releases the memory of the mapped pages; the sessions use the packed weights.
    pub(super) fn release_pages(&self) {
        self.mapping.release_pages();
    }
}

/// Returns a runtime value over a stored weight, or `None` if the data file is damaged.
fn stored_value(mapping: &Mapping, weight: &StoredWeight) -> Option<Arc<DynValue>> {
    let bytes = mapping.as_ref().get(weight.range.clone())?;
    match weight.kind {
        DataType::Float => value_over::<f32>(&weight.shape, bytes),
        DataType::Float16 => value_over::<f16>(&weight.shape, bytes),
        DataType::Int8 => value_over::<i8>(&weight.shape, bytes),
        DataType::Uint8 => value_over::<u8>(&weight.shape, bytes),
        _ => None,
    }
}

/// Returns a runtime value over `bytes`, or `None` if they are not a tensor of that shape.
fn value_over<T>(shape: &[i64], bytes: &[u8]) -> Option<Arc<DynValue>>
where
    T: PrimitiveTensorElementType + bytemuck::Pod + std::fmt::Debug,
{
    let values: &[T] = bytemuck::try_cast_slice(bytes).ok()?;
    let tensor = TensorRef::from_array_view((shape, values)).ok()?;
    let pointer = NonNull::new(tensor.ptr().cast_mut())?;
    // The value below owns the tensor now, and releases it.
    std::mem::forget(tensor);
    // SAFETY: the pointer is a valid tensor, and nothing else releases it. It borrows `bytes`,
    // which `SharedWeights` keeps mapped for as long as it keeps the value. Every session with a
    // clone of the value is dropped before: in `ModelSession` the session comes first, and then the
    // owner of `SharedWeights`.
    Some(Arc::new(unsafe {
        DynValue::from_ptr(pointer, Some(&Allocator::default()))
    }))
}
