//! Downloads from a local server with the faults of real ones.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use dinoserve::{
    artifacts::{Home, ModelState, ModelStore, download},
    error::{Error, Kind},
    model::PositionRule,
    onnx::Precision,
};

use crate::support::{read_golden, scratch, sha256, skip};

/// The description of the model `tiny`, without its sources.
pub(super) const TINY: &str = "\
name = \"tiny\"
summary = \"random\"
licence = \"none\"
dim = 64
depth = 2
heads = 2
registers = 0
ffn = \"mlp\"
ffn_hidden = 256
native_grid = 37
embed_size = 224
map_size = 518
";

/// The response of the server to the n-th request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Sends the requested range.
    Serve,
    /// Ignores the range and sends the whole file.
    IgnoreRange,
    /// Announces the requested range and closes after this many bytes.
    CutAfter(usize),
    /// Ignores the range, sends the whole file and closes after this many bytes.
    IgnoreRangeAndCutAfter(usize),
    /// Answers with a status and no body.
    Status(&'static str),
    /// Redirects to a path, announcing a hash.
    Redirect(&'static str, String),
    /// Redirects to an address.
    RedirectTo(String),
}

pub(super) struct Hub {
    pub(super) address: String,
    /// The `Range` of each request, or `-`.
    ranges: Arc<Mutex<Vec<String>>>,
    /// The `Authorization` of each request, in lower case, or `-`.
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    /// Starts a server of one file under every path. After the last act it serves normally.
    pub(super) fn start(file: Vec<u8>, acts: Vec<Act>) -> Self {
        Self::of_files(vec![(String::new(), file)], acts)
    }

    /// Starts a server of files by the ends of their paths.
    fn of_files(files: Vec<(String, Vec<u8>)>, acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let authorizations = Arc::new(Mutex::new(Vec::new()));
        let (seen, tokens) = (ranges.clone(), authorizations.clone());
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().flatten().enumerate() {
                let act = acts.get(index).cloned().unwrap_or(Act::Serve);
                answer(stream, &files, &act, &seen, &tokens);
            }
        });
        Self {
            address,
            ranges,
            authorizations,
        }
    }

    fn ranges(&self) -> Vec<String> {
        self.ranges.lock().unwrap().clone()
    }
}

/// Answers a request. Records its range first, so that it is recorded before the response.
fn answer(
    mut stream: TcpStream,
    files: &[(String, Vec<u8>)],
    act: &Act,
    seen: &Mutex<Vec<String>>,
    tokens: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let token = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "));
    tokens.lock().unwrap().push(token.unwrap_or("-").to_owned());
    let path = head.split(' ').nth(1).unwrap_or_default();
    let Some((_, file)) = files.iter().find(|(name, _)| path.ends_with(name.as_str())) else {
        seen.lock().unwrap().push("404".to_owned());
        let _ = write!(
            stream,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        return;
    };
    let range = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="))
        .unwrap_or("-")
        .to_owned();
    seen.lock().unwrap().push(range.clone());
    let start: usize = range.trim_end_matches('-').parse().unwrap_or(0);
    let close = "connection: close\r\n\r\n";
    let _ = match act {
        Act::Status(status) => write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n{close}"),
        Act::Redirect(to, hash) => {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: {to}\r\nx-linked-etag: \"{hash}\"\r\n\
                 content-length: 0\r\n{close}"
            )
        }
        Act::RedirectTo(address) => {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: {address}\r\ncontent-length: 0\r\n{close}"
            )
        }
        Act::Serve | Act::CutAfter(_) if range != "-" && start >= file.len() => {
            write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{}\r\n\
                 content-length: 0\r\n{close}",
                file.len()
            )
        }
        Act::Serve | Act::CutAfter(_) | Act::IgnoreRange | Act::IgnoreRangeAndCutAfter(_) => {
            let from = if matches!(act, Act::Serve | Act::CutAfter(_)) {
                start
            } else {
                0
            };
            let status = if from > 0 {
                format!(
                    "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
                    file.len() - 1,
                    file.len()
                )
            } else {
                "200 OK".to_owned()
            };
            let rest = &file[from..];
            let sent = match act {
                Act::CutAfter(count) | Act::IgnoreRangeAndCutAfter(count) => &rest[..*count],
                _ => rest,
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{close}",
                rest.len()
            )
            .and_then(|()| stream.write_all(sent))
        }
    };
    let _ = stream.flush();
}

fn file() -> Vec<u8> {
    (0..300_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn fetch(hub: &Hub, to: &Path, sha256: Option<&str>) -> Result<(), Error> {
    let url = format!("{}/model.safetensors", hub.address);
    download(&url, to, sha256, &hub.address.as_str().into(), &mut ())
}

fn target(name: &str) -> (PathBuf, PathBuf) {
    let to = scratch(&format!("download-{name}")).join("model.safetensors");
    let part = to.with_extension("safetensors.part");
    let _ = std::fs::remove_file(&to);
    let _ = std::fs::remove_file(&part);
    (to, part)
}

#[test]
fn a_broken_download_is_resumed() {
    let file = file();
    let hub = Hub::start(
        file.clone(),
        vec![Act::CutAfter(100_000), Act::CutAfter(50_000)],
    );
    let (to, part) = target("cut");
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);
    assert!(!part.exists());
    assert_eq!(hub.ranges(), ["-", "100000-", "150000-"]);
}

#[test]
fn a_partial_file_of_an_earlier_process_is_resumed() {
    let file = file();
    let hub = Hub::start(file.clone(), vec![]);
    let (to, part) = target("resume");
    std::fs::write(&part, &file[..123_456]).unwrap();
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);
    assert_eq!(hub.ranges(), ["123456-"]);

    // A partial file that is complete.
    let (to, part) = target("resume-complete");
    std::fs::write(&part, &file).unwrap();
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);

    // A partial file that is longer than the file belongs to another one.
    let (to, part) = target("resume-longer");
    std::fs::write(&part, vec![0; file.len() + 5]).unwrap();
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);
}

#[test]
fn a_server_that_cannot_resume_starts_over() {
    let file = file();
    let hub = Hub::start(file.clone(), vec![Act::CutAfter(1000), Act::IgnoreRange]);
    let (to, _) = target("no-range");
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);

    let acts = [1000, 900]
        .map(Act::IgnoreRangeAndCutAfter)
        .into_iter()
        .cycle()
        .take(10);
    let hub = Hub::start(file, acts.collect());
    let (to, _) = target("no-range-and-cut");
    let error = fetch(&hub, &to, None).unwrap_err();
    assert!(
        error.detail().contains("the server does not resume"),
        "{error}"
    );
    assert_eq!(hub.ranges(), ["-", "1000-", "900-", "1000-", "900-"]);
}

#[test]
fn a_wrong_hash_leaves_nothing_behind() {
    let hub = Hub::start(file(), vec![]);
    let (to, part) = target("hash");
    let error = fetch(&hub, &to, Some(&"0".repeat(64))).unwrap_err();
    assert_eq!(error.kind(), Kind::Download);
    assert!(
        error.detail().contains(&sha256(&file())) && error.detail().contains("was expected"),
        "{error}"
    );
    assert!(!to.exists() && !part.exists());
}

#[test]
fn the_hash_announced_by_the_hub_is_checked() {
    let file = file();
    let (to, _) = target("announced");
    let hub = Hub::start(
        file.clone(),
        vec![Act::Redirect("/cdn/blob", sha256(&file))],
    );
    fetch(&hub, &to, None).unwrap();
    let (to, _) = target("announced-wrong");
    let hub = Hub::start(file, vec![Act::Redirect("/cdn/blob", "ab".repeat(32))]);
    let error = fetch(&hub, &to, None).unwrap_err();
    assert!(error.detail().contains(&"ab".repeat(32)), "{error}");
    assert!(!to.exists());
}

#[test]
fn two_downloads_of_one_file_take_turns() {
    let file = file();
    for first in [Act::Serve, Act::IgnoreRange, Act::CutAfter(100_000)] {
        let hub = Hub::start(file.clone(), vec![first, Act::IgnoreRange]);
        let (to, _) = target("turns");
        let sum = sha256(&file);
        std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| fetch(&hub, &to, Some(&sum))));
            both.into_iter()
                .for_each(|one| one.join().unwrap().unwrap());
        });
        assert_eq!(std::fs::read(&to).unwrap(), file);
        assert!(hub.ranges().len() <= 2, "the second finds it done");
    }
}

#[test]
fn a_missing_file_is_not_retried() {
    let hub = Hub::start(file(), vec![Act::Status("404 Not Found")]);
    let (to, _) = target("404");
    let error = fetch(&hub, &to, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Download);
    assert!(
        error
            .detail()
            .contains("404 Not Found: there is no such file"),
        "{error}"
    );
    assert_eq!(hub.ranges().len(), 1);
}

#[test]
fn a_failing_server_is_retried_a_few_times() {
    let file = file();
    let busy = Act::Status("503 Service Unavailable");
    let hub = Hub::start(file.clone(), vec![busy.clone(), busy.clone()]);
    let (to, _) = target("busy");
    fetch(&hub, &to, Some(&sha256(&file))).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), file);

    let hub = Hub::start(file, vec![busy; 50]);
    let (to, _) = target("down");
    let error = fetch(&hub, &to, None).unwrap_err();
    assert!(
        error.detail().contains("503 Service Unavailable"),
        "{error}"
    );
    assert_eq!(hub.ranges().len(), 4);
}

#[test]
fn a_download_on_a_full_disk_fails_and_resumes_later() {
    let folder = scratch("download-full");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
        .arg(&folder)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("download::a_full_disk: needs root to mount a small file system");
    }
    let file = file();
    let hub = Hub::start(file.clone(), vec![]);
    let to = folder.join("model.safetensors");
    let error = fetch(&hub, &to, Some(&sha256(&file)));
    let remounted = Command::new("mount")
        .args(["-o", "remount,size=2m"])
        .arg(&folder)
        .status();
    let again = fetch(&hub, &to, Some(&sha256(&file)));
    let found = std::fs::read(&to);
    let unmounted = Command::new("umount").arg(&folder).status();

    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.detail().contains("the disk is full"), "{error}");
    assert!(remounted.unwrap().success() && unmounted.unwrap().success());
    again.unwrap();
    assert_eq!(found.unwrap(), file);
    assert_ne!(hub.ranges()[1], "-", "the received part is kept");
}

#[test]
fn a_sharded_model_is_pulled_with_its_index() {
    let whole = read_golden("tiny/model.safetensors");
    let index =
        r#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;
    let empty = safetensors::serialize(
        Vec::<(String, safetensors::tensor::TensorView<'_>)>::new(),
        None,
    )
    .unwrap();
    let mut files = vec![
        (
            "model.safetensors.index.json".to_owned(),
            index.as_bytes().to_vec(),
        ),
        ("model-1-of-2.safetensors".to_owned(), whole),
    ];
    let home = scratch("pull-sharded");
    std::fs::create_dir_all(home.join("catalog")).unwrap();
    let description = format!(
        "{TINY}[[sources]]\nformat = \"safetensors\"\nfile = \"model.safetensors.index.json\"\n\
         url = \"{{hub}}/someone/tiny/resolve/main/model.safetensors.index.json\"\n"
    );
    std::fs::write(home.join("catalog/tiny.toml"), description).unwrap();
    let pull = |files: &[(String, Vec<u8>)]| {
        let hub = Hub::of_files(files.to_vec(), vec![]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_dinoserve"));
        command
            .args(["models", "pull", "tiny", "--hub", &hub.address])
            .env("DINOSERVE_HOME", &home)
            .output()
            .unwrap()
    };
    // With a missing shard the model is missing, too.
    let output = pull(&files);
    assert!(!output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("model-2-of-2.safetensors: the server answered 404"),
        "{output:?}"
    );
    assert!(
        !home
            .join("sources/tiny/model.safetensors.index.json")
            .exists()
    );

    files.push(("model-2-of-2.safetensors".to_owned(), empty));
    let output = pull(&files);
    assert!(output.status.success(), "{output:?}");
    assert!(home.join("models/tiny/fp32-v1.onnx").exists());
}

#[test]
fn pulling_a_model_downloads_checks_and_converts_it() {
    let file = read_golden("tiny/model.safetensors");
    let hub = Hub::start(file.clone(), vec![Act::CutAfter(200_000)]);
    let home = scratch("pull-home");
    std::fs::create_dir_all(home.join("catalog")).unwrap();
    let description = |sha256: &str| {
        format!(
            "{TINY}[[sources]]\nformat = \"safetensors\"\nfile = \"model.safetensors\"\n\
             url = \"{{hub}}/someone/tiny/resolve/main/model.safetensors\"\nsha256 = \"{sha256}\"\n"
        )
    };
    let pull = || {
        Command::new(env!("CARGO_BIN_EXE_dinoserve"))
            .args(["models", "pull", "tiny", "--hub", &hub.address])
            .env("DINOSERVE_HOME", &home)
            .output()
            .unwrap()
    };
    std::fs::write(home.join("catalog/tiny.toml"), description(&"1".repeat(64))).unwrap();
    let output = pull();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("was expected"),
        "{output:?}"
    );

    std::fs::write(home.join("catalog/tiny.toml"), description(&sha256(&file))).unwrap();
    let output = pull();
    assert!(output.status.success(), "{output:?}");
    assert!(
        home.join("models/tiny/fp32-v1.onnx").exists()
            && home.join("sources/tiny/model.safetensors").exists()
    );
    let before = hub.ranges().len();
    assert!(pull().status.success());
    assert_eq!(
        hub.ranges().len(),
        before,
        "existing files are not downloaded again"
    );

    // The state after an interrupted conversion by an earlier version, which wrote the manifest
    // last.
    std::fs::remove_file(home.join("models/tiny/fp32-v1.json")).unwrap();
    let store = ModelStore::new(Home::new(Some(home)).unwrap(), hub.address.as_str()).unwrap();
    let state =
        |store: &ModelStore| store.state(store.catalog().get("tiny").unwrap(), Precision::Fp32);
    assert_eq!(state(&store), ModelState::Downloaded);
    store
        .ensure("tiny", Precision::Fp32, PositionRule::Hub, true, &mut ())
        .unwrap();
    assert_eq!(state(&store), ModelState::Converted);
}

/// Makes a cache folder that knows the model `tiny` of a hub.
fn home_with_tiny(name: &str) -> PathBuf {
    let home = scratch(name);
    std::fs::create_dir_all(home.join("catalog")).unwrap();
    let description = format!(
        "{TINY}[[sources]]\nformat = \"safetensors\"\nfile = \"model.safetensors\"\n\
         url = \"{{hub}}/someone/tiny/resolve/main/model.safetensors\"\n"
    );
    std::fs::write(home.join("catalog/tiny.toml"), description).unwrap();
    home
}

/// Runs `models pull tiny` with the variables of Hugging Face's own programs.
fn pull_with(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    pull(home, "tiny", arguments, variables)
}

/// Runs `models pull` with the variables of Hugging Face's own programs.
fn pull(
    home: &Path,
    model: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dinoserve"));
    command
        .args(["models", "pull", model])
        .args(arguments)
        .env("DINOSERVE_HOME", home)
        .env("HF_HOME", home.join("hf"))
        .env_remove("HF_TOKEN")
        .envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

#[test]
fn a_token_is_sent_to_the_hub_only() {
    let file = read_golden("tiny/model.safetensors");
    let storage = Hub::start(file, vec![]);
    let blob = format!("{}/blob", storage.address);
    let hub = Hub::start(vec![], vec![Act::RedirectTo(blob)]);
    let home = home_with_tiny("hf-token");
    let variables = [
        ("HF_ENDPOINT", hub.address.as_str()),
        ("HF_TOKEN", "hf_abc"),
    ];
    let (pulled, text) = pull_with(&home, &[], &variables);
    assert!(pulled, "{text}");
    let of = |hub: &Hub| hub.authorizations.lock().unwrap().clone();
    assert_eq!(of(&hub), ["bearer hf_abc"]);
    assert_eq!(of(&storage), ["-"]);
    assert!(!text.contains("hf_abc"), "{text}");
}

#[test]
fn a_file_that_is_not_public_names_the_page_for_access() {
    let home = home_with_tiny("hf-denied");
    let denied = || {
        let denied = [
            Act::Status("401 Unauthorized"),
            Act::Status("403 Forbidden"),
        ];
        Hub::start(vec![], denied.to_vec())
    };
    let hub = denied();
    // The flag goes before the variable.
    let arguments = ["--hub", hub.address.as_str()];
    let variables = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let (pulled, text) = pull_with(&home, &arguments, &variables);
    let page = format!("ask for access at {}/someone/tiny", hub.address);
    assert!(!pulled && text.contains(&page), "{text}");
    assert!(text.contains("set HF_TOKEN"), "{text}");
    // The token that `hf auth login` stores.
    std::fs::create_dir_all(home.join("hf")).unwrap();
    std::fs::write(home.join("hf/token"), "hf_stored\n").unwrap();
    let (pulled, text) = pull_with(&home, &arguments, &[]);
    assert!(!pulled && text.contains(&page), "{text}");
    assert!(
        text.contains("the token in HF_TOKEN has no access"),
        "{text}"
    );
    let authorizations = hub.authorizations.lock().unwrap().clone();
    assert_eq!(authorizations, ["-", "bearer hf_stored"]);
}

/// Meta gives the weights of DINOv3 to those who accept its license.
#[test]
fn dinov3_without_access_names_the_license_and_the_page_for_access() {
    let home = scratch("dinov3-denied");
    for (token, status, advice) in [
        (None, "401 Unauthorized", "set HF_TOKEN"),
        (
            Some("hf_abc"),
            "403 Forbidden",
            "the token in HF_TOKEN has no access",
        ),
    ] {
        let hub = Hub::start(vec![], vec![Act::Status(status)]);
        let arguments = ["--hub", hub.address.as_str()];
        let variables: Vec<_> = token.map(|token| ("HF_TOKEN", token)).into_iter().collect();
        let (pulled, text) = pull(&home, "dinov3-small", &arguments, &variables);
        let page = format!(
            "ask for access at {}/facebook/dinov3-vits16-pretrain-lvd1689m",
            hub.address
        );
        assert!(!pulled && text.contains(&page), "{status}: {text}");
        assert!(text.contains(advice), "{status}: {text}");
        assert!(text.contains("DINOv3 License"), "{status}: {text}");
        assert!(!home.join("models/dinov3-small").exists());
    }
}

#[test]
fn files_in_hugging_face_s_cache_are_used() {
    let home = home_with_tiny("hf-cache");
    let hub = Hub::start(read_golden("tiny/model.safetensors"), vec![]);
    let offline = [
        ("HF_ENDPOINT", hub.address.as_str()),
        ("HF_HUB_OFFLINE", "1"),
    ];
    let (pulled, text) = pull_with(&home, &[], &offline);
    assert!(!pulled && text.contains("HF_HUB_OFFLINE"), "{text}");

    let model = home.join("hf/hub/models--someone--tiny");
    let snapshot = model.join("snapshots/0123abcd");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), "0123abcd").unwrap();
    let file = read_golden("tiny/model.safetensors");
    std::fs::write(snapshot.join("model.safetensors"), file).unwrap();
    let (pulled, text) = pull_with(&home, &[], &offline);
    assert!(pulled, "{text}");
    assert!(hub.ranges().is_empty(), "{:?}", hub.ranges());
    assert!(home.join("models/tiny/fp32-v1.onnx").exists());
}
