//! Faults of the system around the server; `tests/FAULTS.md` lists them.

use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::sleep,
};

use crate::support::{
    postgres::{Postgres, UNPRIVILEGED},
    process::{PROGRAM, Process},
    read_golden, replace, runtime_library, scratch,
    server::{ok, ok_json},
    skip, tiny_home, until,
};

const COFFEE: &str = "dinov2-small-focus/coffee.png";
/// Time within which a server serves again after a fault.
const RECOVERY: Duration = Duration::from_secs(5);

fn client() -> Client {
    crate::support::client::builder()
        .timeout(Duration::from_secs(90))
        .build()
        .unwrap()
}

fn embed(client: &Client, url: &str) -> reqwest::RequestBuilder {
    client
        .post(format!("{url}/v1/embed?size=112"))
        .header("content-type", "image/png")
        .body(read_golden(COFFEE))
}

/// Sends requests until one is served, which must happen within [`RECOVERY`].
async fn serves_again(url: &str) {
    let client = client();
    let began = Instant::now();
    loop {
        if embed(&client, url)
            .send()
            .await
            .is_ok_and(|response| response.status() == 200)
        {
            return;
        }
        assert!(
            began.elapsed() < RECOVERY,
            "it does not serve again within {RECOVERY:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Clients that store one item after the other, and the ids that were acknowledged.
struct Writers {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(url: &str, count: usize) -> Self {
        let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |number: usize| {
            let (url, acknowledged, stop) =
                (url.to_owned(), Arc::clone(&acknowledged), Arc::clone(&stop));
            let client = client();
            tokio::spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("{number}-{turn}");
                    let vector: Vec<f32> = (0..64)
                        .map(|index| ((index + turn) % 17) as f32 - 5.0)
                        .collect();
                    let put = client
                        .put(format!("{url}/v1/gallery/{id}"))
                        .json(&json!({"vector": vector, "label": "x"}));
                    match put.send().await {
                        // The status is the acknowledgment.
                        Ok(response) if response.status().is_success() => {
                            acknowledged.lock().unwrap().insert(id);
                        }
                        Ok(response) => assert!(response.status() == 503, "{}", response.status()),
                        Err(_) => sleep(Duration::from_millis(10)).await,
                    }
                }
            })
        };
        let tasks = (0..count).map(writer).collect();
        Self {
            acknowledged,
            stop,
            tasks,
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until_more(&self, more: usize) {
        let before = self.count();
        until(async || self.count() >= before + more).await;
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// Returns the ids of all stored items.
async fn stored(url: &str) -> BTreeSet<String> {
    let client = client();
    let mut ids = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page: Value = ok_json(client.get(format!("{url}/v1/gallery?limit=1000{cursor}"))).await;
        ids.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_writing() {
    let home = tiny_home(&["tiny-reg"]);
    let gallery = scratch("gallery");
    let flags = [
        "--model",
        "tiny-reg",
        "--gallery",
        gallery.to_str().unwrap(),
    ];
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let mut process = Process::start_in(&home, &flags);
        if round > 0 {
            let found = stored(&process.url).await;
            assert!(
                acknowledged.is_subset(&found),
                "lost: {:?}",
                acknowledged.difference(&found)
            );
        }
        let writers = Writers::start(&process.url, 8);
        writers.until_more(40).await;
        process.signal("KILL");
        process.wait(RECOVERY);
        acknowledged.extend(writers.end().await.into_iter().map(|id| id.to_string()));
    }
    let process = Process::spawn(&home, &flags);
    serves_again(&process.url).await;
    let found = stored(&process.url).await;
    assert!(
        acknowledged.is_subset(&found),
        "lost: {:?}",
        acknowledged.difference(&found)
    );
    assert!(
        acknowledged.len() >= 40,
        "each round writes the same ids and new ones"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_for_ten_seconds_under_load() {
    let process = Process::start(&[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = client();
            let url = process.url.clone();
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    ok(embed(&client, &url)).await;
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    process.signal("STOP");
    sleep(Duration::from_secs(10)).await;
    process.signal("CONT");
    serves_again(&process.url).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.expect("no request failed") > 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_vanish_while_they_send_and_while_they_are_answered() {
    let process = Process::start(&["--max-requests", "8"]);
    let address = process.url.trim_start_matches("http://").to_owned();
    let image = read_golden(COFFEE);
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    for turn in 0..100 {
        // Half of the body, then a disconnect.
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(head("/v1/embed", image.len()).as_bytes())
            .await
            .unwrap();
        stream.write_all(&image[..image.len() / 2]).await.unwrap();
        drop(stream);
        // The whole body; the client disconnects while it waits or when the response begins,
        // by closing or by a reset.
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(head("/v1/embed?tokens=true&size=448", image.len()).as_bytes())
            .await
            .unwrap();
        stream.write_all(&image).await.unwrap();
        if turn % 3 == 0 {
            let _ = stream.read(&mut [0; 100]).await;
        }
        if turn % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    // Their places are free again.
    until(async || {
        let of = |name: &str| process.metric(name);
        of("dinoserve_connections") <= 2.0
            && of("dinoserve_requests_in_progress") == 1.0
            && of("dinoserve_queue_jobs{model=\"tiny-reg\"}") == 0.0
    })
    .await;
    let client = client();
    let url = &process.url;
    futures_util::future::join_all((0..8).map(|_| ok(embed(&client, url)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_under_load() {
    let Some(mut postgres) = Postgres::start("faults::postgres_restarts_under_load") else {
        return;
    };
    let process = Process::start(&["--gallery", &postgres.url()]);
    let writers = Writers::start(&process.url, 8);
    writers.until_more(40).await;
    for _ in 0..2 {
        postgres.crash();
        // Every request is answered meanwhile: features as before, galleries with 503.
        serves_again(&process.url).await;
        let response = client()
            .get(format!("{}/v1/gallery", process.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 503);
        sleep(Duration::from_secs(1)).await;
        postgres.resume();
        let began = Instant::now();
        writers.until_more(10).await;
        assert!(
            began.elapsed() < RECOVERY,
            "items are stored again after {:?}",
            began.elapsed()
        );
    }
    let acknowledged = writers.end().await;
    let found = stored(&process.url).await;
    assert!(
        acknowledged.is_subset(&found),
        "lost: {:?}",
        acknowledged.difference(&found)
    );
}

/// Makes a folder read-only for users other than root.
fn read_only(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_only(&path);
        } else {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
        }
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o555)).unwrap();
}

/// Copies the program and the runtime library to where every user may read them.
fn for_unprivileged(program: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = folder.path().join("dinoserve");
    let library = folder.path().join("libonnxruntime.so");
    std::fs::copy(program, &copy).unwrap();
    std::fs::copy(runtime_library(), &library).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={UNPRIVILEGED}"),
            &format!("--regid={UNPRIVILEGED}"),
            "--clear-groups",
        ])
        .arg(copy);
    command.env("HOME", folder.path());
    (folder, command)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns the file of the converted model's graph.
fn graph(home: &Path) -> PathBuf {
    let files = std::fs::read_dir(home.join("models/tiny-reg"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    files
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "onnx")
        })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_folder_is_read_only() {
    if !is_root() {
        skip("faults::the_model_folder_is_read_only: only root can be another user");
        return;
    }
    let (folder, command) = for_unprivileged(PROGRAM);
    let home = folder.path().join("home");
    let made = Command::new("cp")
        .arg("-r")
        .arg(tiny_home(&["tiny-reg"]))
        .arg(&home)
        .status()
        .unwrap();
    assert!(made.success());
    read_only(&home);
    let mut process = Process::spawn_in_place(
        command,
        &home,
        &["--model", "tiny-reg"],
        &folder.path().join("libonnxruntime.so"),
    );
    process.wait_until_ready();
    serves_again(&process.url).await;

    // A model that must be converted first cannot be, and the start fails with the reason.
    let sources = folder.path().join("empty/sources/dinov2-small-focus");
    std::fs::create_dir_all(&sources).unwrap();
    std::fs::write(sources.join("vit_s_focus.onnx"), "x").unwrap();
    chown(folder.path().join("empty"), Some(0), Some(0)).unwrap();
    let (_other, mut command) = for_unprivileged(PROGRAM);
    let ended = command
        .args([
            "serve",
            "--port",
            "0",
            "--model",
            "dinov2-small-focus",
            "--offline",
        ])
        .env("DINOSERVE_HOME", folder.path().join("empty"))
        .env("ORT_DYLIB_PATH", folder.path().join("libonnxruntime.so"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        ended.status.code() == Some(1) && printed.contains("error: "),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_corrupt() {
    let home = tiny_home(&["tiny-reg"]);
    let data = graph(&home).with_extension("onnx.data");
    let original = std::fs::read(&data).unwrap();
    let mut flipped = original.clone();
    flipped[original.len() / 3] ^= 1;
    for damaged in [flipped, original[..original.len() - 1].to_vec(), Vec::new()] {
        std::fs::write(&data, damaged).unwrap();
        let began = Instant::now();
        let mut process = Process::spawn(&home, &["--model", "tiny-reg"]);
        assert_eq!(process.wait(RECOVERY).code(), Some(1));
        assert!(
            process
                .log()
                .contains("it is damaged: delete it and convert the model again"),
            "{}",
            process.log()
        );
        assert!(began.elapsed() < RECOVERY);
    }
    std::fs::write(&data, &original).unwrap();
    let process = Process::start_in(&home, &["--model", "tiny-reg"]);
    // A running server does not read a file again that is then damaged or deleted.
    std::fs::remove_file(&data).unwrap();
    serves_again(&process.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_jumps() {
    let home = tiny_home(&["tiny-reg"]);
    let gallery = scratch("gallery");
    let folder = scratch("clock");
    let library = folder.join("jump.so");
    let seconds = folder.join("seconds");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clock/jump.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .output();
    let Ok(compiled) = compiled else {
        skip("faults::the_clock_jumps: there is no C compiler, cc");
        return;
    };
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    std::fs::write(&seconds, "0").unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .env("LD_PRELOAD", library)
        .env("JUMP_FILE", &seconds);
    let mut process = Process::spawn_by(
        command,
        &home,
        &[
            "--model",
            "tiny-reg",
            "--gallery",
            gallery.to_str().unwrap(),
        ],
    );
    process.wait_until_ready();
    let writers = Writers::start(&process.url, 4);
    // Compares times of the log, because the header `date` of responses never goes back.
    let date = || {
        let log = process.log();
        let line: Value = serde_json::from_str(log.lines().next_back().unwrap()).unwrap();
        line["timestamp"].as_str().unwrap()[..10].to_owned()
    };
    let today = date();
    for days in [400, -400, 0] {
        replace(&seconds, &(days * 86_400).to_string());
        writers.until_more(20).await;
        serves_again(&process.url).await;
        assert_eq!(
            date() == today,
            days == 0,
            "the server sees another clock: {days} days"
        );
    }
    let acknowledged = writers.end().await;
    assert!(acknowledged.is_subset(&stored(&process.url).await));
    process.signal("TERM");
    assert!(process.wait(Duration::from_secs(20)).success());
}

/// Memory must stay within 5 %. `make soak` runs it for 20 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_time_at_four_fifths_of_the_load() {
    let minutes: Option<f64> = std::env::var("DINOSERVE_SOAK_MINUTES")
        .ok()
        .and_then(|minutes| minutes.parse().ok());
    let whole = minutes.map_or(Duration::from_secs(6), |minutes| {
        Duration::from_secs_f64(60.0 * minutes)
    });
    let gallery = scratch("gallery");
    let process = Process::start(&["--gallery", gallery.to_str().unwrap(), "--cache-mb", "16"]);
    let client = client();
    // All kinds of requests; the k-th request of a client is always of the same kind.
    let request = |turn: usize| {
        let post = |path: &str| {
            client
                .post(format!("{}{path}", process.url))
                .header("content-type", "image/png")
        };
        let size = 56 + 14 * (turn % 13);
        match turn % 8 {
            0 => post(&format!("/v1/pca?size={size}")).body(read_golden(COFFEE)),
            1 => post(&format!("/v1/attention?size={size}&head=all")).body(read_golden(COFFEE)),
            2 => {
                let put = client.put(format!("{}/v1/gallery/{}", process.url, turn % 200));
                put.header("content-type", "image/png")
                    .body(read_golden(COFFEE))
            }
            3 => post("/v1/knn").body(read_golden(COFFEE)),
            4 => post("/v1/embed").body("no image"),
            _ => post(&format!("/v1/embed?size={size}&tokens=true")).body(read_golden(COFFEE)),
        }
    };
    let send = async |turn: usize| {
        let response = request(turn).send().await.expect("an answer");
        let status = response.status().as_u16();
        response.bytes().await.expect("a body");
        assert!(
            status < 400 || status == 404 || (turn % 8 == 4 && status == 422) || status == 503,
            "{turn}: {status}"
        );
        status
    };
    // Measures the capacity in a closed loop, and the memory after the first requests.
    let began = Instant::now();
    let warm_up = if minutes.is_some() { 60.0 } else { 2.0 };
    let mut turns = 0;
    while began.elapsed().as_secs_f64() < warm_up {
        futures_util::future::join_all((0..8).map(|index| send(turns + index))).await;
        turns += 8;
    }
    let pause = Duration::from_secs_f64(began.elapsed().as_secs_f64() / turns as f64 / 0.8);
    let memory = || process.metric("process_resident_memory_bytes");
    let before = memory();
    let began = Instant::now();
    let mut next = Instant::now();
    let mut under_way = tokio::task::JoinSet::new();
    let mut largest = before;
    let mut rejected = 0;
    let mut looked = Instant::now();
    let mut count = 0;
    while began.elapsed() < whole {
        let request = request(count);
        let turn = count;
        under_way.spawn(async move {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            response.bytes().await.expect("a body");
            assert!(
                status < 400 || (turn % 8 == 4 && status == 422) || status == 503,
                "{turn}: {status}"
            );
            status
        });
        count += 1;
        while let Some(done) = under_way.try_join_next() {
            rejected += usize::from(done.unwrap() == 503);
        }
        if looked.elapsed() > Duration::from_secs(5) {
            (largest, looked) = (largest.max(memory()), Instant::now());
        }
        next += pause;
        tokio::time::sleep_until(next.into()).await;
    }
    let statuses = under_way.join_all().await;
    rejected += statuses.into_iter().filter(|&status| status == 503).count();
    sleep(Duration::from_secs(2)).await;
    let after = memory();
    eprintln!(
        "{count} requests in {:.0} s, {rejected} rejected; \
         memory {:.1} MB before, {:.1} MB at most, {:.1} MB after",
        began.elapsed().as_secs_f64(),
        before / 1e6,
        largest / 1e6,
        after / 1e6
    );
    // In a short run other tests may have slowed the machine down since the load was chosen.
    if minutes.is_some() {
        assert!(rejected * 50 < count, "{rejected} of {count} were rejected");
        assert!(
            after < 1.05 * before,
            "memory grew from {before} to {after}"
        );
    }
}
