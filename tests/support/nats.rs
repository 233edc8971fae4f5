//! Servers of NATS with JetStream, of the package that `deploy/setup.py --tests` installs. They end
//! with the test.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, Context, stream};
use tempfile::TempDir;

use super::python::Python;

pub const PASSWORD: &str = "geheim";

pub struct Nats {
    program: PathBuf,
    folder: TempDir,
    ports: Vec<u16>,
    nodes: Vec<Option<Child>>,
}

impl Nats {
    /// Starts a cluster of `count` nodes, or one server. Returns `None` and reports the test as
    /// skipped where the package is not installed.
    pub fn start(test: &str, count: usize) -> Option<Self> {
        let program = Python::with_packages("bulk", test)?.program("nats-server");
        // All are held until the last is known.
        let listeners: Vec<TcpListener> = (0..2 * count)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let ports = listeners
            .iter()
            .map(|one| one.local_addr().expect("a port").port());
        let ports: Vec<u16> = ports.collect();
        drop(listeners);
        let folder = tempfile::tempdir().expect("a folder");
        let (ports, routes) = ports.split_at(count);
        for node in 0..count {
            let mut config = format!(
                "server_name: node{node}\nhost: 127.0.0.1\nport: {}\n\
                 jetstream {{ store_dir: \"{}\" }}\n\
                 authorization {{ user: me, password: \"{PASSWORD}\" }}\n",
                ports[node],
                folder.path().join(format!("node{node}")).display()
            );
            if count > 1 {
                let others: Vec<String> = routes
                    .iter()
                    .map(|route| format!("\"nats://127.0.0.1:{route}\""))
                    .collect();
                config += &format!(
                    "cluster {{ name: photos, host: 127.0.0.1, port: {}, routes: [{}] }}\n",
                    routes[node],
                    others.join(", ")
                );
            }
            fs::write(folder.path().join(format!("node{node}.conf")), config).expect("a file");
        }
        let mut nats = Self {
            program,
            folder,
            ports: ports.to_vec(),
            nodes: Vec::new(),
        };
        for node in 0..count {
            nats.nodes.push(None);
            nats.resume(node);
        }
        Some(nats)
    }

    /// Starts a node.
    pub fn resume(&mut self, node: usize) {
        let log = fs::File::create(self.folder.path().join(format!("node{node}.log")));
        let started = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.path().join(format!("node{node}.conf")))
            .stdout(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn();
        self.nodes[node] = Some(started.expect("the server starts"));
    }

    /// Kills a node.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it has ended");
    }

    /// The address of a stream, with user and password.
    pub fn address(&self, stream: &str) -> String {
        let hosts: Vec<String> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        format!("nats://me:{PASSWORD}@{}/{stream}", hosts.join(","))
    }

    /// A client of the servers, once they answer.
    pub async fn connect(&self) -> Context {
        let servers: Vec<async_nats::ServerAddr> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}").parse().expect("an address"))
            .collect();
        let options = async_nats::ConnectOptions::new()
            .user_and_password("me".to_owned(), PASSWORD.to_owned())
            .retry_on_initial_connect();
        jetstream::new(options.connect(servers).await.expect("a client"))
    }

    /// Makes a stream that every node has, for one subject of the same name.
    pub async fn make_stream(&self, context: &Context, name: &str) {
        let began = Instant::now();
        loop {
            let config = stream::Config {
                name: name.to_owned(),
                num_replicas: self.ports.len(),
                ..stream::Config::default()
            };
            match context.create_stream(config).await {
                Ok(_) => return,
                // The nodes first elect a leader.
                Err(error) => {
                    assert!(began.elapsed() < Duration::from_secs(60), "{error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for process in self.nodes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
