//! Weights that all CPU sessions of a model share.
//!
//! The large tensors are mapped from the model's data file and lent to each session, and what the
//! runtime packs of them for its kernels is kept once, so that a further session costs its working
//! memory only. After packing nobody looks at the mapped pages, and their memory is given back.

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

use super::providers::{of_builder, of_runtime};
use crate::{
    artifacts::{Mapping, ModelFile, StoredWeight},
    error::{Error, Result},
    onnx::proto::DataType,
};

/// The weights of one model.
pub(super) struct SharedWeights {
    // In this order: the values go before the memory that they point to.
    values: Vec<(String, Arc<DynValue>)>,
    prepacked: PrepackedWeights,
    mapping: Mapping,
}

impl SharedWeights {
    /// Maps the weights of `model`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the data file does not hold what the model says,
    /// [`crate::error::Kind::Io`] if it cannot be read.
    pub(super) fn open(model: &ModelFile) -> Result<Self> {
        let mapping = Mapping::open(&model.paths.data)?;
        let value = |weight: &StoredWeight| {
            let damaged = || {
                Error::artifact(format!(
                    "{} does not hold {}; convert the model again",
                    model.paths.data.display(),
                    weight.name
                ))
            };
            let bytes = mapping.get(weight.range.clone()).ok_or_else(damaged)?;
            let value = match weight.kind {
                DataType::Float => value_over::<f32>(&weight.shape, bytes),
                DataType::Float16 => value_over::<f16>(&weight.shape, bytes),
                DataType::Int8 => value_over::<i8>(&weight.shape, bytes),
                DataType::Uint8 => value_over::<u8>(&weight.shape, bytes),
                _ => None,
            };
            Ok((weight.name.clone(), value.ok_or_else(damaged)?))
        };
        let values = model.weights.iter().map(value).collect::<Result<_>>()?;
        Ok(Self {
            values,
            prepacked: PrepackedWeights::new(),
            mapping,
        })
    }

    /// Lends the weights to a session that is about to be made. The session must be dropped before
    /// `self`.
    pub(super) fn lend(&self, builder: SessionBuilder) -> Result<SessionBuilder> {
        let builder = builder
            .with_prepacked_weights(&self.prepacked)
            .map_err(of_builder)?;
        self.values
            .iter()
            .try_fold(builder, |builder, (name, value)| {
                builder
                    .with_initializer(name, Arc::clone(value))
                    .map_err(of_builder)
            })
    }

    /// Gives the memory of the mapped pages back; sessions work with what they packed.
    pub(super) fn release_pages(&self) {
        self.mapping.release_pages();
    }
}

/// A runtime value over `bytes`, or `None` if they are not a tensor of that shape.
fn value_over<T>(shape: &[i64], bytes: &[u8]) -> Option<Arc<DynValue>>
where
    T: PrimitiveTensorElementType + bytemuck::Pod + std::fmt::Debug,
{
    let values: &[T] = bytemuck::try_cast_slice(bytes).ok()?;
    let tensor = TensorRef::from_array_view((shape, values))
        .map_err(of_runtime)
        .ok()?;
    let pointer = NonNull::new(tensor.ptr().cast_mut())?;
    // The value takes over what the reference would have released.
    std::mem::forget(tensor);
    // SAFETY: the pointer is a valid tensor that nobody else releases. It borrows `bytes`, which
    // `SharedWeights` keeps mapped for as long as it keeps the value, and every session with a
    // clone of it is dropped before: `ModelSession` holds the session first, and then what keeps
    // `SharedWeights`.
    Some(Arc::new(unsafe {
        DynValue::from_ptr(pointer, Some(&Allocator::default()))
    }))
}
