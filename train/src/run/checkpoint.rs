//! A checkpoint on disk: both networks, the centers, the moments, and the step.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use dinoserve::{hex, sources::SourceImage};
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};

use crate::{
    method::{AdamMoments, AdamW, Method, TrainerState},
    model::{Backbone, Network, load, parameters},
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

/// A checkpoint that was read: its metadata, and the tensors.
pub struct SavedRun {
    /// Metadata of the checkpoint.
    pub checkpoint: Checkpoint,
    /// Method that it was trained by.
    pub method: Method,
    /// Number of updates of each parameter.
    updates: BTreeMap<String, usize>,
    bytes: Vec<u8>,
    path: PathBuf,
}

/// Identifies the dataset and the step size, on which the epochs and the order of images depend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetId {
    /// Number of images.
    pub images: usize,
    /// SHA-256 of the ids of the images: a folder may be moved.
    pub names: String,
    /// Number of images in a step.
    pub images_per_step: usize,
}

impl DatasetId {
    /// Identifies images.
    pub(super) fn new(images: &[SourceImage], images_per_step: usize) -> Self {
        let mut hash = Sha256::new();
        for image in images {
            hash.update(&image.id);
            hash.update([0]);
        }
        Self {
            images: images.len(),
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
        for (name, center) in [
            ("center", &state.center),
            ("patch_center", &state.patch_center),
        ] {
            if let Some(center) = center {
                store(name, &center.dims(), center.clone().flatten(0, 1));
            }
        }
        let dataset = &self.dataset;
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("method".to_owned(), state.method().to_string()),
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
}

impl SavedRun {
    /// Reads the checkpoint file `path`.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a checkpoint.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        std::fs::read(path)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Self::parse(bytes, path))
            .with_context(|| format!("reading the checkpoint {}", path.display()))
    }

    fn parse(bytes: Vec<u8>, path: &Path) -> anyhow::Result<Self> {
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            bail!("it is not a checkpoint of this version of dinoserve-train");
        }
        let text = |key: &str| {
            metadata
                .get(key)
                .with_context(|| format!("its metadata has no `{key}`"))
        };
        let count = |key: &str| -> anyhow::Result<usize> {
            let text = text(key)?;
            text.parse().with_context(|| format!("`{key}` is {text}"))
        };
        let updates = metadata
            .keys()
            .filter_map(|key| Some((key.strip_prefix("steps.")?, key)))
            .map(|(name, key)| Ok((name.to_owned(), count(key)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            checkpoint: Checkpoint {
                step: count("step")?,
                dataset: DatasetId {
                    images: count("images")?,
                    names: text("names")?.clone(),
                    images_per_step: count("images_per_step")?,
                },
            },
            // Checkpoints from before there was a choice are of DINO.
            method: match metadata.get("method") {
                Some(method) => method.parse().context("`method`")?,
                None => Method::Dino,
            },
            updates,
            bytes,
            path: path.to_owned(),
        })
    }

    /// Loads the state into networks of the same shapes as `network`.
    ///
    /// # Errors
    /// If the file is damaged, or of a network of another shape.
    pub fn state(&self, network: Network, device: &Device) -> anyhow::Result<TrainerState> {
        self.with_tensors(device, |tensors| {
            let center = |exists: bool, name: &str| {
                let tensor = exists.then(|| tensors.tensor(name)).transpose()?;
                anyhow::Ok(tensor.map(Tensor::unsqueeze))
            };
            let mut moments = BTreeMap::new();
            for (name, &steps) in &self.updates {
                let state = AdamMoments {
                    steps,
                    first: tensors.tensor(&format!("first.{name}"))?,
                    second: tensors.tensor(&format!("second.{name}"))?,
                };
                moments.insert(name.clone(), state);
            }
            Ok(TrainerState {
                center: center(self.method == Method::Dino, "center")?,
                patch_center: center(network.patch_head.is_some(), "patch_center")?,
                student: tensors.module("student", network.clone())?,
                teacher: tensors.module("teacher", network)?,
                optimizer: AdamW::with_moments(moments),
            })
        })
    }

    /// Loads the teacher's backbone into one of the same shape as `backbone`.
    ///
    /// # Errors
    /// If the file is damaged, or of a backbone of another shape.
    pub fn teacher_backbone(
        &self,
        backbone: Backbone,
        device: &Device,
    ) -> anyhow::Result<Backbone> {
        self.with_tensors(device, |tensors| {
            tensors.module("teacher.backbone", backbone)
        })
    }

    fn with_tensors<T>(
        &self,
        device: &Device,
        load: impl FnOnce(&TensorReader<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(anyhow::Error::from)
            .and_then(|file| load(&TensorReader { file, device }))
            .with_context(|| format!("reading the checkpoint {}", self.path.display()))
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
    fn module<M: Module>(&self, prefix: &str, module: M) -> anyhow::Result<M> {
        load(module, |name, shape| {
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
