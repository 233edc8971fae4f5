//! The model at work: a bounded queue, a thread that makes batches, and threads that each own an
//! ONNX Runtime session.
//!
//! [`Engine`] is the handle that others hold. Only [`session`], [`providers`] and `weights` know
//! ONNX Runtime.

mod batcher;
mod plan;
mod positions;
pub mod providers;
pub mod session;
mod weights;
mod worker;

use std::{sync::Arc, time::Duration};

use ndarray::{Array1, Array2, Array3};
use tokio::sync::{oneshot, watch};

use self::batcher::Entrance;
pub use self::{
    plan::{EngineConfig, EnginePlan, available_cores},
    providers::{Device, Provider, Runtime, SessionOptions},
    session::{ModelSession, Sessions},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Kind, Result},
    model::{ModelId, ModelSpec},
    onnx::Precision,
    vision::{Grid, RgbImage},
};

/// An image as the model takes it: `[grid.height·14, grid.width·14]` RGB.
#[derive(Debug, Clone)]
pub struct Input {
    /// The pixels.
    pub pixels: RgbImage,
    /// Its grid.
    pub grid: Grid,
}

/// Which of the model's outputs a job needs; the others are not copied out of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestedOutputs {
    /// The patch tokens of the last block.
    pub patch_tokens: bool,
    /// The register tokens of the last block; a model without them gives none.
    pub registers: bool,
    /// The softmax rows of CLS in the last block.
    pub attention: bool,
    /// CLS of the last blocks.
    pub layers_cls: bool,
    /// Patch tokens of the last blocks.
    pub layers_patch: bool,
}

/// The features of one image; the final norm is applied to all tokens.
#[derive(Debug, Clone)]
pub struct Features {
    /// Grid of the patch tokens.
    pub grid: Grid,
    /// `[dim]`.
    pub cls: Array1<f32>,
    /// `[patches, dim]`, row-major over the grid.
    pub patch_tokens: Option<Array2<f32>>,
    /// `[registers, dim]`.
    pub registers: Option<Array2<f32>>,
    /// `[heads, 1 + registers + patches]`.
    pub attention: Option<Array2<f32>>,
    /// `[layers, dim]`, the last block last.
    pub layers_cls: Option<Array2<f32>>,
    /// `[layers, patches, dim]`, the last block last.
    pub layers_patch: Option<Array3<f32>>,
    /// Time between the queue's taking the job and a worker's.
    pub queue_time: Duration,
    /// Time that the runtime took for the batch.
    pub inference_time: Duration,
}

/// Where an engine is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// The session is being made and warmed up.
    Loading,
    /// A real inference has succeeded.
    Ready(Arc<EnginePlan>),
    /// It cannot run; the reason.
    Failed(String),
}

/// A handle to the running model; clones are cheap. When the last is dropped the workers finish
/// what is queued and end.
#[derive(Debug, Clone)]
pub struct Engine {
    entrance: Arc<Entrance>,
    state: watch::Receiver<EngineState>,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    spec: ModelSpec,
    id: ModelId,
    precision: Precision,
}

/// The engine's first thread, which waits for the others, to be waited for at shutdown.
#[derive(Debug)]
pub struct EngineThread(std::thread::JoinHandle<()>);

impl Engine {
    /// Starts the workers, which load `model`, run one inference each to warm up, and serve.
    ///
    /// Returns at once; [`Engine::ready`] waits for the outcome.
    ///
    /// # Errors
    /// [`Kind::Internal`] if no thread can be started.
    pub fn start(
        runtime: &Runtime,
        model: ModelFile,
        config: &EngineConfig,
    ) -> Result<(Self, EngineThread)> {
        let (entrance, events) = batcher::entrance(config.queue_depth);
        let (state_sender, state) = watch::channel(EngineState::Loading);
        let about = About {
            spec: model.spec.clone(),
            id: ModelId {
                name: model.spec.name.clone(),
                fingerprint: model.fingerprint.as_str().into(),
            },
            precision: model.precision,
        };
        let crew = worker::Crew {
            runtime: runtime.clone(),
            model,
            config: config.clone(),
            events,
            state: state_sender,
        };
        let thread = std::thread::Builder::new()
            .name("batcher".to_owned())
            .spawn(move || crew.run())
            .map_err(|error| {
                Error::internal(format!("cannot start the engine's thread: {error}"))
            })?;
        Ok((
            Self {
                entrance: Arc::new(entrance),
                state,
                about: Arc::new(about),
            },
            EngineThread(thread),
        ))
    }

    /// The model's features of one image, and the image back for whoever draws on it. Waits for a
    /// place in the queue, so that a request with many images is slowed down and not refused half
    /// way.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the engine is not running, [`Kind::Internal`] if the runtime fails
    /// on this image.
    pub async fn infer(&self, input: Input, wanted: RequestedOutputs) -> Result<(Input, Features)> {
        let (reply, answer) = oneshot::channel();
        self.entrance
            .put(input, wanted, reply)
            .await
            .ok_or_else(|| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    fn gone(&self) -> Error {
        match self.state() {
            EngineState::Failed(reason) => {
                Error::new(Kind::Unavailable, format!("the model cannot run: {reason}"))
            }
            _ => Error::new(Kind::Unavailable, "the model has been stopped"),
        }
    }

    /// Waits until the engine is ready and tells how it runs.
    ///
    /// # Errors
    /// [`Kind::Artifact`] with the reason if it cannot run.
    pub async fn ready(&self) -> Result<Arc<EnginePlan>> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != EngineState::Loading).await;
        match settled.as_deref() {
            Ok(EngineState::Ready(plan)) => Ok(Arc::clone(plan)),
            Ok(EngineState::Failed(reason)) => Err(Error::artifact(reason.clone())),
            _ => Err(Error::internal("the worker thread ended while loading")),
        }
    }

    /// Where the engine is in its life.
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Images of one request that it makes sense to have under way together.
    pub fn images_at_once(&self) -> usize {
        match &*self.state.borrow() {
            EngineState::Ready(plan) => plan.images_at_once(),
            EngineState::Loading | EngineState::Failed(_) => 1,
        }
    }

    /// Jobs that wait in the queue.
    pub fn queued(&self) -> usize {
        self.entrance.len()
    }

    /// Jobs that may wait in the queue.
    pub fn queue_depth(&self) -> usize {
        self.entrance.depth()
    }

    /// The model's description.
    pub fn spec(&self) -> &ModelSpec {
        &self.about.spec
    }

    /// Returns the name and fingerprint of the model.
    pub fn model_id(&self) -> &ModelId {
        &self.about.id
    }

    /// Returns all digits of the model's fingerprint.
    pub fn fingerprint(&self) -> &str {
        self.about.id.fingerprint.as_str()
    }

    /// Precision of the weights.
    pub fn precision(&self) -> Precision {
        self.about.precision
    }
}

impl EngineThread {
    /// Waits until the workers have finished what is queued. All [`Engine`] handles must have been
    /// dropped.
    pub fn join(self) {
        // A panic of a worker has been logged by the panic hook already.
        let _ = self.0.join();
    }
}
