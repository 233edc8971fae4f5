//! ONNX Runtime sessions of a converted model: pixels in, features out.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ndarray::{Array, ArrayView, Axis, Dimension};
use ort::{session::SessionOutputs, value::TensorRef};

use super::{
    EnginePlan, Features, Input, Provider, RequestedOutputs, Runtime, SessionOptions,
    lifetime::{OwnedSession, release_weights, running},
    positions::PositionCache,
    providers::{OrtResult, require_bf16},
    weights::SharedWeights,
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result, ResultExt},
    vision::{Grid, PatchSize, RgbImage, Size},
};

/// A session and its buffers. It belongs to one thread.
pub struct ModelSession {
    session: OwnedSession,
    // Dropped after the session, which points into the weights of the model.
    model: Arc<LoadedModel>,
    provider: Provider,
    options: SessionOptions,
    /// Buffer for the pixels of a batch of several images.
    pixels: Vec<u8>,
}

/// Data that all sessions of a model share, and that creates further sessions.
struct LoadedModel {
    runtime: Runtime,
    path: PathBuf,
    data: PathBuf,
    has_registers: bool,
    patch: PatchSize,
    weights: Option<SharedWeights>,
    positions: PositionCache,
}

impl LoadedModel {
    fn session(&self, provider: Provider, options: &SessionOptions) -> Result<OwnedSession> {
        let mut builder = self.runtime.session_builder(provider, options)?;
        if let Some(weights) = &self.weights {
            builder = weights.lend(builder)?;
        }
        OwnedSession::create(|| {
            builder.commit_from_file(&self.path).map_err(|error| {
                Error::artifact(format!("{} cannot be loaded: {error}", self.path.display()))
            })
        })
    }
}

/// The sessions of an engine.
pub struct Sessions {
    /// Sessions that run concurrently.
    pub workers: Vec<ModelSession>,
    /// Session that uses all cores, for an image that is alone in the engine.
    pub solo: Option<ModelSession>,
}

impl Sessions {
    /// Returns the session with the most threads, for a single image.
    ///
    /// # Panics
    /// If there are no sessions, which [`ModelSession::load`] never returns.
    pub fn single(&mut self) -> &mut ModelSession {
        self.solo.as_mut().unwrap_or_else(|| &mut self.workers[0])
    }
}

impl ModelSession {
    /// Loads the sessions of `plan`, one after the other. Sessions on the CPU share the memory of
    /// the weights.
    pub fn load(runtime: &Runtime, model: &ModelFile, plan: &EnginePlan) -> Result<Sessions> {
        if let Some(provider) = plan.providers.iter().find(|p| p.dialect() != model.dialect) {
            return Err(Error::artifact(format!(
                "{} is converted for another provider than {provider}; convert it with --device",
                model.paths.model.display()
            )));
        }
        if plan.session.bf16 {
            require_bf16()?;
        }
        let on_cpu = plan.providers.contains(&Provider::Cpu);
        let model = Arc::new(LoadedModel {
            runtime: runtime.clone(),
            path: model.paths.model.clone(),
            data: model.paths.data.clone(),
            has_registers: model.spec.architecture.registers > 0,
            patch: model.spec.architecture.patch,
            weights: on_cpu.then(|| SharedWeights::open(model)).transpose()?,
            positions: PositionCache::new(model.positions.clone()),
        });
        let workers = (0..plan.workers)
            .flat_map(|_| &plan.providers)
            .map(|&provider| Self::new(&model, provider, plan.session))
            .collect::<Result<_>>()?;
        let solo = plan.solo_threads.zip(plan.providers.first());
        let solo = solo.map(|(intra_threads, &provider)| {
            let options = SessionOptions {
                intra_threads,
                ..plan.session
            };
            Self::new(&model, provider, options)
        });
        let solo = solo.transpose()?;
        if let Some(weights) = &model.weights {
            weights.release_pages();
        }
        Ok(Sessions { workers, solo })
    }

    fn new(model: &Arc<LoadedModel>, provider: Provider, options: SessionOptions) -> Result<Self> {
        Ok(Self {
            session: model.session(provider, &options)?,
            model: Arc::clone(model),
            provider,
            options,
            pixels: Vec::new(),
        })
    }

    /// Returns the number of cores that a run uses; `None` if it runs on another device.
    pub(super) fn cores(&self) -> Option<usize> {
        let is_processor = self.provider.is_processor();
        is_processor.then_some(self.options.intra_threads)
    }

    /// Replaces a session that may be damaged with a new one of the same kind.
    pub fn replace(&mut self) -> Result<()> {
        *self = Self::new(&self.model, self.provider, self.options)?;
        Ok(())
    }

    /// Runs a batch of images of one grid, and returns the features of each.
    ///
    /// `queue_time` of the features is zero.
    pub fn run(&mut self, batch: &[(&Input, RequestedOutputs)]) -> Result<Vec<Features>> {
        let Some(&(first, _)) = batch.first() else {
            return Ok(Vec::new());
        };
        let grid = first.grid;
        let started = Instant::now();
        // A single image is not copied.
        let pixels = if batch.len() == 1 {
            first.pixels.as_raw().as_slice()
        } else {
            self.pixels.clear();
            for (input, _) in batch {
                assert_eq!(input.grid, grid, "the images of a batch have one grid");
                self.pixels.extend_from_slice(input.pixels.as_raw());
            }
            &self.pixels
        };
        let Size { width, height } = grid.pixels(self.model.patch);
        let positions = self.model.positions.get(grid);
        let pixels =
            TensorRef::from_array_view(([batch.len(), height, width, 3], pixels)).into_result()?;
        let positions = TensorRef::from_array_view(positions.view()).into_result()?;
        let name = self.model.positions.input_name();
        let inputs = ort::inputs!["pixels" => pixels, name => positions];
        let running = running();
        let results = self.session.run(inputs).into_result()?;
        drop(running);
        let inference_time = started.elapsed();
        let results = Results(&results);
        batch
            .iter()
            .enumerate()
            .map(|(index, (_, outputs))| {
                let with_registers = outputs.registers && self.model.has_registers;
                Ok(Features {
                    grid,
                    cls: results.copy("cls", index)?,
                    patch_tokens: results.copy_if(outputs.patch_tokens, "patch_tokens", index)?,
                    registers: results.copy_if(with_registers, "registers", index)?,
                    attention: results.copy_if(outputs.attention, "attention", index)?,
                    layers_cls: results.copy_if(outputs.layers_cls, "layers_cls", index)?,
                    layers_patch: results.copy_if(outputs.layers_patch, "layers_patch", index)?,
                    queue_time: Duration::ZERO,
                    inference_time,
                })
            })
            .collect()
    }

    /// Runs one gray image of `grid`. OpenVINO packs the weights in its first run, after which the
    /// memory of those in the file is released.
    pub fn warm_up(&mut self, grid: Grid) -> Result<()> {
        let Size { width, height } = grid.pixels(self.model.patch);
        let pixels = RgbImage::from_pixel(width as u32, height as u32, image::Rgb([128; 3]));
        self.run(&[(&Input { pixels, grid }, RequestedOutputs::default())])?;
        if let Provider::OpenVino(_) = self.provider {
            release_weights(&self.model.data);
        }
        Ok(())
    }
}

/// Results of the runtime for a batch.
struct Results<'a, 's>(&'a SessionOutputs<'s>);

impl Results<'_, '_> {
    /// Copies the part of output `name` for image `index`.
    fn copy<D: Dimension>(&self, name: &str, index: usize) -> Result<Array<f32, D>> {
        let missing = || Error::internal(format!("the model has no output {name}"));
        let value = self.0.get(name).ok_or_else(missing)?;
        let array: ArrayView<'_, f32, _> = value.try_extract_array().into_result()?;
        let part = array
            .index_axis_move(Axis(0), index)
            .into_dimensionality::<D>()
            .internal(format_args!("output {name}"))?;
        Ok(part.to_owned())
    }

    fn copy_if<D: Dimension>(
        &self,
        requested: bool,
        name: &str,
        index: usize,
    ) -> Result<Option<Array<f32, D>>> {
        requested.then(|| self.copy(name, index)).transpose()
    }
}
