//! Files of the operator: a converted model, the description of a variant, API keys.
//!
//! The first byte chooses the kind; the rest is the file.

#![no_main]

use std::{io::Write, os::fd::AsRawFd, path::PathBuf};

use bytes::Bytes;
use dinoserve::{
    artifacts::ModelFile,
    http::access::ApiKeys,
    model::{ModelSpec, PositionRule},
    onnx::{
        Precision,
        graph::ExternalData,
        vit,
        weights::{Dtype, RawTensor, TensorMap, Weights},
    },
    vision::Grid,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    match choice % 3 {
        0 => open_model(file),
        1 => read_description(file),
        _ => drop(with_file(file, |path| ApiKeys::open(&path))),
    }
});

/// Writes the bytes to an unnamed temporary file, which disappears even after a crash, and passes
/// on its path.
fn with_file<T>(bytes: &[u8], work: impl FnOnce(PathBuf) -> T) -> T {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("the disk has room");
    work(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
}

fn open_model(file: &[u8]) {
    for rule in [PositionRule::Hub, PositionRule::Hf] {
        let Ok(model) = with_file(file, |path| ModelFile::open(&path, rule)) else {
            return;
        };
        check(&model.spec);
        for (height, width) in [(1, 1), (3, 2)] {
            let positions = model.positions.for_grid(Grid { height, width });
            let architecture = &model.spec.architecture;
            let expected = match architecture.has_rope() {
                false => (1, 1 + height * width, architecture.dim),
                true => (
                    2,
                    architecture.prefix_tokens() + height * width,
                    architecture.head_dim() / 2,
                ),
            };
            assert_eq!(positions.dim(), expected);
        }
    }
}

fn read_description(file: &[u8]) {
    let Ok(text) = std::str::from_utf8(file) else {
        return;
    };
    let Ok(spec) = ModelSpec::parse(text, "the input") else {
        return;
    };
    check(&spec);
    // Building must reject weights that lack nearly everything, for all sizes of the description.
    let tensor = RawTensor {
        dtype: Dtype::F32,
        shape: vec![0],
        data: Bytes::new(),
        transposed: false,
    };
    let names = ["cls_token", "patch_embed.proj.weight"];
    let tensors = TensorMap::from(names.map(|name| (name.to_owned(), tensor.clone())));
    let weights = Weights::new(tensors).expect("the names are the hub's");
    let data = ExternalData {
        location: "data".to_owned(),
        sink: &mut std::io::sink(),
    };
    vit::build(&spec, &weights, Precision::Fp32, data, &mut |_| ())
        .expect_err("nearly all weights are missing");
}

/// Checks what later code divides by or relies on.
fn check(spec: &ModelSpec) {
    assert!(
        spec.architecture.heads > 0
            && spec.architecture.dim > 0
            && spec
                .architecture
                .dim
                .is_multiple_of(spec.architecture.heads),
        "{spec:?}"
    );
    assert!(
        spec.architecture.depth > 0
            && spec.architecture.ffn_hidden > 0
            && (spec.architecture.native_grid > 0 || spec.architecture.has_rope()),
        "{spec:?}"
    );
    assert!(
        spec.embed_grid().patches() > 0 && spec.architecture.layers() > 0,
        "{spec:?}"
    );
}
