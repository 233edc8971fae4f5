//! Observability: metrics that Prometheus's own tools accept, a log line for each request, traces.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::access::{NewKey, Role};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::Value;

use crate::support::{
    process::Process,
    read_golden, scratch,
    server::{ok, ok_json},
    skip, until,
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Checks for a program, and reports the test as skipped if it is missing.
fn is_here(program: &str, test: &str) -> bool {
    let here = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !here {
        skip(&format!(
            "{test}: {program} is missing; on Debian it is in the package prometheus"
        ));
    }
    here
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn embed(process: &Process) -> reqwest::RequestBuilder {
    let client = crate::support::client::client();
    client
        .post(format!("{}/v1/embed?size=112", process.url))
        .header("content-type", "image/png")
        .body(read_golden(CHELSEA))
}

/// Starts a server and sends requests of every kind.
async fn busy_process(flags: &[&str]) -> Process {
    let gallery = scratch("gallery");
    let process = Process::start(
        &[
            &["--gallery", gallery.to_str().unwrap(), "--cache-mb", "16"],
            flags,
        ]
        .concat(),
    );
    let client = crate::support::client::client();
    for _ in 0..3 {
        ok(embed(&process)).await;
    }
    let item = client
        .put(format!("{}/v1/gallery/cat", process.url))
        .header("content-type", "image/png");
    ok(item.body(read_golden(CHELSEA))).await;
    ok(client.get(format!("{}/v1/knn?id=cat", process.url))).await;
    client
        .get(format!("{}/nonsense", process.url))
        .send()
        .await
        .unwrap();
    process
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !is_here("promtool", "observation::promtool") {
        return;
    }
    let process = busy_process(&[]).await;
    let text = ok(crate::support::client::client().get(format!("{}/metrics", process.url)))
        .await
        .text()
        .await
        .unwrap();
    for name in [
        "dinoserve_requests_total{method=\"POST\",route=\"/v1/embed\",status=\"200\"} 3",
        "dinoserve_requests_in_progress 1",
        "dinoserve_queue_capacity_jobs{model=\"",
        "dinoserve_model_ready{model=\"",
        "dinoserve_model_memory_bytes{model=\"",
        "dinoserve_cache_lookups_total{outcome=\"hit\"} 2",
        "dinoserve_gallery_items{gallery=\"default\"} 1",
        "dinoserve_gallery_info{dim=\"",
        "dinoserve_model_info{fingerprint=\"",
        "dinoserve_build_info{version=\"",
        "dinoserve_rejections_total{reason=\"overloaded\"} 0",
        "dinoserve_panics_total{part=\"worker\"} 0",
        "dinoserve_stage_duration_seconds_count{stage=\"inference\"}",
        "dinoserve_ready 1",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(name)),
            "{name} is missing in\n{text}"
        );
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && printed(&output).is_empty(),
        "{}",
        printed(&output)
    );
}

#[test]
fn the_alerts_fire_when_they_should() {
    if !is_here("promtool", "observation::alerts") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            printed(&output)
        );
    }
    // Each alert has a case in which it fires.
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let alerts = text("alerts.yml");
    let cases = text("alerts.test.yml");
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        assert!(cases.contains(name), "{name} has no test");
    }
}

/// A child process that is killed at the end of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_the_server_with_a_key() {
    if !is_here("prometheus", "observation::prometheus") {
        return;
    }
    let folder = scratch("prometheus");
    let NewKey { secret, entry } = NewKey::random("prometheus", Role::Read, None, None).unwrap();
    std::fs::write(folder.join("keys.toml"), entry).unwrap();
    std::fs::write(folder.join("key"), &secret).unwrap();
    let process = Process::start(&["--api-keys", folder.join("keys.toml").to_str().unwrap()]);
    ok(embed(&process).bearer_auth(&secret)).await;

    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
    let target = process.url.trim_start_matches("http://");
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: [{}]\nscrape_configs:\n- job_name: dinoserve\n  \
         authorization: {{credentials_file: {}}}\n  \
         static_configs: [{{targets: [\"{target}\"]}}]\n",
        alerts.display(),
        folder.join("key").display(),
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!(
        "--config.file={}",
        folder.join("prometheus.yml").display()
    ));
    command.arg(format!(
        "--storage.tsdb.path={}",
        folder.join("data").display()
    ));
    command.arg(format!("--web.listen-address={address}"));
    let _prometheus = Ended(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());

    let client = crate::support::client::client();
    let value = async |query: &str| -> Option<f64> {
        let asked = client
            .get(format!("http://{address}/api/v1/query"))
            .query(&[("query", query)])
            .send()
            .await
            .ok()?;
        let answer: Value = asked.json().await.ok()?;
        answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    };
    until(async || value("up{job=\"dinoserve\"}").await == Some(1.0)).await;
    assert_eq!(value("dinoserve_ready").await, Some(1.0));
    until(async || {
        value("dinoserve_requests_total{route=\"/v1/embed\",status=\"200\"}").await == Some(1.0)
    })
    .await;
    let median = "histogram_quantile(0.5, sum by (le) \
                  (dinoserve_stage_duration_seconds_bucket{stage=\"inference\"}))";
    assert!(value(median).await > Some(0.0));
    // The rules are evaluated, and none fires on a healthy server.
    let healthy = async || {
        let rules: Value = ok_json(client.get(format!("http://{address}/api/v1/rules"))).await;
        let rules = rules["data"]["groups"][0]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        !rules.is_empty()
            && rules
                .iter()
                .all(|rule| rule["health"] == "ok" && rule["state"] == "inactive")
    };
    until(healthy).await;
}

#[tokio::test]
async fn each_request_is_one_line_and_no_image_is_in_it() {
    let process = busy_process(&[]).await;
    let id = "an-id-of-the-callers-own";
    let parent = format!("00-{TRACE}-{CALLER}-01");
    ok(embed(&process)
        .header("x-request-id", id)
        .header("traceparent", &parent))
    .await;
    let image = BASE64_STANDARD.encode(read_golden(CHELSEA));
    let body = serde_json::json!({"image": image, "size": 112});
    ok(crate::support::client::client()
        .post(format!("{}/v1/embed", process.url))
        .json(&body))
    .await;
    until(async || process.log().matches("\"route\":\"/v1/embed\"").count() == 5).await;
    let log = process.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let about: Vec<&Value> = lines
        .iter()
        .filter(|line| line["span"]["id"] == id)
        .collect();
    let [line] = about[..] else {
        panic!("{} lines for one request: {log}", about.len())
    };
    assert_eq!(
        (line["method"].as_str(), line["route"].as_str()),
        (Some("POST"), Some("/v1/embed"))
    );
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes"], read_golden(CHELSEA).len().to_string());
    assert!(line["answer_bytes"].as_u64().unwrap() > 100 && line["ms"].as_f64().unwrap() > 0.0);
    assert!(line["timing"].as_str().unwrap().contains("inference;dur="));
    assert_eq!(
        line["trace"], TRACE,
        "the caller's trace, so that its log and ours can be joined"
    );
    assert!(
        lines.iter().all(|line| line.to_string().len() < 1000),
        "{log}"
    );
    assert!(!log.contains(&image[1000..1100]));
}

/// The requests that a minimal span collector has received.
type Collected = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn collector() -> (String, Collected) {
    let collected = Collected::default();
    let collect = async |State(collected): State<Collected>, body: Bytes| {
        collected
            .lock()
            .unwrap()
            .push(ExportTraceServiceRequest::decode(body).expect("OTLP in protobuf"));
    };
    let app = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(Arc::clone(&collected));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, collected)
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .and_then(|found| found.value.clone()?.value);
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_and_join_the_callers_trace() {
    let (address, collected) = collector().await;
    let mut process = Process::start(&["--otlp-endpoint", &address]);
    ok(embed(&process).header("traceparent", format!("00-{TRACE}-{CALLER}-01"))).await;
    // The second caller disables sampling; the third sends no trace.
    ok(embed(&process).header("traceparent", format!("00-{}-{CALLER}-00", "f".repeat(32)))).await;
    ok(embed(&process).header("traceparent", "nonsense")).await;
    // Pending spans are sent before the process exits.
    process.signal("TERM");
    assert!(process.wait(Duration::from_secs(20)).success());

    let collected = collected.lock().unwrap();
    let resource = collected[0].resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(text(&resource.attributes, "service.name"), "dinoserve");
    assert_eq!(
        text(&resource.attributes, "service.version"),
        env!("CARGO_PKG_VERSION")
    );
    let spans: Vec<&Span> = collected
        .iter()
        .flat_map(|sent| &sent.resource_spans)
        .flat_map(|of| &of.scope_spans)
        .flat_map(|of| &of.spans)
        .collect();
    let hex = |id: &[u8]| dinoserve::hex::encode(id);
    let ours: Vec<&&Span> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == TRACE)
        .collect();
    let named = |name: &str| {
        *ours
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("no {name}: {ours:#?}"))
    };
    let request = named("POST /v1/embed");
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(request.kind, SpanKind::Server as i32);
    assert_eq!(text(&request.attributes, "http.route"), "/v1/embed");
    assert_eq!(
        text(&request.attributes, "http.response.status_code"),
        "200"
    );
    for name in ["prepare", "infer"] {
        let stage = named(name);
        assert_eq!(
            stage.parent_span_id, request.span_id,
            "{name} is a part of the request"
        );
        assert!(stage.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(stage.end_time_unix_nano <= request.end_time_unix_nano);
    }
    assert_eq!(ours.len(), 3, "{ours:#?}");
    assert!(
        !spans
            .iter()
            .any(|span| hex(&span.trace_id) == "f".repeat(32)),
        "the caller did not want these"
    );
    let of_its_own = spans
        .iter()
        .filter(|span| span.name == "POST /v1/embed" && hex(&span.trace_id) != TRACE);
    assert_eq!(of_its_own.count(), 1, "the third is a trace of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_does_not_affect_requests() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut process = Process::start(&["--otlp-endpoint", &format!("http://{unused}")]);
    for _ in 0..5 {
        ok(embed(&process)).await;
    }
    process.signal("TERM");
    assert!(process.wait(Duration::from_secs(20)).success());
}
