//! Helpers of several tests: golden files, tolerances, and folders of images.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use dinoserve::{
    model::{Ffn, ModelSpec},
    vision::RgbImage,
};
use dinoserve_train::{
    config::Config,
    run::{EvaluationSources, Run, RunFiles},
};
use safetensors::SafeTensors;

/// Returns the path of a golden file of these tests.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// Returns the path of a golden file of the server's tests.
pub fn server_golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(path)
}

pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden(path)).unwrap()).unwrap()
}

/// Shape and values of the tensors of a file.
pub struct Tensors(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    pub fn read(path: &Path) -> Self {
        let bytes =
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let values = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("the golden file has no {name}"))
            .1
    }
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as().unwrap()
}

pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// Asserts that values differ by at most `relative` of the larger one, or by `absolute`.
#[track_caller]
pub fn assert_near(what: &str, found: &[f32], expected: &[f32], relative: f32, absolute: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(!found.is_empty(), "{what} has values");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let allowed = absolute.max(relative * found.abs().max(expected.abs()));
        assert!(
            (found - expected).abs() <= allowed,
            "{what}[{index}] is {found}, not {expected}"
        );
    }
}

/// Asserts that the norm of the difference is at most 1e-4 of the norm of the expected values.
pub fn assert_near_by_norm(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let difference = norm(
        &mut found
            .iter()
            .zip(expected)
            .map(|(found, expected)| found - expected),
    );
    // Pure rounding errors, such as the gradient of a key's bias, have no meaningful norm.
    let allowed = 1e-4 * norm(&mut expected.iter().copied()).max(1e-2);
    assert!(
        difference <= allowed,
        "{what} is off by {difference:.1e}; {allowed:.1e} is allowed"
    );
}

/// Returns the description of a tiny golden model.
pub fn tiny_spec(name: &str) -> ModelSpec {
    let config = std::fs::read(server_golden(&format!("{name}/config.json"))).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let swiglu = config["use_swiglu_ffn"] == true;
    let mut run_config = Config::default();
    run_config.model.dim = number("hidden_size");
    run_config.model.depth = number("num_hidden_layers");
    run_config.model.heads = number("num_attention_heads");
    run_config.model.registers = number("num_register_tokens");
    run_config.model.ffn = if swiglu { Ffn::Swiglu } else { Ffn::Mlp };
    run_config.model.native_grid = 37;
    run_config.spec(name).unwrap()
}

/// Makes the synthetic image that the tiny goldens were made from.
pub fn wave(height: usize, width: usize) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        image::Rgb([0, 1, 2].map(|c: u32| {
            let blocks = (x / 14) * (y / 14) * 31 % 61;
            ((7 * x + 13 * y + 29 * c + (x * y) % 97 + blocks) % 256) as u8
        }))
    })
}

/// Writes `per_class` small images of two classes that differ in more than color: stripes and
/// rings.
pub fn write_images(root: &Path, per_class: usize) {
    for class in ["rings", "stripes"] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for index in 0..per_class as u32 {
            let image = RgbImage::from_fn(40, 36, |x, y| {
                let dx = x as f32 - 10.0 - (index * 7 % 20) as f32;
                let dy = y as f32 - 18.0;
                let wave = match class {
                    "rings" => (dx * dx + dy * dy).sqrt() * 0.8,
                    _ => (x + y * (1 + index % 2)) as f32 * 0.8 + index as f32,
                };
                let light = (wave.sin() * 100.0 + 128.0) as u8;
                image::Rgb([light, light / 2 + (index * 11 % 100) as u8, 255 - light])
            });
            image
                .save(root.join(class).join(format!("{index:03}.png")))
                .unwrap();
        }
    }
}

/// Returns the configuration of a model that trains in a moment.
pub fn tiny_config() -> Config {
    let text = "
        [model]\ndim = 32\ndepth = 2\nheads = 2\n\
        [head]\nhidden = 48\nbottleneck = 16\nprototypes = 64\n\
        [crops]\nglobal_size = 28\nlocal_size = 14\nlocal_count = 2\n\
        [optimiser]\nepochs = 3\nbatch = 4\nwarmup_epochs = 1\n\
        [run]\nshards = 2\nlog_steps = 1\nknn_epochs = 1\npicture_epochs = 1\n\
        knn_neighbours = 3\npictures = 2\n";
    Config::parse(text, &[]).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Prepares a run on the CPU with random initial weights.
pub fn prepare_run(
    images: &Path,
    out: &Path,
    config: &Config,
    evaluation: &EvaluationSources,
) -> anyhow::Result<Run> {
    let files = RunFiles::new(out);
    let device = Device::flex();
    Run::prepare(
        text(images),
        files,
        config.clone(),
        None,
        evaluation,
        device,
    )
}
