//! A real server on a free port, in this process.

use std::{net::SocketAddr, time::Duration};

use dinoserve::{
    artifacts::ModelFile,
    engine::{Device, Engine, EngineConfig, EngineThread},
    gallery::{Gallery, GalleryConfig, OpenMode, open},
    http::{AppState, ConnectionTimes, HttpConfig, router, serve},
    service::{GalleryLimits, Limits, Service},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{read_golden, runtime, scratch, tiny};

/// The defaults, on the CPU.
pub fn on_cpu() -> EngineConfig {
    EngineConfig { device: Device::Cpu, ..EngineConfig::default() }
}

pub struct Server {
    pub address: SocketAddr,
    pub client: Client,
    pub engine: Engine,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
    thread: Option<EngineThread>,
}

impl Server {
    /// A server that is ready.
    pub async fn start(model: ModelFile, config: HttpConfig) -> Self {
        let server = Self::start_unready(model, config).await;
        server.engine.ready().await.expect("the engine gets ready");
        server
    }

    /// One that keeps results.
    pub async fn start_with(model: ModelFile, config: HttpConfig, cache_bytes: u64) -> Self {
        let server = Self::make(model, config, cache_bytes, None).await;
        server.engine.ready().await.expect("the engine gets ready");
        server
    }

    pub async fn start_unready(model: ModelFile, config: HttpConfig) -> Self {
        Self::make(model, config, 0, None).await
    }

    /// One that is ready and keeps galleries.
    pub async fn start_on(gallery: Gallery, model: ModelFile, config: HttpConfig) -> Self {
        let server = Self::make(model, config, 0, Some(gallery)).await;
        server.engine.ready().await.expect("the engine gets ready");
        server
    }

    /// One with a tiny model and no galleries yet, for what does not depend on the model.
    pub async fn tiny_with_gallery() -> Self {
        let model = tiny("tiny-reg", "model.safetensors");
        Self::start_on(new_gallery().await, model, HttpConfig::default()).await
    }

    async fn make(model: ModelFile, config: HttpConfig, cache_bytes: u64, gallery: Option<Gallery>) -> Self {
        let (engine, thread) = Engine::start(&runtime(), model, &on_cpu()).expect("an engine");
        let limits = GalleryLimits {
            max_neighbors: 100,
            max_page_items: 100,
            max_probe_items: 1000,
            max_probe_classes: 30,
            ..GalleryLimits::default()
        };
        let service = Service::new(engine.clone(), Limits::default(), cache_bytes);
        let service = service.with_gallery(gallery).with_gallery_limits(limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let times = ConnectionTimes { header: Duration::from_secs(2), grace: Duration::from_secs(20) };
        let (stop, stopped) = oneshot::channel();
        let app = router(AppState::new(service, config));
        let until = async { drop(stopped.await) };
        let serving = tokio::spawn(async move { serve(listener, app, until, times).await });
        let client = Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        Self { address, client, engine, stop: Some(stop), serving, thread: Some(thread) }
    }

    /// A server with a tiny model, for what does not depend on the model.
    pub async fn tiny() -> Self {
        Self::start(tiny("tiny-reg", "model.safetensors"), HttpConfig::default()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.client.put(self.url(path))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(self.url(path))
    }

    /// A request with a file of the goldens as its raw body.
    pub fn post_file(&self, path: &str, file: &str) -> RequestBuilder {
        self.client.post(self.url(path)).header("content-type", "image/png").body(read_golden(file))
    }

    /// Starts to stop; [`Server::stopped`] waits for the end.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub async fn stopped(mut self) {
        self.stop();
        self.serving.await.expect("the server ends");
        drop(self.engine);
        let thread = self.thread.take().expect("a thread");
        tokio::task::spawn_blocking(move || thread.join()).await.expect("the worker ends");
    }
}

/// A store without galleries in a folder of its own.
pub async fn new_gallery() -> Gallery {
    let location = scratch("gallery").to_string_lossy().into_owned();
    open(&location, &GalleryConfig::default(), OpenMode::Serve).await.expect("a gallery")
}

/// Sends, and expects a problem that is told as all are: its status and the body.
pub async fn problem(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:dinoserve:problem:{}", body["code"].as_str().expect("a code")));
    (status, body)
}

/// Sends and expects success.
pub async fn ok(request: RequestBuilder) -> Response {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
    response
}

pub async fn ok_json(request: RequestBuilder) -> Value {
    ok(request).await.json().await.expect("JSON")
}

pub async fn ok_bytes(request: RequestBuilder) -> Vec<u8> {
    ok(request).await.bytes().await.expect("a body").to_vec()
}

/// The f32 values of a `.npy` file, and their shape.
pub fn npy(bytes: &[u8]) -> ndarray::ArrayD<f32> {
    use ndarray_npy::ReadNpyExt;
    ndarray::ArrayD::read_npy(bytes).expect("a .npy file")
}

/// The f32 values of a JSON list, however nested.
pub fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        Value::Number(number) => vec![number.as_f64().expect("a float") as f32],
        other => panic!("{other} is no number"),
    }
}
