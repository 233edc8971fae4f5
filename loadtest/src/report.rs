//! Runs everything and writes the results.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{
    client::Target, comparison, images::jpeg_files, maps, rounds::Rounds, scenarios,
    servers::Programs, sizes,
};

const OVERLOAD: &str = "## Overload\n\n";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The project's folder
    #[arg(long, default_value = ".")]
    project: PathBuf,

    /// The program to measure
    #[arg(long, default_value = "target/release/dinoserve")]
    dinoserve: PathBuf,

    /// Name of the model
    #[arg(long, default_value = "dinov2-small-focus")]
    model: String,

    /// Peers of `loadtest/peers` to compare with; `none` for no comparison
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fastapi_pytorch,fastapi_onnxruntime,litserve_batched,openvino"
    )]
    peers: Vec<String>,

    /// Number of rounds, in each of which everything is measured once
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,

    /// File of the results
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    to: PathBuf,

    /// Measure overload only, and keep the other sections of the results
    #[arg(long)]
    only_overload: bool,
}

/// Runs everything.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let golden = options.project.join("tests/golden");
    let programs = Programs {
        dinoserve: std::path::absolute(&options.dinoserve)?,
        project: options.project.clone(),
        model: options.model.clone(),
    };
    let target = |count, width, height| {
        anyhow::Ok(Target {
            url: String::new(),
            files: jpeg_files(&golden, count, width, height)?,
        })
    };
    let standard = target(48, 500, 375)?;
    let folder = options.project.join("target/loadtest-images");
    std::fs::create_dir_all(&folder)?;
    for (index, file) in standard.files.iter().enumerate() {
        std::fs::write(folder.join(format!("{index:02}.jpg")), file)?;
    }

    if options.only_overload {
        let server = programs.serve("dinoserve", &[]).await?;
        let mut text = OVERLOAD.to_owned();
        scenarios::overload(&server, &standard, &mut text).await?;
        server.stop().await;
        return replace_section(&options.to, OVERLOAD, &text);
    }
    let mut servers = vec![
        programs.serve("dinoserve", &[]).await?,
        programs
            .serve("dinoserve int8", &["--precision", "int8"])
            .await?,
    ];
    let peers = options.peers.iter().filter(|name| *name != "none");
    for (index, name) in peers.enumerate() {
        eprintln!("starting {name}");
        servers.push(programs.peer(name, 18_100 + index as u16).await?);
    }
    let rounds = Rounds::run(
        &programs,
        &servers,
        &standard,
        &folder,
        options.rounds,
        options.seconds,
    )
    .await?;
    let mut text = head(options)?;
    comparison::over_http(&rounds, &servers, &mut text)?;
    comparison::without_http(&rounds, &mut text)?;
    for server in servers.drain(2..) {
        server.stop().await;
    }
    eprintln!("one client");
    comparison::one_client(&programs, &servers, &standard, &folder, &mut text).await?;
    servers.pop().context("the int8 server")?.stop().await;
    let server = servers.pop().context("the fp32 server")?;

    eprintln!("overload");
    text.push_str(OVERLOAD);
    scenarios::overload(&server, &standard, &mut text).await?;
    eprintln!("slow clients, a mixture");
    scenarios::slow_clients(&server, &standard, &mut text).await?;
    let sizes = [
        target(8, 320, 240)?,
        target(8, 1280, 960)?,
        target(8, 4000, 3000)?,
    ];
    scenarios::mixture(&server, &sizes, &mut text).await?;
    eprintln!("maps");
    let python = maps::python_with_numpy(&options.peers);
    maps::measure(
        &programs,
        &server,
        &standard,
        &folder,
        python.as_deref(),
        options.rounds,
        &mut text,
    )
    .await?;
    server.stop().await;
    eprintln!("memory");
    scenarios::memory(&programs, &standard, &mut text).await?;
    eprintln!("sizes");
    let chart = options.to.with_file_name("sizes.svg");
    sizes::measure(&programs, &standard, options.seconds, &chart, &mut text).await?;
    std::fs::write(&options.to, text)?;
    eprintln!("written to {}", options.to.display());
    Ok(())
}

/// Replaces one section of the results, and keeps the others.
pub(crate) fn replace_section(path: &Path, heading: &str, section: &str) -> anyhow::Result<()> {
    let results = std::fs::read_to_string(path).unwrap_or_default();
    let (before, old) = results
        .split_once(heading.trim_end())
        .unwrap_or((&results, ""));
    let after = old.find("\n## ").map_or("", |at| &old[at + 1..]);
    let results = format!("{}\n\n{}\n\n{after}", before.trim_end(), section.trim_end());
    std::fs::write(path, format!("{}\n", results.trim_end()))?;
    Ok(())
}

/// Describes the machine, the commit and the method.
fn head(options: &Options) -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        let value = line.unwrap_or_default().split(':').nth(1);
        value.unwrap_or_default().trim().to_owned()
    };
    let flags = field("flags");
    let extensions: Vec<&str> = flags
        .split(' ')
        .filter(|flag| ["avx2", "avx512f", "avx512_vnni"].contains(flag))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = git(options, &["log", "-1", "--format=%h of %cs"])?;
    let changed = match git(options, &["status", "--porcelain", "src"])?.as_str() {
        "" => "",
        _ => ", with changes",
    };
    Ok(format!(
        "# Results\n\nWritten by `make bench`. {cores} cores of {} ({}), model {}, commit \
         {commit}{changed}. 48 different JPEG files of 500×375; {} rounds with {} s for each \
         measurement, in random order. All servers are up, one works and the others are stopped. \
         Medians over the rounds; ratios are taken within a round; the range is in brackets. The \
         load comes from the same machine.\n\n",
        field("model name"),
        extensions.join(", "),
        options.model,
        options.rounds,
        options.seconds
    ))
}

fn git(options: &Options, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(&options.project)
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
