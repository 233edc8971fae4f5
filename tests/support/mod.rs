//! Shared by several tests: golden files, the runtime, converted models.

pub mod browser;
pub mod client;
pub mod items;
pub mod nats;
pub mod postgres;
pub mod process;
pub mod program;
pub mod python;
pub mod server;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dinoserve::{
    artifacts::{Home, Manifest, ModelFile, WeightFile, convert},
    engine::{EnginePlan, ModelSession, Provider, Runtime},
    error::Result,
    model::{Catalog, Interpolation, ModelSpec, PositionRule},
    onnx::{Conversion, Precision},
    vision::{PatchSize, RgbImage},
};
use half::f16;
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Patch size of all models in the tests.
pub const PATCH: PatchSize = PatchSize::new(14);

pub const SAMPLES: [&str; 4] = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"];
pub const TINY: [&str; 3] = ["tiny", "tiny-reg", "tiny-swiglu-reg"];

pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

pub fn read_golden(path: &str) -> Vec<u8> {
    std::fs::read(golden(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn golden_png(path: &str) -> RgbImage {
    image::load_from_memory(&read_golden(path))
        .expect("a golden image is a PNG")
        .into_rgb8()
}

/// The tensors of a golden file, and its metadata.
pub struct Tensors {
    pub tensors: BTreeMap<String, ArrayD<f32>>,
    pub metadata: BTreeMap<String, String>,
}

impl Tensors {
    pub fn read(path: &str) -> Self {
        let bytes = read_golden(path);
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a golden is safetensors");
        let metadata = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let file = SafeTensors::deserialize(&bytes).expect("a golden is safetensors");
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let values = floats_of(&view);
                (
                    name.to_owned(),
                    ArrayD::from_shape_vec(IxDyn(view.shape()), values)
                        .expect("shape and data agree"),
                )
            })
            .collect();
        Self { tensors, metadata }
    }

    pub fn get(&self, name: &str) -> &ArrayD<f32> {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("the golden has no {name}"))
    }
}

/// Returns the values of a tensor of any of the types that goldens have.
fn floats_of(tensor: &TensorView<'_>) -> Vec<f32> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::U8 => data.iter().map(|&value| f32::from(value)).collect(),
        Dtype::F16 => data
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes(b.try_into().expect("2 bytes")).to_f32())
            .collect(),
        Dtype::I64 => data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f32)
            .collect(),
        Dtype::F64 => data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")) as f32)
            .collect(),
        _ => data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")))
            .collect(),
    }
}

/// Returns the cache folder of the user, which `make setup` fills.
pub fn home() -> Home {
    Home::new(std::env::var_os("DINOSERVE_HOME").map(PathBuf::from)).expect("a home folder")
}

pub fn runtime_library() -> PathBuf {
    std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| home().runtime_library(), PathBuf::from)
}

pub fn runtime() -> Runtime {
    Runtime::load(&runtime_library())
        .unwrap_or_else(|error| panic!("{error} (did `make setup` run?)"))
}

/// Makes a new folder below the build folder at each call.
pub fn scratch(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}-{call}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

pub fn focus_source() -> PathBuf {
    let path = home()
        .sources("dinov2-small-focus")
        .join("vit_s_focus.onnx");
    assert!(
        path.exists(),
        "{} is missing: run `make setup`",
        path.display()
    );
    path
}

pub fn focus_spec() -> ModelSpec {
    Catalog::built_in()
        .expect("the catalog")
        .get("dinov2-small-focus")
        .expect("the focus model")
        .clone()
}

/// Returns the focus model, converted once per process.
pub fn focus() -> &'static ModelFile {
    static FOCUS: OnceLock<ModelFile> = OnceLock::new();
    FOCUS.get_or_init(|| focus_in(Precision::Fp32))
}

pub fn focus_in(precision: Precision) -> ModelFile {
    let to = scratch("focus").join(format!("{precision}.onnx"));
    convert_file(&focus_spec(), &focus_source(), precision, &to).expect("conversion");
    ModelFile::open(&to, PositionRule::Hub).expect("the converted model")
}

/// Converts a weight file.
pub fn convert_file(
    spec: &ModelSpec,
    from: &Path,
    conversion: impl Into<Conversion>,
    to: &Path,
) -> Result<Manifest> {
    let file = WeightFile::read(from, None, None)?;
    convert(spec, &file, conversion, to, &mut ())
}

/// Loads one session on the CPU.
pub fn session(model: &ModelFile) -> ModelSession {
    ModelSession::load(
        &runtime(),
        model,
        &EnginePlan::single(model.precision, Provider::Cpu),
    )
    .expect("a session")
    .workers
    .remove(0)
}

/// Returns the description of a tiny golden model.
pub fn tiny_spec(name: &str) -> ModelSpec {
    ModelSpec::parse(&tiny_toml(name), name).expect("a tiny description")
}

/// Returns the same as a catalog file, from its Hugging Face configuration.
fn tiny_toml(name: &str) -> String {
    let config: serde_json::Value =
        serde_json::from_slice(&read_golden(&format!("{name}/config.json"))).expect("JSON");
    let number = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let swiglu = config["use_swiglu_ffn"] == true;
    let mlp = number("mlp_ratio") * number("hidden_size");
    let hidden = if swiglu {
        (mlp * 2 / 3).div_ceil(8) * 8
    } else {
        mlp
    };
    format!(
        "name = \"{name}\"\nsummary = \"random weights\"\nlicence = \"none\"\n\
         dim = {}\ndepth = {}\nheads = {}\nregisters = {}\nffn = \"{}\"\n\
         ffn_hidden = {hidden}\nnative_grid = 37\nembed_size = 224\nmap_size = 518\n",
        number("hidden_size"),
        number("num_hidden_layers"),
        number("num_attention_heads"),
        number("num_register_tokens"),
        if swiglu { "swiglu" } else { "mlp" },
    )
}

/// Returns the description of a tiny model of another family, as a catalog file would have it.
pub fn family_spec(family: &str) -> ModelSpec {
    let file: serde_json::Value =
        serde_json::from_slice(&read_golden(&format!("{family}/family.json"))).expect("JSON");
    let rope = file["position"] == "rope";
    let number = |key: &str| file[key].as_u64().unwrap_or(0);
    let positions = match rope {
        true => "positions = \"rope\"\n".to_owned(),
        false => format!("native_grid = {}\n", number("native") / number("patch")),
    };
    let name = match file["family"].as_str() {
        Some("dino1") => "dino",
        other => other.expect("a family"),
    };
    let toml = format!(
        "name = \"{family}\"\nfamily = \"{name}\"\nsummary = \"random\"\nlicence = \"none\"\n\
         dim = {}\ndepth = {}\n\
         heads = {}\nregisters = {}\nffn = {}\nffn_hidden = {}\npatch = {}\n{positions}\
         layer_scale = {}\nnorm_eps = {}\nembed_size = 224\nmap_size = 448\n\
         normalization = {{ mean = {}, std = {} }}\n",
        number("dim"),
        number("depth"),
        number("heads"),
        number("registers"),
        file["ffn"],
        number("dim") * 4,
        number("patch"),
        file["layer_scale"],
        file["eps"],
        file["mean"],
        file["std"],
    );
    let mut spec = ModelSpec::parse(&toml, family).expect("a description");
    if family == "tiny-vit" || family == "tiny-deit" {
        spec.architecture.interpolation = Some(Interpolation::Antialiased);
    }
    spec
}

/// Makes a cache folder with converted tiny models.
pub fn tiny_home(names: &[&str]) -> PathBuf {
    let folder = scratch("home");
    let home = Home::new(Some(folder.clone())).expect("a home folder");
    std::fs::create_dir_all(home.catalog()).expect("a folder");
    for name in names {
        std::fs::write(home.catalog().join(format!("{name}.toml")), tiny_toml(name))
            .expect("a description");
        let from = golden(&format!("{name}/model.safetensors"));
        let to = home.model(name, Precision::Fp32).model;
        convert_file(&tiny_spec(name), &from, Precision::Fp32, &to).expect("conversion");
    }
    folder
}

/// Converts a tiny golden model from one of its weight files.
pub fn tiny(name: &str, file: &str) -> ModelFile {
    tiny_in(name, file, Precision::Fp32)
}

pub fn tiny_in(name: &str, file: &str, precision: Precision) -> ModelFile {
    let to = scratch(&format!("{name}-{file}")).join(format!("{precision}.onnx"));
    let from = golden(&format!("{name}/{file}"));
    convert_file(&tiny_spec(name), &from, precision, &to)
        .unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
    ModelFile::open(&to, PositionRule::Hub).expect("the converted model")
}

/// Returns the synthetic image that the tiny goldens were made from.
pub fn wave(height: usize, width: usize) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        image::Rgb([0, 1, 2].map(|c: u32| {
            let blocks = (x / 14) * (y / 14) * 31 % 61;
            ((7 * x + 13 * y + 29 * c + (x * y) % 97 + blocks) % 256) as u8
        }))
    })
}

/// Replaces a file atomically.
pub fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(&aside, file).unwrap();
}

/// Waits until a condition holds.
pub async fn until(holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("the condition holds within 20 s");
}

pub fn cosine(a: impl IntoIterator<Item = f32>, b: impl IntoIterator<Item = f32>) -> f64 {
    let mut dot = 0.0;
    let mut aa = 0.0;
    let mut bb = 0.0;
    for (a, b) in a.into_iter().zip(b) {
        let a = f64::from(a);
        let b = f64::from(b);
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    dot / (aa * bb).sqrt()
}

/// Returns the largest and the mean absolute difference of two equally long lists of finite values.
#[track_caller]
pub fn difference<'a>(
    a: impl IntoIterator<Item = &'a f32>,
    b: impl IntoIterator<Item = &'a f32>,
) -> (f32, f32) {
    let (a, b): (Vec<f32>, Vec<f32>) = (
        a.into_iter().copied().collect(),
        b.into_iter().copied().collect(),
    );
    assert!(
        !a.is_empty() && a.len() == b.len(),
        "{} and {} values",
        a.len(),
        b.len()
    );
    assert!(
        a.iter().chain(&b).all(|value| value.is_finite()),
        "every value is a number"
    );
    let differences: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    (differences.into_iter().fold(0.0, f32::max), mean)
}

/// Compares normalized tokens in f32 with a tolerance of at most 1e-3, on average 1e-4.
#[track_caller]
pub fn assert_close(what: &str, found: &ArrayD<f32>, expected: &ArrayD<f32>) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let (largest, mean) = difference(found, expected);
    assert!(
        largest <= 1e-3 && mean <= 1e-4,
        "{what}: differs by up to {largest}, on average {mean}"
    );
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    dinoserve::hex::encode(&Sha256::digest(bytes))
}

/// Reports a skipped test; `make test` lists these at its end.
pub fn skip(what: &str) {
    use std::io::Write;
    eprintln!("SKIPPED {what}");
    if let Some(list) = std::env::var_os("DINOSERVE_SKIPPED") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(list)
            .expect("the list of skipped tests");
        writeln!(file, "  {what}").expect("the list of skipped tests");
    }
}
