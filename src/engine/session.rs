//! One ONNX Runtime session of a converted model: pixels in, features out.

use std::{path::PathBuf, sync::Arc, time::Instant};

use ndarray::{ArrayView, Dimension};
use ort::{
    session::{Session, SessionOutputs},
    value::TensorRef,
};

use super::{
    EnginePlan, Features, Input, Provider, RequestedOutputs, Runtime, SessionOptions,
    positions::PositionCache, providers::of_runtime, weights::SharedWeights,
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    vision::Grid,
};

/// A session and what it needs for each run. It belongs to one thread.
pub struct ModelSession {
    session: Session,
    // After the session, which points into the weights that the model has.
    model: Arc<LoadedModel>,
    provider: Provider,
    options: SessionOptions,
    /// Pixels of a batch of several images.
    pixels: Vec<u8>,
}

/// What the sessions of a model share, and what further ones are made of.
struct LoadedModel {
    runtime: Runtime,
    path: PathBuf,
    has_registers: bool,
    weights: Option<SharedWeights>,
    positions: PositionCache,
}

impl LoadedModel {
    fn session(&self, provider: Provider, options: &SessionOptions) -> Result<Session> {
        let mut builder = self.runtime.session_builder(provider, options)?;
        if let Some(weights) = &self.weights {
            builder = weights.lend(builder)?;
        }
        let failed =
            |error| Error::artifact(format!("{} cannot be loaded: {error}", self.path.display()));
        builder.commit_from_file(&self.path).map_err(failed)
    }
}

/// The sessions of an engine.
pub struct Sessions {
    /// Those that work side by side.
    pub workers: Vec<ModelSession>,
    /// One that has all cores to itself, for an image that is alone.
    pub solo: Option<ModelSession>,
}

impl Sessions {
    /// The session for a single image: the one with the most threads.
    ///
    /// # Panics
    /// If there are no sessions, which [`ModelSession::load`] never gives.
    pub fn single(&mut self) -> &mut ModelSession {
        self.solo.as_mut().unwrap_or_else(|| &mut self.workers[0])
    }
}

impl ModelSession {
    /// Loads the sessions that `plan` speaks of, one after the other. Those on the CPU share the
    /// memory of the weights.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the model or a device cannot be used.
    pub fn load(runtime: &Runtime, model: &ModelFile, plan: &EnginePlan) -> Result<Sessions> {
        let on_cpu = plan.providers.contains(&Provider::Cpu);
        let model = Arc::new(LoadedModel {
            runtime: runtime.clone(),
            path: model.paths.model.clone(),
            has_registers: model.spec.registers > 0,
            weights: on_cpu.then(|| SharedWeights::open(model)).transpose()?,
            positions: PositionCache::new(model.positions.clone()),
        });
        let all = (0..plan.workers).flat_map(|_| &plan.providers);
        let workers = all
            .map(|&provider| Self::new(&model, provider, plan.session))
            .collect::<Result<_>>()?;
        let solo = plan.solo_threads.map(|intra_threads| SessionOptions {
            intra_threads,
            ..plan.session
        });
        let solo = solo
            .map(|options| Self::new(&model, Provider::Cpu, options))
            .transpose()?;
        if let Some(weights) = &model.weights {
            weights.release_pages();
        }
        Ok(Sessions { workers, solo })
    }

    fn new(model: &Arc<LoadedModel>, provider: Provider, options: SessionOptions) -> Result<Self> {
        let session = model.session(provider, &options)?;
        Ok(Self {
            session,
            model: Arc::clone(model),
            provider,
            options,
            pixels: Vec::new(),
        })
    }

    /// Takes the place of a session that is not to be trusted any more with a new one of the same
    /// kind.
    ///
    /// # Errors
    /// As [`ModelSession::load`]; the old session stays.
    pub fn renew(&mut self) -> Result<()> {
        *self = Self::new(&self.model, self.provider, self.options)?;
        Ok(())
    }

    /// Where it computes.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs the images of one batch, which all have the same grid, and gives the features of each.
    ///
    /// `queue_time` of the results is zero; only a queue knows it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if the runtime fails.
    pub fn run(&mut self, batch: &[(&Input, RequestedOutputs)]) -> Result<Vec<Features>> {
        let Some(&(first, _)) = batch.first() else {
            return Ok(Vec::new());
        };
        let grid = first.grid;
        let started = Instant::now();
        // One image goes to the runtime as it lies; only several are copied together.
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
        let (height, width) = grid.pixels();
        let positions = self.model.positions.get(grid);
        let pixels = TensorRef::from_array_view(([batch.len(), height, width, 3], pixels))
            .map_err(of_runtime)?;
        let positions = positions.view().insert_axis(ndarray::Axis(0));
        let positions = TensorRef::from_array_view(positions).map_err(of_runtime)?;
        let inputs = ort::inputs!["pixels" => pixels, "pos_embed" => positions];
        let outputs = self.session.run(inputs).map_err(of_runtime)?;
        let inference_time = started.elapsed();
        let outputs = Outputs(&outputs);
        let has_registers = self.model.has_registers;
        let features = |(index, &(_, wanted)): (usize, &(&Input, RequestedOutputs))| {
            Ok(Features {
                grid,
                cls: outputs.of("cls", index)?,
                patch_tokens: outputs.wanted(wanted.patch_tokens, "patch_tokens", index)?,
                registers: outputs.wanted(wanted.registers && has_registers, "registers", index)?,
                attention: outputs.wanted(wanted.attention, "attention", index)?,
                layers_cls: outputs.wanted(wanted.layers_cls, "layers_cls", index)?,
                layers_patch: outputs.wanted(wanted.layers_patch, "layers_patch", index)?,
                queue_time: std::time::Duration::ZERO,
                inference_time,
            })
        };
        batch.iter().enumerate().map(features).collect()
    }

    /// Runs one grey image of `grid`.
    ///
    /// # Errors
    /// As [`ModelSession::run`].
    pub fn warm_up(&mut self, grid: Grid) -> Result<()> {
        let (height, width) = grid.pixels();
        let pixels =
            crate::vision::RgbImage::from_pixel(width as u32, height as u32, image::Rgb([128; 3]));
        self.run(&[(&Input { pixels, grid }, RequestedOutputs::default())])
            .map(drop)
    }
}

struct Outputs<'a, 's>(&'a SessionOutputs<'s>);

impl Outputs<'_, '_> {
    /// The part of output `name` that belongs to image `index`, copied.
    fn of<D: Dimension>(&self, name: &str, index: usize) -> Result<ndarray::Array<f32, D>> {
        let value = self
            .0
            .get(name)
            .ok_or_else(|| Error::internal(format!("the model has no output {name}")))?;
        let array: ArrayView<'_, f32, _> = value.try_extract_array().map_err(of_runtime)?;
        let part = array.index_axis_move(ndarray::Axis(0), index);
        let part = part.into_dimensionality::<D>();
        part.map(|part| part.to_owned())
            .map_err(|_| Error::internal(format!("output {name} has an unexpected rank")))
    }

    fn wanted<D: Dimension>(
        &self,
        wanted: bool,
        name: &str,
        index: usize,
    ) -> Result<Option<ndarray::Array<f32, D>>> {
        wanted.then(|| self.of(name, index)).transpose()
    }
}
