//! Runs everything and writes the results.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{
    accuracy,
    client::Target,
    comparison,
    images::jpeg_files,
    maps,
    rounds::{Rounds, SIZES},
    scenarios,
    servers::{Programs, Server, flags_of},
    sizes,
};

const OVERLOAD: &str = "## Overload\n\n";
const HTTP: &str = "## Embeddings over HTTP\n\n";
const WITHOUT_HTTP: &str = "## Without HTTP\n\n";

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

    /// Peers of `loadtest/peers` with their options to compare with; `none` for no comparison
    #[arg(long, value_delimiter = ',', default_value = PEERS)]
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

    /// Measure one part only, and keep the other sections of the results
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Embeddings over HTTP and without it, in comparison with the peers
    Comparison,
    Overload,
}

/// The peers at their best setting. Those that compute in bf16 do so by PyTorch's autocast, or by
/// OpenVINO's own choice, where the processor has units for it.
const PEERS: &str = "fastapi_pytorch,fastapi_pytorch --precision bf16 --compile,\
    litserve_batched --precision bf16,fastapi_onnxruntime,onnxruntime_openvino,\
    openvino --precision f32,openvino";

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

    if options.only == Some(Part::Overload) {
        let server = programs.serve("dinoserve fp32", &[]).await?;
        let mut text = OVERLOAD.to_owned();
        scenarios::overload(&server, &standard, &mut text).await?;
        server.stop().await;
        return replace_section(&options.to, OVERLOAD, &text);
    }
    let settings = settings();
    let (mut servers, sections) =
        compare(options, &programs, &settings, &standard, &folder).await?;
    for server in servers.drain(settings.len()..) {
        server.stop().await;
    }
    if options.only == Some(Part::Comparison) {
        for (heading, section) in [HTTP, WITHOUT_HTTP].iter().zip(&sections) {
            replace_section(&options.to, heading, section)?;
        }
        return Ok(());
    }
    let mut text = head(options)?;
    text.extend(sections);
    eprintln!("one client");
    comparison::one_client(
        &programs, &servers, &settings, &standard, &folder, &mut text,
    )
    .await?;
    for server in servers.drain(1..) {
        server.stop().await;
    }
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

/// Returns the settings of `dinoserve` that this processor can run, fp32 first; see
/// [`flags_of`](crate::servers::flags_of).
fn settings() -> Vec<&'static str> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match cpu.contains(" avx512_bf16 ") {
        true => vec!["fp32", "fp32 openvino", "bf16", "int8"],
        false => vec!["fp32", "fp32 openvino", "int8"],
    }
}

/// Compares `dinoserve` with its peers. Returns the running servers, `dinoserve` in `settings`
/// first, and the sections about embeddings over HTTP and without it.
async fn compare(
    options: &Options,
    programs: &Programs,
    settings: &[&'static str],
    images: &Target,
    folder: &Path,
) -> anyhow::Result<(Vec<Server>, [String; 2])> {
    let mut servers = Vec::new();
    for setting in settings {
        // The peers interpolate positions as Hugging Face does.
        let flags = [flags_of(setting), vec!["--pos-embed", "hf"]].concat();
        let name = format!("dinoserve {setting}");
        servers.push(programs.serve(&name, &flags).await?);
    }
    let peers = options.peers.iter().filter(|name| *name != "none");
    for (index, name) in peers.enumerate() {
        eprintln!("starting {name}");
        servers.push(programs.peer(name, 18_100 + index as u16).await?);
    }
    let mut cosines = Vec::new();
    for size in SIZES {
        cosines.push(accuracy::lowest_cosines(&servers, images, size).await?);
    }
    let how = (options.rounds, options.seconds);
    let rounds = Rounds::run(programs, &servers, settings, images, folder, how).await?;
    let mut http = format!("{HTTP}{}\n\n", machine(options)?);
    for (size, cosines) in SIZES.into_iter().zip(&cosines) {
        comparison::over_http(&rounds, &servers, cosines, size, &mut http)?;
    }
    http.push_str("The peers are described in [peers/README.md](peers/README.md).\n\n");
    let mut alone = String::new();
    comparison::without_http(&rounds, settings, &mut alone)?;
    Ok((servers, [http, alone]))
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

/// Describes the method.
fn head(options: &Options) -> anyhow::Result<String> {
    Ok(format!(
        "# Results\n\nWritten by `make bench`. {} 48 different JPEG files of 500×375; {} rounds \
         with {} s for each measurement, in random order. All servers are up, one works and the \
         others are stopped. Medians over the rounds; ratios are taken within a round; the range \
         is in brackets. The load comes from the same machine.\n\n",
        machine(options)?,
        options.rounds,
        options.seconds
    ))
}

/// Names the machine, the model and the commit.
fn machine(options: &Options) -> anyhow::Result<String> {
    let commit = git(options, &["log", "-1", "--format=%h of %cs"])?;
    let changed = match git(options, &["status", "--porcelain", "src"])?.as_str() {
        "" => "",
        _ => ", with changes",
    };
    let (processor, model) = (processor(), &options.model);
    Ok(format!(
        "{processor}, model {model}, commit {commit}{changed}."
    ))
}

/// Names the cores, the processor, and the instructions that matter.
pub(crate) fn processor() -> String {
    const EXTENSIONS: [&str; 7] = [
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512_vpopcntdq",
        "avx512_bf16",
        "amx_bf16",
        "amx_int8",
    ];
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        let value = line.unwrap_or_default().split(':').nth(1);
        value.unwrap_or_default().trim().to_owned()
    };
    let flags = field("flags");
    let extensions: Vec<&str> = flags
        .split(' ')
        .filter(|flag| EXTENSIONS.contains(flag))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (name, extensions) = (field("model name"), extensions.join(", "));
    format!("{cores} cores of {name} ({extensions})")
}

fn git(options: &Options, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(&options.project)
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
