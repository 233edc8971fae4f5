//! Starts and stops the servers that are measured.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A running server.
pub(crate) struct Server {
    /// Name in the tables.
    pub(crate) name: String,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    /// Path that embeds an image.
    pub(crate) embed: &'static str,
    child: Child,
}

/// The paths of the programs, and the model that they run.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The `dinoserve` program.
    pub(crate) dinoserve: PathBuf,
    /// The project's folder.
    pub(crate) project: PathBuf,
    /// Name of the model.
    pub(crate) model: String,
}

/// Returns the flags of a setting of `dinoserve`: a precision, and `openvino` where OpenVINO runs
/// one that other providers have, too.
pub(crate) fn flags_of(setting: &str) -> Vec<&str> {
    let (precision, device) = match setting.split_once(' ') {
        Some((precision, device)) => (precision, device),
        None if setting == "bf16" => (setting, "openvino"),
        None => (setting, "cpu"),
    };
    vec!["--precision", precision, "--device", device]
}

impl Programs {
    /// Prepares a command of `dinoserve`, by default on the processor's own provider.
    pub(crate) fn dinoserve(&self, command: &str, flags: &[&str]) -> Command {
        let mut built = Command::new(&self.dinoserve);
        built
            .arg(command)
            .args(["--model", &self.model, "--log", "error"])
            .args(flags);
        if !flags.contains(&"--device") {
            built.args(["--device", "cpu"]);
        }
        built.kill_on_drop(true);
        built
    }

    /// Starts `dinoserve serve` on a free port.
    pub(crate) async fn serve(&self, name: &str, flags: &[&str]) -> anyhow::Result<Server> {
        let mut command = self.dinoserve("serve", flags);
        let mut child = command
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting dinoserve")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let line = lines
            .next_line()
            .await?
            .context("dinoserve exited before it listened")?;
        let address = line.rsplit('/').next().unwrap_or_default().to_owned();
        wait_until_ready(&format!("http://{address}/readyz"), &mut child).await?;
        Ok(Server {
            name: name.to_owned(),
            address,
            embed: "/v1/embed",
            child,
        })
    }

    /// Starts a peer, which may have to be installed first. `peer` is its folder and its options.
    pub(crate) async fn peer(&self, peer: &str, port: u16) -> anyhow::Result<Server> {
        let script = self.project.join("loadtest/peers/start.sh");
        let mut command = Command::new(script);
        let mut words = peer.split(' ');
        let folder = words.next().unwrap_or_default();
        let name = peer.replace("--precision ", "").replace("--", "");
        command
            .args([folder, &port.to_string()])
            .args(words)
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let address = format!("127.0.0.1:{port}");
        wait_until_ready(&format!("http://{address}/health"), &mut child)
            .await
            .context(name.clone())?;
        Ok(Server {
            name,
            address,
            embed: "/embed",
            child,
        })
    }

    /// Runs `dinoserve bench` at one size with the images of a folder, and returns its row.
    pub(crate) async fn bench(
        &self,
        images: &Path,
        size: usize,
        rounds: usize,
        flags: &[&str],
    ) -> anyhow::Result<serde_json::Value> {
        let mut command = self.dinoserve("bench", flags);
        command
            .args(["--json", "--sizes", &size.to_string()])
            .args(["--rounds", &rounds.to_string()]);
        let mut files: Vec<PathBuf> = std::fs::read_dir(images)?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let output = command.args(files).output().await?;
        if !output.status.success() {
            bail!(
                "dinoserve bench failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(report["rows"][0].clone())
    }
}

async fn wait_until_ready(url: &str, child: &mut Child) -> anyhow::Result<()> {
    // Half an hour, because a peer may have to install gigabytes first.
    for _ in 0..36_000 {
        if reqwest::get(url)
            .await
            .is_ok_and(|response| response.status().is_success())
        {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the server exited with {status} before it was ready");
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("the server did not get ready within half an hour")
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the resident memory, in megabytes.
    pub(crate) fn resident_mb(&self) -> f64 {
        self.child.id().map_or(f64::NAN, |id| {
            memory_mb_of(Path::new(&format!("/proc/{id}/status")), "VmRSS:")
        })
    }

    /// Stops the process and its descendants by SIGSTOP, because even idle servers take some CPU
    /// time.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Continues the process and its descendants by SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let Some(id) = self.child.id() else { return };
        let mut command = std::process::Command::new("kill");
        command
            .arg(signal)
            .args(with_descendants(id).iter().map(u32::to_string));
        // Fails for a process that has just exited, which does no harm.
        let _ = command.stderr(Stdio::null()).status();
    }

    /// Sends SIGTERM, and waits for the process to exit.
    pub(crate) async fn stop(mut self) {
        self.resume();
        if let Some(id) = self.child.id() {
            let _ = Command::new("kill").arg(id.to_string()).status().await;
        }
        let _ = timeout(Duration::from_secs(30), self.child.wait()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process would not receive the signal that ends it.
        self.resume();
    }
}

/// Returns the memory of this process that is no page of a mapped file, in megabytes.
pub(crate) fn private_mb() -> f64 {
    memory_mb_of(Path::new("/proc/self/status"), "RssAnon:")
}

/// Returns an amount of memory from the status file of a process, in megabytes.
fn memory_mb_of(status: &Path, kind: &str) -> f64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(kind))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .map_or(f64::NAN, |kb| kb / 1024.0)
}

/// Returns a process and all its descendants.
fn with_descendants(root: u32) -> Vec<u32> {
    let parent = |id: u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))?
            .trim()
            .parse()
            .ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == member)
                .map(|(id, _)| id),
        );
        next += 1;
    }
    family
}
