//! A checkpoint on disk: both networks, the centers, the moments, and the step.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use dinoserve::hex;
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};

use crate::{
    method::{AdamMoments, AdamW, TrainerState},
    model::{Network, load, parameters},
};

/// Format version; a new one cannot read older checkpoints.
const FORMAT: &str = "2";

/// The metadata of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of steps that are done.
    pub step: usize,
    /// Dataset that was trained on.
    pub dataset: DatasetId,
}

/// Identifies the dataset and the step size, on which the epochs and the order of images depend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetId {
    /// Number of images.
    pub images: usize,
    /// SHA-256 of the file names within the folder, which may be moved.
    pub names: String,
    /// Number of images in a step.
    pub images_per_step: usize,
}

impl DatasetId {
    /// Identifies the images of `folder`.
    pub(super) fn new(paths: &[PathBuf], folder: &Path, images_per_step: usize) -> Self {
        let mut hash = Sha256::new();
        for path in paths {
            let name = path.strip_prefix(folder).unwrap_or(path);
            hash.update(name.as_os_str().as_encoded_bytes());
            hash.update([0]);
        }
        Self {
            images: paths.len(),
            names: hex::encode(&hash.finalize()),
            images_per_step,
        }
    }

    pub(super) fn steps_per_epoch(&self) -> usize {
        self.images / self.images_per_step
    }
}

impl Checkpoint {
    /// Writes a checkpoint with the state, atomically.
    pub fn save(&self, path: &Path, state: &TrainerState) -> anyhow::Result<()> {
        let mut tensors: Vec<(String, StoredTensor)> = Vec::new();
        for (prefix, network) in [("student", &state.student), ("teacher", &state.teacher)] {
            for parameter in parameters(network) {
                let name = format!("{prefix}.{}", parameter.name);
                tensors.push((name, StoredTensor(parameter.shape, parameter.values)));
            }
        }
        let mut store = |name: &str, shape: &[usize], values: Tensor<1>| {
            tensors.push((name.to_owned(), StoredTensor(shape.to_vec(), values)));
        };
        let center = &state.center;
        store("center", &center.dims(), center.clone().flatten(0, 1));
        if let Some(center) = &state.patch_center {
            store("patch_center", &center.dims(), center.clone().flatten(0, 1));
        }
        let dataset = &self.dataset;
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("step".to_owned(), self.step.to_string()),
            ("images".to_owned(), dataset.images.to_string()),
            ("names".to_owned(), dataset.names.clone()),
            (
                "images_per_step".to_owned(),
                dataset.images_per_step.to_string(),
            ),
        ]);
        for (name, moments) in state.optimizer.moments() {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                store(&format!("{kind}.{name}"), &values.dims(), values.clone());
            }
            metadata.insert(format!("steps.{name}"), moments.steps.to_string());
        }
        write(path, tensors, metadata)
            .with_context(|| format!("writing the checkpoint {}", path.display()))
    }

    /// Reads a checkpoint into networks of the same shapes as `network`.
    ///
    /// # Errors
    /// If the file is damaged, or of a network of another shape.
    pub fn read(
        path: &Path,
        network: Network,
        device: &Device,
    ) -> anyhow::Result<(Self, TrainerState)> {
        std::fs::read(path)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| parse(&bytes, network, device))
            .with_context(|| format!("reading the checkpoint {}", path.display()))
    }
}

fn write(
    path: &Path,
    tensors: Vec<(String, StoredTensor)>,
    metadata: HashMap<String, String>,
) -> anyhow::Result<()> {
    let unfinished = path.with_extension("writing");
    safetensors::serialize_to_file(tensors, Some(metadata), &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    Ok(())
}

fn parse(
    bytes: &[u8],
    network: Network,
    device: &Device,
) -> anyhow::Result<(Checkpoint, TrainerState)> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if metadata.get("format").map(String::as_str) != Some(FORMAT) {
        bail!("it is not a checkpoint of this version of dinoserve-train");
    }
    let text = |key: &str| {
        metadata
            .get(key)
            .with_context(|| format!("its metadata has no `{key}`"))
    };
    let count = |key: &str| -> anyhow::Result<usize> { text(key)?.parse().context(key.to_owned()) };
    let checkpoint = Checkpoint {
        step: count("step")?,
        dataset: DatasetId {
            images: count("images")?,
            names: text("names")?.clone(),
            images_per_step: count("images_per_step")?,
        },
    };
    let tensors = TensorReader {
        file: SafeTensors::deserialize(bytes)?,
        device,
    };
    let mut moments = BTreeMap::new();
    for (key, steps) in &metadata {
        if let Some(name) = key.strip_prefix("steps.") {
            let state = AdamMoments {
                steps: steps.parse().with_context(|| format!("{key} is {steps}"))?,
                first: tensors.tensor(&format!("first.{name}"))?,
                second: tensors.tensor(&format!("second.{name}"))?,
            };
            moments.insert(name.to_owned(), state);
        }
    }
    let state = TrainerState {
        student: tensors.network("student", network.clone())?,
        center: tensors.tensor("center")?.unsqueeze(),
        patch_center: match network.patch_head {
            Some(_) => Some(tensors.tensor("patch_center")?.unsqueeze()),
            None => None,
        },
        teacher: tensors.network("teacher", network)?,
        optimizer: AdamW::with_moments(moments),
    };
    Ok((checkpoint, state))
}

/// The shape and the values of a tensor, which is copied from the device only while it is written.
struct StoredTensor(Vec<usize>, Tensor<1>);

impl View for StoredTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values: Vec<f32> = self.1.to_data().iter::<f32>().collect();
        Cow::Owned(values.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    fn data_len(&self) -> usize {
        self.0.iter().product::<usize>() * size_of::<f32>()
    }
}

struct TensorReader<'a> {
    file: SafeTensors<'a>,
    device: &'a Device,
}

impl TensorReader<'_> {
    fn network(&self, prefix: &str, network: Network) -> anyhow::Result<Network> {
        load(network, |name, shape| {
            self.values(&format!("{prefix}.{name}"), Some(shape))
        })
    }

    fn tensor(&self, name: &str) -> anyhow::Result<Tensor<1>> {
        let values = self.values(name, None)?;
        let count = values.len();
        Ok(Tensor::from_data(
            TensorData::new(values, [count]),
            self.device,
        ))
    }

    fn values(&self, name: &str, shape: Option<&[usize]>) -> anyhow::Result<Vec<f32>> {
        let view = self
            .file
            .tensor(name)
            .with_context(|| format!("it has no tensor {name}"))?;
        if view.dtype() != Dtype::F32 || shape.is_some_and(|shape| shape != view.shape()) {
            bail!(
                "tensor {name} has type {:?} and shape {:?} instead of {shape:?}; use the \
                 configuration that the run was started with",
                view.dtype(),
                view.shape()
            );
        }
        Ok(view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect())
    }
}
