//! What several tests need: golden files, and folders of pictures.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use dinoserve::{
    model::{Ffn, ModelSpec},
    vision::RgbImage,
};
use dinoserve_train::config::Config;
use safetensors::SafeTensors;

pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// A golden file of the server's tests.
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
            .unwrap_or_else(|| panic!("the golden has no {name}"))
            .1
    }
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as().unwrap()
}

pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// `relative` of the larger, or `absolute`.
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

/// Values whose difference, as a vector, is no longer than 1e-4 of them.
pub fn assert_near_as_a_whole(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let length = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let apart = length(
        &mut found
            .iter()
            .zip(expected)
            .map(|(found, expected)| found - expected),
    );
    // What is nothing but rounding, as the gradient of a key's bias, has no length to be measured
    // by.
    let allowed = 1e-4 * length(&mut expected.iter().copied()).max(1e-2);
    assert!(
        apart <= allowed,
        "{what} is off by {apart:.1e}, and {allowed:.1e} is allowed"
    );
}

/// The description of a tiny golden model.
pub fn tiny_spec(name: &str) -> ModelSpec {
    let config = std::fs::read(server_golden(&format!("{name}/config.json"))).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let swiglu = config["use_swiglu_ffn"] == true;
    let mut chosen = Config::default();
    chosen.model.dim = number("hidden_size");
    chosen.model.depth = number("num_hidden_layers");
    chosen.model.heads = number("num_attention_heads");
    chosen.model.registers = number("num_register_tokens");
    chosen.model.ffn = if swiglu { Ffn::Swiglu } else { Ffn::Mlp };
    chosen.model.native_grid = 37;
    chosen.spec(name).unwrap()
}

/// The synthetic image that the tiny goldens were made from.
pub fn wave(height: usize, width: usize) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        image::Rgb([0, 1, 2].map(|c: u32| {
            let blocks = (x / 14) * (y / 14) * 31 % 61;
            ((7 * x + 13 * y + 29 * c + (x * y) % 97 + blocks) % 256) as u8
        }))
    })
}

/// A folder with two classes of small pictures that differ in more than color: stripes and rings.
pub fn folder_of_pictures(root: &Path, of_each: usize) {
    for class in ["rings", "stripes"] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for index in 0..of_each as u32 {
            let picture = RgbImage::from_fn(40, 36, |x, y| {
                let (dx, dy) = (x as f32 - 10.0 - (index * 7 % 20) as f32, y as f32 - 18.0);
                let wave = match class {
                    "rings" => (dx * dx + dy * dy).sqrt() * 0.8,
                    _ => (x + y * (1 + index % 2)) as f32 * 0.8 + index as f32,
                };
                let light = (wave.sin() * 100.0 + 128.0) as u8;
                image::Rgb([light, light / 2 + (index * 11 % 100) as u8, 255 - light])
            });
            picture
                .save(root.join(class).join(format!("{index:03}.png")))
                .unwrap();
        }
    }
}

/// A model that trains in no time.
pub fn tiny_config() -> Config {
    let text = "
        [model]\ndim = 32\ndepth = 2\nheads = 2\n\
        [head]\nhidden = 48\nbottleneck = 16\nprototypes = 64\n\
        [crops]\nglobal_size = 28\nlocal_size = 14\nlocal_count = 2\n\
        [optimiser]\nepochs = 3\nbatch = 4\nwarmup_epochs = 1\n\
        [run]\nshards = 2\nlog_steps = 1\nknn_epochs = 1\npicture_epochs = 1\nknn_neighbours = 3\npictures = 2\n";
    Config::parse(text, &[]).unwrap()
}
