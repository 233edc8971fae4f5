//! Published weights in all three formats, from the file to a built model.
//!
//! The first byte chooses the format, the precision and the architecture; the rest is the file. The
//! models are so small that a seed holds all their weights.

#![no_main]

use bytes::Bytes;
use dinoserve::{
    model::ModelSpec,
    onnx::{
        Precision,
        graph::ExternalData,
        proto::ModelProto,
        vit,
        weights::{Checkpoint, Weights, read_onnx_export, read_safetensors, read_torch},
    },
};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use std::sync::LazyLock;

static SPECS: LazyLock<[ModelSpec; 2]> = LazyLock::new(|| {
    [("mlp", 0), ("swiglu", 1)].map(|(ffn, registers)| {
        let text = format!(
            "name = \"{ffn}\"\nsummary = \"\"\nlicence = \"\"\ndim = 2\ndepth = 1\nheads = 1\n\
             registers = {registers}\nffn = \"{ffn}\"\nffn_hidden = 2\nnative_grid = 2\n\
             embed_size = 14\nmap_size = 14\n"
        );
        ModelSpec::parse(&text, "the target").expect("the description is valid")
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    let choice = usize::from(choice);
    let precision = [Precision::Fp32, Precision::Int8, Precision::Fp16][choice / 3 % 3];
    let spec = &SPECS[choice / 9 % 2];
    let file = Bytes::copy_from_slice(file);
    let tensors = match choice % 3 {
        0 => read_safetensors(&[file]).map(Checkpoint::from),
        1 => read_torch(file),
        _ => read_onnx_export(file).map(Checkpoint::from),
    };
    let Ok(tensors) = tensors else { return };
    for (name, tensor) in &tensors.tensors {
        let values: usize = tensor.shape.iter().product();
        assert_eq!(
            tensor.to_f32().len(),
            values,
            "the values of {name} do not fit its shape"
        );
    }
    let Ok(weights) = Weights::new(tensors) else {
        return;
    };
    let data = ExternalData {
        location: "data".to_owned(),
        sink: &mut std::io::sink(),
    };
    let Ok(built) = vit::build(spec, &weights, precision, data, &mut |_| ()) else {
        return;
    };
    ModelProto::decode(built.file.as_slice()).expect("a built model can be read");
});
