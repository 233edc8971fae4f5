//! Inference: a bounded job queue, a batcher thread, and worker threads that each own an ONNX
//! Runtime session.
//!
//! [`Engine`] is the handle for callers. Only [`session`], [`providers`], `weights` and `lifetime`
//! use ONNX Runtime.
//!
//! # Errors
//! [`Kind::Artifact`] if a model, a device or the runtime library cannot be used, and
//! [`Kind::Internal`] if the runtime fails.

mod batcher;
mod cores;
mod device;
mod features;
mod hardware;
mod info;
mod lifetime;
mod plan;
mod positions;
pub mod providers;
mod queue;
pub mod session;
mod state;
mod tuning;
mod weights;
mod worker;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    device::{Device, OpenVinoDevice, Provider},
    features::{Features, Input, RequestedOutputs},
    hardware::{available_cores, has_bf16, has_nvidia_gpu, prefers_bf16},
    plan::{EngineConfig, EnginePlan},
    providers::{Runtime, SessionOptions},
    session::{ModelSession, Sessions},
    state::EngineState,
    tuning::{Setting, Tuned, Tuning},
};
use self::{info::ModelInfo, queue::JobQueue};
use crate::{
    artifacts::ModelFile,
    error::{Error, Kind, Result, ResultExt},
    model::{ModelId, ModelSpec},
    onnx::Precision,
};

/// A handle to the running model; clones are cheap. When the last one is dropped, the workers
/// finish the queued jobs and end.
#[derive(Debug, Clone)]
pub struct Engine {
    queue: Arc<JobQueue>,
    state: watch::Receiver<EngineState>,
    model: Arc<ModelInfo>,
}

/// The engine's main thread, which joins the workers. A shutdown waits for it.
#[derive(Debug)]
pub struct EngineThread(std::thread::JoinHandle<()>);

impl Engine {
    /// Starts an engine. Its threads load `model` and run one inference per session to warm up.
    ///
    /// Returns at once; [`Engine::ready`] waits for the outcome.
    pub fn start(
        runtime: &Runtime,
        model: ModelFile,
        config: &EngineConfig,
    ) -> Result<(Self, EngineThread)> {
        let (events, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(JobQueue::new(config.queue_depth, events.clone()));
        let (state_sender, state) = watch::channel(EngineState::Loading);
        let info = Arc::new(ModelInfo::new(&model));
        let loaded = Arc::clone(&info);
        let runtime = runtime.clone();
        let config = config.clone();
        let run = move || {
            worker::run_engine(
                &runtime,
                &model,
                &config,
                &loaded,
                &events,
                receiver,
                state_sender,
            );
        };
        let thread = std::thread::Builder::new()
            .name("batcher".to_owned())
            .spawn(run)
            .internal("the engine's thread cannot be started")?;
        let engine = Self {
            queue,
            state,
            model: info,
        };
        Ok((engine, EngineThread(thread)))
    }

    /// Computes the features of one image, and returns them with the image.
    ///
    /// Waits while the queue is full, so that a request with many images slows down instead of
    /// failing halfway.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the engine does not run, [`Kind::Internal`] if the runtime fails on
    /// this image.
    pub async fn infer(
        &self,
        input: Input,
        outputs: RequestedOutputs,
    ) -> Result<(Input, Features)> {
        let (reply, features) = oneshot::channel();
        self.queue
            .push(input, outputs, reply)
            .await
            .ok_or_else(|| self.ended())?;
        features.await.map_err(|_| self.ended())?
    }

    fn ended(&self) -> Error {
        match self.state().require_ready() {
            Ok(_) => Error::new(Kind::Unavailable, "the model has been stopped"),
            Err(error) => error,
        }
    }

    /// Waits until the engine is ready, and returns its plan.
    pub async fn ready(&self) -> Result<Arc<EnginePlan>> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != EngineState::Loading).await;
        match settled.as_deref() {
            Ok(EngineState::Ready(plan)) => Ok(Arc::clone(plan)),
            Ok(EngineState::Failed(reason)) => Err(Error::artifact(reason.clone())),
            _ => Err(Error::internal("the engine's thread ended while loading")),
        }
    }

    /// Returns the current state.
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Returns the maximum number of images of one request to process concurrently.
    pub fn max_concurrent_images(&self) -> usize {
        match &*self.state.borrow() {
            EngineState::Ready(plan) => plan.max_concurrent_images(),
            EngineState::Loading | EngineState::Failed(_) => 1,
        }
    }

    /// Returns the number of queued jobs.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns the maximum number of queued jobs.
    pub fn queue_depth(&self) -> usize {
        self.queue.depth()
    }

    /// Returns the model's description.
    pub fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    /// Returns the name and fingerprint of the model.
    pub fn model_id(&self) -> &ModelId {
        &self.model.id
    }

    /// Returns all digits of the model's fingerprint.
    pub fn fingerprint(&self) -> &str {
        self.model.id.fingerprint.as_str()
    }

    /// Returns the time at which the engine was started.
    pub fn started(&self) -> SystemTime {
        self.model.started
    }

    /// Returns by how much the process grew while the sessions were loaded, in bytes; `None` before
    /// that, and where the system does not tell.
    pub fn memory(&self) -> Option<u64> {
        self.model.memory.get().copied()
    }

    /// Returns the size of the weights, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.model.weights
    }

    /// Returns the precision of the weights.
    pub fn precision(&self) -> Precision {
        self.model.precision
    }
}

impl EngineThread {
    /// Waits until the workers have finished the queued jobs. All [`Engine`] handles must have been
    /// dropped.
    pub fn join(self) {
        // The panic hook has logged a panic of the thread.
        let _ = self.0.join();
    }
}
