//! A server on a free port, in this process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dinoserve::{
    artifacts::{Home, ModelFile, ModelStore},
    engine::{Device, Engine, EngineConfig},
    gallery::{Gallery, GalleryConfig, OpenMode, open},
    http::{AppState, HttpConfig, ServeConfig, Stop, access::ApiKeys, serve},
    model::PositionRule,
    onnx::Precision,
    service::{CacheBytes, Extractor, GalleryLimits, ImageLimits, ModelSource, Models, Service},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{read_golden, runtime, scratch, tiny};

/// Returns the default configuration on the CPU.
pub fn on_cpu() -> EngineConfig {
    EngineConfig {
        device: Device::Cpu,
        ..EngineConfig::default()
    }
}

/// Returns the source of the converted models in a home.
pub fn source(home: Home) -> ModelSource {
    ModelSource {
        store: ModelStore::new(home, "http://127.0.0.1:9").expect("a store"),
        runtime: runtime(),
        config: on_cpu(),
        positions: PositionRule::Hub,
        precision: Precision::Fp32,
        offline: true,
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub client: Client,
    stop: Option<oneshot::Sender<Stop>>,
    serving: JoinHandle<()>,
    service: Service,
}

/// The parts of a server.
pub struct Setup {
    pub model: ModelFile,
    pub engine: EngineConfig,
    pub http: HttpConfig,
    pub serve: ServeConfig,
    pub cache: CacheBytes,
    pub gallery: Option<Gallery>,
    pub keys: Option<Arc<ApiKeys>>,
    pub source: Option<ModelSource>,
    /// Models next to the first.
    pub others: Vec<ModelFile>,
}

impl Setup {
    /// The defaults, with shorter timeouts.
    pub fn new(model: ModelFile) -> Self {
        let serve = ServeConfig {
            header_timeout: Duration::from_secs(2),
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(20),
            reload_interval: Duration::from_millis(50),
            ..ServeConfig::default()
        };
        let http = HttpConfig::default();
        let engine = on_cpu();
        Self {
            model,
            engine,
            http,
            serve,
            cache: CacheBytes::default(),
            gallery: None,
            keys: None,
            source: None,
            others: Vec::new(),
        }
    }

    /// The defaults, with a tiny model.
    pub fn tiny() -> Self {
        Self::new(tiny("tiny-reg", "model.safetensors"))
    }

    /// Starts a server, which may not be ready yet.
    pub async fn start_unready(self) -> Server {
        let start = |model| Engine::start(&runtime(), model, &self.engine).expect("an engine");
        let (engine, thread) = start(self.model);
        let limits = GalleryLimits {
            max_neighbors: 100,
            max_page_items: 100,
            max_probe_items: 1000,
            max_probe_classes: 30,
            max_compared_items: 6000,
            ..GalleryLimits::default()
        };
        let extractor = Extractor::new(engine, ImageLimits::default(), self.cache);
        let others = self.others.into_iter().map(|model| {
            let (engine, thread) = start(model);
            (extractor.with_engine(engine), thread)
        });
        let models = std::iter::once((extractor.clone(), thread)).chain(others);
        let models = Models::new(models.collect(), self.source, 3);
        let service = Service::new(models, self.gallery, limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let until = async { stopped.await.unwrap_or(Stop::Now) };
        let state = AppState::new(service.clone(), self.http, self.keys);
        let config = self.serve;
        let serving = tokio::spawn(async move {
            serve(listener, state, until, config)
                .await
                .expect("it serves");
        });
        let client = crate::support::client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client");
        Server {
            address,
            client,
            stop: Some(stop),
            serving,
            service,
        }
    }

    /// Starts a server, and waits until it is ready.
    pub async fn start(self) -> Server {
        let server = self.start_unready().await;
        let models = server.service.models();
        models.ready().await.expect("the engines get ready");
        server
    }
}

impl Server {
    /// Starts a server, and waits until it is ready.
    pub async fn start(model: ModelFile, config: HttpConfig) -> Self {
        Setup {
            http: config,
            ..Setup::new(model)
        }
        .start()
        .await
    }

    /// Starts a server with a cache.
    pub async fn start_with(model: ModelFile, config: HttpConfig, cache_bytes: u64) -> Self {
        Setup {
            http: config,
            cache: CacheBytes {
                all: cache_bytes,
                recent: 0,
            },
            ..Setup::new(model)
        }
        .start()
        .await
    }

    pub async fn start_unready(model: ModelFile, config: HttpConfig) -> Self {
        Setup {
            http: config,
            ..Setup::new(model)
        }
        .start_unready()
        .await
    }

    /// Starts a server with a gallery.
    pub async fn start_on(gallery: Gallery, model: ModelFile, config: HttpConfig) -> Self {
        Setup {
            http: config,
            gallery: Some(gallery),
            ..Setup::new(model)
        }
        .start()
        .await
    }

    /// Starts a server with a tiny model and an empty store.
    pub async fn tiny_with_gallery() -> Self {
        Setup {
            gallery: Some(new_gallery().await),
            ..Setup::tiny()
        }
        .start()
        .await
    }

    /// Starts a server with a tiny model.
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

    pub fn patch(&self, path: &str) -> RequestBuilder {
        self.client.patch(self.url(path))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(self.url(path))
    }

    /// Returns a request with a golden file as its raw body.
    pub fn post_file(&self, path: &str, file: &str) -> RequestBuilder {
        self.client
            .post(self.url(path))
            .header("content-type", "image/png")
            .body(read_golden(file))
    }

    /// Returns the engine of the default model.
    pub fn engine(&self) -> Engine {
        self.service.models().default_model().engine().clone()
    }

    /// Begins to stop; [`Server::stopped`] waits for the end.
    pub fn stop(&mut self) {
        self.stop_as(Stop::Now);
    }

    /// Begins to stop in one of the ways.
    pub fn stop_as(&mut self, way: Stop) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(way);
        }
    }

    pub async fn stopped(mut self) {
        self.stop();
        self.serving.await.expect("the server ends");
        self.service.close().await;
    }
}

/// Opens an empty store in a folder of its own.
pub async fn new_gallery() -> Gallery {
    let location = scratch("gallery").to_string_lossy().into_owned();
    open(&location, &GalleryConfig::default(), OpenMode::Serve)
        .await
        .expect("a gallery")
}

/// Sends a request that must fail. Returns its status and its problem, whose form is checked.
pub async fn problem(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["status"], status);
    assert_eq!(
        body["type"],
        format!(
            "urn:dinoserve:problem:{}",
            body["code"].as_str().expect("a code")
        )
    );
    (status, body)
}

/// A bad request: its name in a failure, and the status, code and a part of the detail that its
/// problem must have.
pub type BadRequest = (
    &'static str,
    RequestBuilder,
    u16,
    &'static str,
    &'static str,
);

/// Sends a bad request and checks its problem.
pub async fn assert_problem((name, request, status, code, detail): BadRequest) {
    let (found, body) = problem(request).await;
    assert!(found == status && body["code"] == code, "{name}: {body}");
    let text = body["detail"].as_str().expect("a detail");
    assert!(text.contains(detail), "{name}: no {detail:?} in {body}");
}

/// Sends a request that must succeed.
pub async fn ok(request: RequestBuilder) -> Response {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    assert!(
        status.is_success(),
        "{status}: {}",
        response.text().await.unwrap_or_default()
    );
    response
}

pub async fn ok_json(request: RequestBuilder) -> Value {
    ok(request).await.json().await.expect("JSON")
}

pub async fn ok_bytes(request: RequestBuilder) -> Vec<u8> {
    ok(request).await.bytes().await.expect("a body").to_vec()
}

/// Reads the f32 values of a `.npy` file.
pub fn npy(bytes: &[u8]) -> ndarray::ArrayD<f32> {
    use ndarray_npy::ReadNpyExt;
    ndarray::ArrayD::read_npy(bytes).expect("a .npy file")
}

/// Returns the f32 values of a nested JSON list.
pub fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        Value::Number(number) => vec![number.as_f64().expect("a float") as f32],
        other => panic!("{other} is no number"),
    }
}

/// Returns the first bytes of an HTTP/2 client: the size of its window, and a request without a
/// body. Fields are encoded by HPACK: GET is 82, DELETE 02 and its text, http 86, a path 04 and its
/// text, the host 01 and its text.
pub fn http2_request(window: u8, fields: &[u8]) -> Vec<u8> {
    let settings = [&b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0"[..], &[window]].concat();
    let head = [0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1];
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &settings,
        &head,
        fields,
    ]
    .concat()
}
