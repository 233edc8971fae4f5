//! A server as a process of its own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{runtime_library, tiny_home};

/// Path of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dinoserve");

pub struct Process {
    child: Child,
    /// Base URL, such as `http://127.0.0.1:12345`.
    pub url: String,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `dinoserve serve` with a tiny model and these flags, and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        let home = tiny_home(&["tiny-reg"]);
        Self::start_in(&home, &[&["--model", "tiny-reg"], flags].concat())
    }

    /// Starts `dinoserve serve` with a cache folder and flags, and waits until it is ready.
    pub fn start_in(home: &Path, flags: &[&str]) -> Self {
        let mut process = Self::spawn(home, flags);
        process.wait_until_ready();
        process
    }

    /// Starts it without waiting.
    pub fn spawn(home: &Path, flags: &[&str]) -> Self {
        Self::spawn_by(Command::new(PROGRAM), home, flags)
    }

    /// Starts it by a command that takes the program's arguments.
    pub fn spawn_by(command: Command, home: &Path, flags: &[&str]) -> Self {
        Self::spawn_in_place(command, home, flags, &runtime_library())
    }

    /// Starts it with another runtime library.
    pub fn spawn_in_place(
        mut command: Command,
        home: &Path,
        flags: &[&str],
        library: &Path,
    ) -> Self {
        if !flags.contains(&"--device") {
            command.env("DINOSERVE_DEVICE", "cpu");
        }
        let mut child = command
            .args(["--log-format", "json", "serve", "--port", "0"])
            .args(flags)
            .env("DINOSERVE_HOME", home)
            .env("ORT_DYLIB_PATH", library)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let log = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&log);
        let from = BufReader::new(child.stderr.take().expect("a pipe"));
        let reading = std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                let mut log = to.lock().expect("the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut first)
            .expect("a line");
        let url = first
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_default()
            .to_owned();
        Self {
            child,
            url,
            log,
            reading: Some(reading),
        }
    }

    pub fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while !self.is_ready() {
            let ended = self.child.try_wait().expect("its state");
            assert!(
                ended.is_none() && began.elapsed() < Duration::from_secs(60),
                "not ready: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_ready(&self) -> bool {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5)));
        let agent: ureq::Agent = config.build().into();
        agent.get(format!("{}/readyz", self.url)).call().is_ok()
    }

    /// Returns the value of a metric; labels are part of its name.
    pub fn metric(&self, name: &str) -> f64 {
        let text = ureq::get(format!("{}/metrics", self.url))
            .call()
            .expect("metrics");
        metric(&text.into_body().read_to_string().expect("text"), name)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the exit.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                // The log is complete when its reader has ended.
                if let Some(reading) = self.reading.take() {
                    reading.join().expect("the log's reader");
                }
                return status;
            }
            assert!(
                began.elapsed() < patience,
                "it does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the log has `text`, which may be written after the answer to a request.
    #[track_caller]
    pub fn assert_logs(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "no {text:?} in {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!(
                "the server: {:?}; its last lines, backwards: {last:#?}",
                self.child.try_wait()
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds the value of a metric in Prometheus's text format.
pub fn metric(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}
