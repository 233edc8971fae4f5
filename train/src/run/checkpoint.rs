//! A run on disk: both networks, the centers, the moments, and the step.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::Path,
};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, View};

use crate::{
    method::{AdamW, Moments, TrainerState},
    model::{Network, flatten, load, names_of},
};

/// Changes when older checkpoints can no longer be read.
const FORMAT: &str = "2";

/// What a file of a checkpoint says besides its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps that are done.
    pub step: usize,
    /// What was learned from.
    pub material: Material,
}

/// What the epochs of a run and the order of its images depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Images of the folder.
    pub images: usize,
    /// A hash of their names.
    pub names: String,
    /// Images of a step.
    pub images_per_step: usize,
}

impl Checkpoint {
    /// Writes it and the state; the file appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path, state: &TrainerState) -> anyhow::Result<()> {
        let mut tensors: Vec<(String, Stored)> = Vec::new();
        for (prefix, network) in [("student", &state.student), ("teacher", &state.teacher)] {
            let shapes: BTreeMap<String, Vec<usize>> = names_of(network).into_iter().collect();
            for (name, values) in flatten(network) {
                tensors.push((
                    format!("{prefix}.{name}"),
                    Stored {
                        shape: shapes[&name].clone(),
                        values,
                    },
                ));
            }
        }
        let centers = [
            ("center", Some(&state.center)),
            ("patch_center", state.patch_center.as_ref()),
        ];
        for (name, center) in centers {
            if let Some(center) = center {
                let shape = center.dims();
                tensors.push((
                    name.to_owned(),
                    Stored {
                        shape: shape.to_vec(),
                        values: center.clone().flatten(0, 1),
                    },
                ));
            }
        }
        let Material {
            images,
            names,
            images_per_step,
        } = &self.material;
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("step".to_owned(), self.step.to_string()),
            ("images".to_owned(), images.to_string()),
            ("names".to_owned(), names.clone()),
            ("images_per_step".to_owned(), images_per_step.to_string()),
        ]);
        for (name, moments) in state.optimiser.moments() {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                let shape = values.dims().to_vec();
                tensors.push((
                    format!("{kind}.{name}"),
                    Stored {
                        shape,
                        values: values.clone(),
                    },
                ));
            }
            metadata.insert(format!("steps.{name}"), moments.steps.to_string());
        }

        let written = path.with_extension("writing");
        let write = || -> anyhow::Result<()> {
            safetensors::serialize_to_file(tensors, Some(metadata), &written)?;
            File::open(&written)?.sync_all()?;
            std::fs::rename(&written, path)?;
            Ok(())
        };
        write().with_context(|| format!("writing the checkpoint {}", path.display()))
    }

    /// Reads a state into networks of the shape of `like`.
    ///
    /// # Errors
    /// If the file is damaged, or of a network of another shape.
    pub fn read(
        path: &Path,
        like: Network,
        device: &Device,
    ) -> anyhow::Result<(Self, TrainerState)> {
        let read = || -> anyhow::Result<(Self, TrainerState)> {
            let bytes = std::fs::read(path)?;
            let (_, header) = SafeTensors::read_metadata(&bytes)?;
            let metadata = header.metadata().clone().unwrap_or_default();
            if metadata.get("format").map(String::as_str) != Some(FORMAT) {
                bail!("it is no checkpoint of this version of dinoserve-train");
            }
            let said = |key: &str| {
                metadata
                    .get(key)
                    .with_context(|| format!("it does not say its {key}"))
            };
            let count =
                |key: &str| -> anyhow::Result<usize> { said(key)?.parse().context(key.to_owned()) };
            let material = Material {
                images: count("images")?,
                names: said("names")?.clone(),
                images_per_step: count("images_per_step")?,
            };
            let checkpoint = Self {
                step: count("step")?,
                material,
            };
            let stored = Reader {
                file: SafeTensors::deserialize(&bytes)?,
                device,
            };

            let network = |prefix: &str| {
                load(like.clone(), |name, shape| {
                    stored.values(&format!("{prefix}.{name}"), Some(shape))
                })
            };
            let center =
                |name: &str| -> anyhow::Result<Tensor<2>> { Ok(stored.tensor(name)?.unsqueeze()) };
            let mut moments = BTreeMap::new();
            for (key, steps) in &metadata {
                if let Some(name) = key.strip_prefix("steps.") {
                    let steps = steps.parse().with_context(|| format!("{key} is {steps}"))?;
                    let [first, second] =
                        ["first", "second"].map(|kind| stored.tensor(&format!("{kind}.{name}")));
                    moments.insert(
                        name.to_owned(),
                        Moments {
                            steps,
                            first: first?,
                            second: second?,
                        },
                    );
                }
            }
            let state = TrainerState {
                student: network("student")?,
                teacher: network("teacher")?,
                center: center("center")?,
                patch_center: like
                    .patch_head
                    .as_ref()
                    .map(|_| center("patch_center"))
                    .transpose()?,
                optimiser: AdamW::with(moments),
            };
            Ok((checkpoint, state))
        };
        read().with_context(|| format!("reading the checkpoint {}", path.display()))
    }
}

/// A tensor on its way to a file; it leaves the device only when it is its turn.
struct Stored {
    shape: Vec<usize>,
    values: Tensor<1>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values: Vec<f32> = self.values.to_data().iter::<f32>().collect();
        Cow::Owned(values.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

struct Reader<'a> {
    file: SafeTensors<'a>,
    device: &'a Device,
}

impl Reader<'_> {
    fn values(&self, name: &str, shape: Option<&[usize]>) -> anyhow::Result<Vec<f32>> {
        let view = self
            .file
            .tensor(name)
            .with_context(|| format!("it has no tensor {name}"))?;
        if view.dtype() != Dtype::F32 || shape.is_some_and(|shape| shape != view.shape()) {
            bail!(
                "tensor {name} has shape {:?}, and not {shape:?}: was the configuration changed since?",
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

    fn tensor(&self, name: &str) -> anyhow::Result<Tensor<1>> {
        let values = self.values(name, None)?;
        let count = values.len();
        Ok(Tensor::from_data(
            TensorData::new(values, [count]),
            self.device,
        ))
    }
}
