//! Storing images from streams of NATS: each one once, whatever is killed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap,
    jetstream::{Context, consumer::pull},
};
use serde_json::{Value, json};

use crate::support::{
    golden,
    nats::Nats,
    postgres::Postgres,
    program::{dinoserve, home_with_tiny, text},
    python::Python,
    scratch,
};

struct Ingesting {
    folder: PathBuf,
    home: PathBuf,
    images: Vec<Vec<u8>>,
}

impl Ingesting {
    /// A folder with `count` pictures, all of them different.
    fn new(name: &str, count: u32) -> Self {
        let folder = scratch(name);
        let whole = image::open(golden("dinov2-small-focus/coffee.png")).unwrap();
        let images = (0..count).map(|index| {
            let mut png = std::io::Cursor::new(Vec::new());
            let crop = whole.crop_imm(index, 2 * index, 64, 56);
            crop.write_to(&mut png, image::ImageFormat::Png).unwrap();
            png.into_inner()
        });
        let images: Vec<Vec<u8>> = images.collect();
        fs::create_dir_all(folder.join("pictures")).unwrap();
        for (index, image) in images.iter().enumerate() {
            fs::write(folder.join(format!("pictures/{index:03}.png")), image).unwrap();
        }
        Self {
            folder,
            home: home_with_tiny(),
            images,
        }
    }

    fn command(&self, from: &str, flags: &[&str]) -> Command {
        let mut command = dinoserve();
        command
            .args(["gallery", "ingest", "--from", from])
            .env("DINOSERVE_GALLERY", "galleries")
            .args(["--model", "tiny", "--device", "cpu", "--root", "pictures"])
            .args(flags)
            .env("DINOSERVE_HOME", &self.home)
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to the end. Returns the exit code and what was printed.
    fn run(&self, from: &str, flags: &[&str]) -> (i32, String) {
        let output = self.command(from, flags).output().unwrap();
        let printed = text(&output.stdout) + text(&output.stderr).as_str();
        (output.status.code().unwrap_or(-1), printed)
    }

    fn spawn(&self, from: &str, flags: &[&str]) -> Child {
        self.command(from, flags).spawn().unwrap()
    }

    fn items(&self) -> BTreeMap<String, Value> {
        self.items_of("galleries")
    }

    /// The items of the gallery in a folder, by id.
    fn items_of(&self, galleries: &str) -> BTreeMap<String, Value> {
        let exported = dinoserve()
            .args([
                "gallery",
                "export",
                "--gallery",
                galleries,
                "-o",
                "items.jsonl",
            ])
            .current_dir(&self.folder)
            .output()
            .unwrap();
        assert!(exported.status.success(), "{}", text(&exported.stderr));
        let lines = fs::read_to_string(self.folder.join("items.jsonl")).unwrap();
        let items: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let count = items.len();
        let items: BTreeMap<String, Value> = items
            .into_iter()
            .map(|item| (item["id"].as_str().unwrap().to_owned(), item))
            .collect();
        assert_eq!(items.len(), count, "ids are unique");
        items
    }

    /// Publishes picture `index` with its number as id.
    async fn publish(&self, context: &Context, subject: &str, index: usize) {
        let mut headers = HeaderMap::new();
        headers.insert("Dinoserve-Id", format!("{index}"));
        headers.insert("Dinoserve-Label", ["even", "odd"][index % 2]);
        publish(context, subject, headers, self.images[index].clone()).await;
    }
}

/// Makes a consumer whose messages are delivered again soon after their process was killed.
async fn make_impatient_consumer(context: &Context) {
    let config = pull::Config {
        durable_name: Some("dinoserve-default".to_owned()),
        ack_wait: Duration::from_secs(4),
        ..pull::Config::default()
    };
    let stream = context.get_stream("photos").await.unwrap();
    stream.create_consumer(config).await.unwrap();
}

/// Publishes a message, again and again while the cluster elects a leader.
async fn publish(context: &Context, subject: &str, headers: HeaderMap, payload: Vec<u8>) {
    let began = Instant::now();
    loop {
        let sent = context.publish_with_headers(
            subject.to_owned(),
            headers.clone(),
            payload.clone().into(),
        );
        let stored = match sent.await {
            Ok(stored) => stored.await.map(drop),
            Err(error) => Err(error),
        };
        match stored {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Ends a process by SIGTERM and returns what it printed.
fn terminate(process: Child) -> (i32, String) {
    let id = process.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    let output = process.wait_with_output().unwrap();
    let printed = text(&output.stdout) + text(&output.stderr).as_str();
    (output.status.code().unwrap_or(-1), printed)
}

/// Waits until the consumer has given out the messages up to this number.
async fn wait_until(context: &Context, stream: &str, acknowledged: u64) {
    let began = Instant::now();
    loop {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{acknowledged} are not reached"
        );
        let found = context.get_stream(stream).await;
        if let Ok(stream) = found
            && let Ok(info) = stream.consumer_info("dinoserve-default").await
            && info.ack_floor.stream_sequence >= acknowledged
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_become_items_or_are_rejected() {
    let Some(nats) = Nats::start("messages_become_items_or_are_rejected", 1) else {
        return;
    };
    let ingesting = Ingesting::new("ingest", 3);
    let context = nats.connect().await;
    nats.make_stream(&context, "photos").await;
    nats.make_stream(&context, "refused").await;
    let from = nats.address("photos");

    ingesting.publish(&context, "photos", 0).await;
    let line = json!({"path": "001.png", "label": "odd", "metadata": {"year": 2024}});
    publish(
        &context,
        "photos",
        HeaderMap::new(),
        line.to_string().into(),
    )
    .await;
    let image = ingesting.images[2].clone();
    for _ in 0..2 {
        publish(&context, "photos", HeaderMap::new(), image.clone()).await;
    }
    let mut headers = HeaderMap::new();
    headers.insert("Dinoserve-Id", "broken");
    publish(&context, "photos", headers, b"no image".to_vec()).await;
    let outside = json!({"path": "../items.jsonl"}).to_string();
    publish(&context, "photos", HeaderMap::new(), outside.into()).await;

    let flags = ["--until-empty", "--rejected", "refused"];
    let (code, printed) = ingesting.run(&from, &flags);
    assert_eq!(code, 1, "{printed}");
    let expected = "3 images stored in `default`, 0 replaced, 1 already there, 2 rejected";
    assert!(printed.contains(expected), "{printed}");
    assert!(printed.contains("message 5 is rejected: "), "{printed}");
    assert!(!printed.contains("geheim"), "{printed}");
    let items = ingesting.items();
    assert_eq!(items["0"]["label"], "even");
    assert_eq!(items["001.png"]["metadata"]["year"], 2024);
    assert_eq!(items.len(), 3);
    let content = items
        .keys()
        .find(|id| id.len() == 64)
        .expect("a hash as id");
    assert_eq!(items[content]["label"], Value::Null);

    // What was rejected is kept, with the reason.
    let refused = context.get_stream("refused").await.unwrap();
    let message = refused.get_raw_message(1).await.unwrap();
    assert_eq!(&message.payload[..], b"no image");
    assert_eq!(
        message.headers.get("Dinoserve-Id").unwrap().as_str(),
        "broken"
    );
    assert!(
        message
            .headers
            .get("Dinoserve-Error")
            .unwrap()
            .as_str()
            .contains("image")
    );
    assert!(refused.get_raw_message(2).await.is_ok());

    // Again there is nothing to do, and an id is stored again on request only.
    let (code, printed) = ingesting.run(&from, &flags);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.starts_with("0 images stored"), "{printed}");
    ingesting.publish(&context, "photos", 0).await;
    let (_, printed) = ingesting.run(&from, &["--until-empty"]);
    assert!(printed.contains("1 already there"), "{printed}");
    ingesting.publish(&context, "photos", 0).await;
    let (_, printed) = ingesting.run(&from, &["--until-empty", "--replace"]);
    assert!(printed.contains("1 replaced"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_document_work() {
    let Some(nats) = Nats::start("ingest::the_commands_of_the_document_work", 1) else {
        return;
    };
    let python = Python::with_packages("bulk", "ingest").unwrap();
    let ingesting = Ingesting::new("ingest-document", 4);
    let photos = ingesting.folder.join("photos");
    fs::create_dir_all(photos.join("cup")).unwrap();
    for (index, name) in ["cup/a.png", "cup/b.png", "c.png"].into_iter().enumerate() {
        fs::write(photos.join(name), &ingesting.images[index]).unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/bulk.md")).unwrap();
    let servers = nats.address("");
    let servers = servers.trim_end_matches('/');
    let commands: Vec<Vec<String>> = document
        .lines()
        .filter(|line| line.contains("nats://127.0.0.1:4222"))
        .map(|line| line.replace("nats://127.0.0.1:4222", servers))
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    let [publish, ingest] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    nats.connect().await;
    assert_eq!(publish[..2], ["python3", "examples/publish.py"]);
    let script = root.join(&publish[1]);
    let mut arguments = vec![script.to_str().unwrap()];
    arguments.extend(publish[2..].iter().map(String::as_str));
    let printed = python.in_folder(&ingesting.folder).run(&arguments).await;
    assert_eq!(printed, "3 images published\n");

    let output = dinoserve()
        .args(&ingest[1..])
        .args(["--model", "tiny", "--device", "cpu"])
        .env("DINOSERVE_HOME", &ingesting.home)
        .current_dir(&ingesting.folder)
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("3 images stored in `default`"),
        "{printed}"
    );
    assert!(output.status.success());
    let items = ingesting.items_of("my-gallery");
    assert_eq!(items["cup/b.png"]["label"], "cup");
    assert_eq!(items["c.png"]["label"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_image_is_stored_once_whatever_is_killed() {
    const COUNT: usize = 120;
    let Some(mut nats) = Nats::start("each_image_is_stored_once_whatever_is_killed", 3) else {
        return;
    };
    let ingesting = Ingesting::new("ingest-killed", COUNT as u32);
    let context = nats.connect().await;
    nats.make_stream(&context, "photos").await;
    make_impatient_consumer(&context).await;
    let from = nats.address("photos");

    let publish = async {
        for index in 0..COUNT {
            ingesting.publish(&context, "photos", index).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let disturb = async {
        // The process is killed between the storing and the acknowledgment, or anywhere else.
        for acknowledged in [10, 25] {
            let mut process = ingesting.spawn(&from, &[]);
            wait_until(&context, "photos", acknowledged).await;
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let process = ingesting.spawn(&from, &[]);
        wait_until(&context, "photos", 40).await;
        let leader = leader(&context).await;
        nats.kill(leader);
        wait_until(&context, "photos", 80).await;
        nats.resume(leader);
        process
    };
    let ((), process) = tokio::join!(publish, disturb);
    wait_until(&context, "photos", COUNT as u64).await;
    let (code, printed) = terminate(process);
    assert_eq!(code, 0, "{printed}");
    let items = ingesting.items();
    assert_eq!(items.len(), COUNT);
    for index in 0..COUNT {
        assert_eq!(
            items[&index.to_string()]["label"],
            ["even", "odd"][index % 2]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_stream_and_a_database() {
    const COUNT: usize = 80;
    let test = "ingest::processes_share_a_stream_and_a_database";
    let (Some(nats), Some(postgres)) = (Nats::start(test, 1), Postgres::start(test)) else {
        return;
    };
    let ingesting = Ingesting::new("ingest-shared", COUNT as u32);
    let context = nats.connect().await;
    nats.make_stream(&context, "photos").await;
    make_impatient_consumer(&context).await;
    for index in 0..COUNT {
        ingesting.publish(&context, "photos", index).await;
    }
    let from = nats.address("photos");
    let url = postgres.url();
    let flags = ["--gallery", url.as_str()];
    let [mut killed, other] = [0, 1].map(|_| ingesting.spawn(&from, &flags));
    wait_until(&context, "photos", 20).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    // What the killed process had is delivered again, to the other one.
    wait_until(&context, "photos", COUNT as u64).await;
    let (code, printed) = terminate(other);
    assert_eq!(code, 0, "{printed}");
    let items = ingesting.items_of(&url);
    assert_eq!(items.len(), COUNT);
}

/// The node that leads the stream.
async fn leader(context: &Context) -> usize {
    let stream = context.get_stream("photos").await.unwrap();
    let cluster = stream.cached_info().cluster.as_ref().expect("a cluster");
    let leader = cluster.leader.as_ref().expect("a leader");
    leader
        .strip_prefix("node")
        .expect("a node")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_stream_is_said_at_once() {
    let Some(nats) = Nats::start("what_is_wrong_with_a_stream_is_said_at_once", 1) else {
        return;
    };
    let ingesting = Ingesting::new("ingest-wrong", 1);
    let context = nats.connect().await;
    nats.make_stream(&context, "photos").await;
    ingesting.publish(&context, "photos", 0).await;
    let good = nats.address("photos");
    let refused = |from: &str, flags: &[&str], part: &str| {
        let (code, printed) = ingesting.run(from, flags);
        assert_ne!(code, 0, "{printed}");
        assert!(printed.contains(part), "{part}: {printed}");
        assert!(
            !printed.contains("geheim") && !printed.contains("wrong@"),
            "{printed}"
        );
    };
    refused("kafka://host/photos", &[], "unknown scheme \"kafka\"");
    refused(&nats.address(""), &[], "one name of a stream must follow");
    refused(&nats.address("films"), &[], "stream not found");
    refused(
        &good.replace("geheim", "wrong"),
        &[],
        "authorization violation",
    );
    refused(
        "nats://127.0.0.1:1/photos",
        &[],
        "connecting to the servers of nats://127.0.0.1:1",
    );
    let missing = ["--credentials", "missing.creds"];
    refused(&good, &missing, "missing.creds");
    let push = async_nats::jetstream::consumer::push::Config {
        durable_name: Some("push".to_owned()),
        deliver_subject: "elsewhere".to_owned(),
        ..Default::default()
    };
    let stream = context.get_stream("photos").await.unwrap();
    stream.create_consumer(push).await.unwrap();
    refused(&nats.address("photos/push"), &[], "the consumer push");
    assert!(!Path::new(&ingesting.folder).join("galleries").exists());

    // A message that cannot be handed over stays.
    publish(&context, "photos", HeaderMap::new(), b"no image".to_vec()).await;
    let flags = ["--until-empty", "--rejected", "nowhere"];
    refused(
        &good,
        &flags,
        "no stream takes rejected messages from nowhere",
    );
    let info = stream.consumer_info("dinoserve-default").await.unwrap();
    assert_eq!(info.num_ack_pending, 1);
}
