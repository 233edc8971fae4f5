//! Ctrl-C at random moments: the commands end quietly with code 130, and what is done stays.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    SAMPLES, golden,
    program::{dinoserve, home_with_focus, text},
    scratch,
};

/// Signals over all commands; `DINOSERVE_INTERRUPTS=300` sends more.
const SIGNALS: usize = 12;
const IMAGES: usize = 24;
const MODEL: [&str; 4] = ["--model", "dinov2-small-focus", "--device", "cpu"];

/// A run of a command, and what it printed.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn wait(mut process: Child) -> Self {
        let mut printed = [String::new(), String::new()];
        let stderr = process.stderr.take().expect("a pipe");
        let reading = std::thread::spawn(move || read(stderr));
        printed[0] = read(process.stdout.take().expect("a pipe"));
        printed[1] = reading.join().expect("the reader");
        let status = process.wait().expect("its status");
        let [stdout, stderr] = printed;
        Self {
            // None if a signal ended it.
            code: status.code(),
            stdout,
            stderr,
        }
    }
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("its output");
    text(&bytes)
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Runs a command to its end and returns its time.
#[track_caller]
fn finish(command: &mut Command) -> Duration {
    let started = Instant::now();
    let run = Run::wait(spawn(command));
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    started.elapsed()
}

/// Whether the process handles SIGINT; before that, the signal ends it by itself.
fn handles_signals(process: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 2 != 0)
}

/// Interrupts a command after `delay`, by two signals if `twice`.
fn interrupt(command: &mut Command, delay: Duration, twice: bool) -> Run {
    let mut process = spawn(command);
    while !handles_signals(&process) && process.try_wait().expect("its state").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    for _ in 0..1 + usize::from(twice) {
        // Fails if the process has ended.
        let _ = Command::new("kill")
            .args(["-INT", &process.id().to_string()])
            .stderr(Stdio::null())
            .status();
    }
    let run = Run::wait(process);
    let printed = format!("{}{}", run.stdout, run.stderr);
    assert!(
        matches!(run.code, Some(0 | 130)),
        "{:?}: {printed}",
        run.code
    );
    for word in ["ERROR", "WARN", "panicked", "error:"] {
        assert!(!printed.contains(word), "{printed}");
    }
    run
}

/// Numbers in 0 to 1 that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// Writes crops of the samples to two subfolders.
fn write_images(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    for index in 0..IMAGES {
        let label = images.join(["a", "b"][index % 2]);
        fs::create_dir_all(&label).expect("a folder");
        let sample = golden("dinov2-small-focus").join(SAMPLES[index % SAMPLES.len()]);
        let whole = image::open(sample).expect("a sample").into_rgb8();
        let at = 3 * index as u32;
        let crop = image::imageops::crop_imm(&whole, at, at, 240, 230).to_image();
        crop.save(label.join(format!("{index}.png")))
            .expect("a crop");
    }
    images
}

fn leftovers(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".writing-")).collect()
}

/// The number in "stopped: 12 …".
fn stopped_at(run: &Run) -> Option<usize> {
    let (_, rest) = run.stderr.split_once("stopped: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The commands, each with a folder of its own.
struct Commands {
    home: PathBuf,
    folder: PathBuf,
    images: PathBuf,
    /// Results of `embed` that were never interrupted.
    expected: Vec<(&'static str, Vec<u8>)>,
    /// Images that earlier runs had done.
    embedded: usize,
    imported: u64,
}

impl Commands {
    fn start(&self, arguments: &[&str]) -> Command {
        let mut command = dinoserve();
        command
            .args(arguments)
            .args(MODEL)
            .env("DINOSERVE_HOME", &self.home)
            .env("DINOSERVE_LOG", "info")
            .current_dir(&self.folder);
        command
    }

    fn command(&self, name: &str) -> Command {
        match name {
            "embed" => self.start(&["embed", "images", "-o", "out.npy"]),
            "eval" => self.start(&[
                "eval",
                "knn",
                "--train",
                "images",
                "--test",
                "images",
                "-k",
                "3",
                "--json",
                "report.json",
            ]),
            "bench" => self.start(&[
                "bench",
                "images/a/0.png",
                "--sizes",
                "224",
                "--seconds",
                "0.5",
            ]),
            _ => self.start(&["gallery", "import", "images", "--gallery", "galleries"]),
        }
    }

    /// Checks that a run of `embed` has kept what it had done.
    fn check_embed(&mut self, run: &Run) {
        let partial = self.folder.join("out.npy.partial");
        // The signal may come after the output was written.
        let is_finished = self.folder.join("out.npy").exists() && !partial.exists();
        assert!(is_finished || run.code == Some(130), "{}", run.stderr);
        if is_finished {
            for (name, expected) in &self.expected {
                let path = self.folder.join(name);
                assert!(fs::read(&path).expect("a result") == *expected, "{name}");
                fs::remove_file(path).expect("a result");
            }
            self.embedded = 0;
            return;
        }
        let lines = fs::read_to_string(&partial).map_or(0, |text| text.lines().count());
        let done = lines.saturating_sub(1);
        assert!(done >= self.embedded, "{done} after {}", self.embedded);
        if let Some(stopped) = stopped_at(run) {
            assert_eq!(stopped, done, "{}", run.stderr);
        }
        self.embedded = done;
    }

    /// Checks that a run of `gallery import` has kept what was stored.
    fn check_import(&mut self, run: &Run) {
        let folder = self.folder.join("galleries");
        let items = if folder.exists() {
            let mut stats = dinoserve();
            stats
                .args(["gallery", "stats", "--json", "--gallery"])
                .arg(&folder);
            let output = stats.output().expect("statistics");
            let stats: Value = serde_json::from_slice(&output.stdout).expect("statistics");
            stats["galleries"][0]["items"].as_u64().unwrap_or(0)
        } else {
            0
        };
        if let Some(stopped) = stopped_at(run) {
            assert_eq!(stopped as u64, items - self.imported, "{}", run.stderr);
        }
        assert!(items >= self.imported, "{items} after {}", self.imported);
        self.imported = items;
        if run.code == Some(0) {
            assert_eq!(items, IMAGES as u64);
            fs::remove_dir_all(&folder).expect("the galleries");
            self.imported = 0;
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn interrupted_commands_end_quietly_and_keep_what_is_done() {
    let signals = std::env::var("DINOSERVE_INTERRUPTS");
    let signals = signals.map_or(SIGNALS, |text| text.parse().expect("a number"));
    let folder = scratch("interrupts");
    let mut commands = Commands {
        home: home_with_focus("fp32"),
        images: write_images(&folder),
        folder,
        expected: Vec::new(),
        embedded: 0,
        imported: 0,
    };
    assert!(commands.images.is_dir());
    let names = ["embed", "eval", "bench", "import"];
    let times = names.map(|name| finish(&mut commands.command(name)));
    for name in ["out.npy", "out.paths.txt"] {
        let path = commands.folder.join(name);
        commands
            .expected
            .push((name, fs::read(&path).expect("a result")));
        fs::remove_file(path).expect("a result");
    }
    fs::remove_dir_all(commands.folder.join("galleries")).expect("the galleries");
    fs::remove_file(commands.folder.join("report.json")).expect("the report");

    let mut random = Random(signals as u64);
    let mut interrupted = [0; 4];
    for round in 0..signals {
        let (index, name) = (round % 4, names[round % 4]);
        let delay = times[index].mul_f64(random.next());
        let run = interrupt(&mut commands.command(name), delay, round % 5 == 4);
        interrupted[index] += usize::from(run.code == Some(130));
        match name {
            "embed" => commands.check_embed(&run),
            "import" => commands.check_import(&run),
            "eval" => {
                let report = fs::read(commands.folder.join("report.json"));
                if let Ok(report) = report {
                    serde_json::from_slice::<Value>(&report).expect("a whole report");
                }
            }
            _ => {}
        }
        assert_eq!(leftovers(&commands.folder), [""; 0], "after {name}");
    }
    println!("interrupted of {signals} signals: {names:?} {interrupted:?}");
    for (name, count) in names.iter().zip(interrupted) {
        assert!(
            count * 8 > signals / 4,
            "{name}: only {count} runs were interrupted"
        );
    }

    // The same commands go on to the end.
    let run = Run::wait(spawn(&mut commands.command("embed")));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    commands.check_embed(&run);
    let run = Run::wait(spawn(&mut commands.command("import")));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    commands.check_import(&run);
}
