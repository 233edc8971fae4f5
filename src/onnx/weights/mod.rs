//! Published weights of any file format, under the hub's tensor names.
//!
//! A reader turns a file into a [`TensorMap`] without copying the data. [`Weights`] (`translate`)
//! takes one of the models in it, by its prefix (`prefix`), and translates the names (`names`,
//! `blocks`). `unread` rejects a model whose moving average cannot be read. `check` compares the
//! architecture that the shapes suggest (`found`) with a description, and `read` gives tensors by
//! the hub's names as f32 values of the expected shape.

mod blocks;
mod check;
mod found;
mod names;
mod onnx_export;
mod parts;
mod positions;
mod prefix;
mod read;
mod safetensors;
mod tensor;
mod torch;
mod translate;
mod unread;

pub(crate) use self::tensor::transpose;
pub use self::{
    names::hugging_face,
    onnx_export::read_onnx_export,
    safetensors::read_safetensors,
    tensor::{Dtype, RawTensor, TensorMap},
    torch::read_torch,
    translate::Weights,
    unread::{Checkpoint, Unread},
};
