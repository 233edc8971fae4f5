//! Runs everything and writes it down.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use anyhow::Context;

use crate::{
    Report,
    client::{Arrivals, Target, load},
    median,
    photos::photos,
    plot::{self, Line},
    rounds::Rounds,
    scenarios,
    servers::{Programs, Server},
};

const SIZES: [usize; 5] = [224, 336, 448, 518, 896];

const OVERLOAD: &str = "## Overload\n\n";

/// Writes a section of the results anew, and leaves the others.
pub(crate) fn replace_section(path: &Path, heading: &str, section: &str) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let (others, old) = before
        .split_once(heading.trim_end())
        .unwrap_or((&before, ""));
    let rest = old.find("\n## ").map_or("", |at| &old[at + 1..]);
    std::fs::write(
        path,
        format!("{}\n\n{}\n\n{rest}", others.trim_end(), section.trim_end())
            .trim_end()
            .to_owned()
            + "\n",
    )?;
    Ok(())
}

/// Runs everything.
pub(crate) async fn run(options: &Report) -> anyhow::Result<()> {
    let golden = options.project.join("tests/golden");
    let programs = Programs {
        dinoserve: std::path::absolute(&options.dinoserve)?,
        project: options.project.clone(),
        model: options.model.clone(),
    };
    let of_size = |count, width, height| {
        anyhow::Ok(Target {
            url: String::new(),
            photos: photos(&golden, count, width, height)?,
        })
    };
    let standard = of_size(48, 500, 375)?;
    let folder = options.project.join("target/loadtest-photos");
    std::fs::create_dir_all(&folder)?;
    for (index, photo) in standard.photos.iter().enumerate() {
        std::fs::write(folder.join(format!("{index:02}.jpg")), photo)?;
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
    for (index, name) in options
        .peers
        .iter()
        .filter(|name| *name != "none")
        .enumerate()
    {
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
    comparison(&rounds, &servers, &mut text)?;
    without_http(&rounds, &mut text)?;
    for server in servers.drain(2..) {
        server.stop().await;
    }
    eprintln!("one client");
    text.push_str("## One client\n\n");
    one_client(&programs, &servers, &standard, &folder, &mut text).await?;
    servers.pop().context("the int8 server")?.stop().await;
    let server = servers.pop().context("our own server")?;

    eprintln!("overload");
    text.push_str(OVERLOAD);
    scenarios::overload(&server, &standard, &mut text).await?;
    eprintln!("slow clients, a mixture");
    text.push_str("## Slow clients\n\n");
    scenarios::slow_clients(&server, &standard, &mut text).await?;
    text.push_str("## A mixture\n\n");
    let sizes = [
        of_size(8, 320, 240)?,
        of_size(8, 1280, 960)?,
        of_size(8, 4000, 3000)?,
    ];
    scenarios::mixture(&server, &sizes, &mut text).await?;
    eprintln!("maps");
    maps(&programs, &server, &standard, &folder, options, &mut text).await?;
    server.stop().await;
    eprintln!("memory");
    text.push_str("## Memory\n\nResident memory after 8 s with 16 clients at 224.\n\n");
    scenarios::memory(&programs, &standard, model_mb(options)?, &mut text).await?;
    eprintln!("sizes");
    by_size(&programs, &standard, options, &mut text).await?;
    std::fs::write(&options.to, text)?;
    eprintln!("written to {}", options.to.display());
    Ok(())
}

fn head(options: &Report) -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let flags = field("flags");
    let has = ["avx2", "avx512f", "avx512_vnni"]
        .into_iter()
        .filter(|flag| flags.split(' ').any(|has| has == *flag));
    let has: Vec<&str> = has.collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let git = Command::new("git")
        .args(["log", "-1", "--format=%h of %cs"])
        .current_dir(&options.project)
        .output()?;
    let dirty = Command::new("git")
        .args(["status", "--porcelain", "src"])
        .current_dir(&options.project)
        .output()?;
    let commit = String::from_utf8_lossy(&git.stdout).trim().to_owned();
    let changed = if dirty.stdout.is_empty() {
        ""
    } else {
        ", with changes"
    };
    Ok(format!(
        "# Results\n\nWritten by `make bench`. {cores} cores of {} ({}), model {}, commit {commit}{changed}. JPEG photographs of 500×375, 48 \
         different ones; {} rounds of {} s a turn in random order, with all servers up, one at work and the others halted. Medians over the rounds; ratios are \
         taken within a round; the range is in brackets. The load comes from the same machine.\n\n",
        field("model name"),
        has.join(", "),
        options.model,
        options.rounds,
        options.seconds
    ))
}

/// `median (lowest–highest)`.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(
        "{:.digits$} ({low:.digits$}–{high:.digits$})",
        median(values)
    )
}

fn comparison(rounds: &Rounds, servers: &[Server], text: &mut String) -> anyhow::Result<()> {
    text.push_str("## Embeddings over HTTP\n\n| server | answers/s, 16 clients | answers/s, 1 client | p50, ms, 1 client | dinoserve to it, 16 clients | 1 client |\n|---|---|---|---|---|---|\n");
    for Server { name, .. } in servers {
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            spread(&rounds.values(&format!("{name} at 16: rate")), 1),
            spread(&rounds.values(&format!("{name} at 1: rate")), 1),
            spread(&rounds.values(&format!("{name} at 1: p50")), 1),
            spread(
                &rounds.ratios("dinoserve at 16: rate", &format!("{name} at 16: rate")),
                2
            ),
            spread(
                &rounds.ratios("dinoserve at 1: rate", &format!("{name} at 1: rate")),
                2
            ),
        )?;
    }
    text.push_str("\nWhat the others are: [peers/README.md](peers/README.md).\n\n");
    Ok(())
}

fn without_http(rounds: &Rounds, text: &mut String) -> anyhow::Result<()> {
    text.push_str(
        "## Without HTTP\n\n`dinoserve bench` on the same photographs: the model alone, and from the file on.\n\n",
    );
    text.push_str("| | fp32 | int8 |\n|---|---|---|\n");
    let mut row = |name: &str, value: &dyn Fn(&str, &str) -> String| {
        writeln!(
            text,
            "| {name} | {} | {} |",
            value("fp32", "dinoserve"),
            value("int8", "dinoserve int8")
        )
    };
    row("model alone, images/s", &|precision, _| {
        spread(
            &rounds.values(&format!("bench {precision}: session_rate")),
            1,
        )
    })?;
    row("from the file, images/s", &|precision, _| {
        spread(
            &rounds.values(&format!("bench {precision}: pipeline_rate")),
            1,
        )
    })?;
    row("from the file to the model alone", &|precision, _| {
        let of = |what: &str| format!("bench {precision}: {what}");
        spread(&rounds.ratios(&of("pipeline_rate"), &of("session_rate")), 3)
    })?;
    row(
        "16 clients over HTTP to that from the file",
        &|precision, server| {
            spread(
                &rounds.ratios(
                    &format!("{server} at 16: rate"),
                    &format!("bench {precision}: pipeline_rate"),
                ),
                3,
            )
        },
    )?;
    let int8 = rounds.ratios("dinoserve int8 at 16: rate", "dinoserve at 16: rate");
    writeln!(
        text,
        "\nint8 answers **{}** times as many requests as fp32 at 16 clients.\n",
        spread(&int8, 2)
    )?;
    Ok(())
}

/// What HTTP and the engine add to an image that is alone, in short turns right after each other:
/// the machine's speed drifts by more than is measured here.
async fn one_client(
    programs: &Programs,
    servers: &[Server],
    standard: &Target,
    folder: &Path,
    text: &mut String,
) -> anyhow::Result<()> {
    const PAIRS: usize = 15;
    text.push_str(
        "| | from the file, ms | over HTTP, p50, ms | ms more, pair by pair |\n|---|---|---|---|\n",
    );
    servers.iter().for_each(Server::pause);
    for (server, precision) in servers.iter().zip(["fp32", "int8"]) {
        let (mut pipeline, mut http, mut more) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let flags = [
                "--precision",
                precision,
                "--sizes",
                "224",
                "--rounds",
                "41",
                "--seconds",
                "0",
            ];
            let report = programs.bench(folder, &flags).await?;
            let alone = report["rows"][0]["pipeline_ms"]
                .as_f64()
                .context("bench gives no pipeline_ms")?;
            server.resume();
            let target = [Target {
                url: server.url("/v1/embed"),
                ..standard.clone()
            }];
            load(
                &target,
                Arrivals::Closed { clients: 1 },
                Duration::from_millis(300),
            )
            .await;
            let served = load(
                &target,
                Arrivals::Closed { clients: 1 },
                Duration::from_secs(2),
            )
            .await
            .latency(0.5);
            server.pause();
            pipeline.push(alone);
            http.push(served);
            more.push(served - alone);
        }
        writeln!(
            text,
            "| {precision} | {} | {} | **{}** |",
            spread(&pipeline, 1),
            spread(&http, 1),
            spread(&more, 1)
        )?;
    }
    servers.iter().for_each(Server::resume);
    writeln!(text, "\n{PAIRS} pairs of turns.\n")?;
    Ok(())
}

/// `/v1/pca` at 518: what comes on top of the model, and the lesson's way to the components.
async fn maps(
    programs: &Programs,
    server: &Server,
    standard: &Target,
    folder: &Path,
    options: &Report,
    text: &mut String,
) -> anyhow::Result<()> {
    let target = [Target {
        url: server.url("/v1/pca?size=518"),
        ..standard.clone()
    }];
    let outcome = load(
        &target,
        Arrivals::Closed { clients: 1 },
        Duration::from_secs(15),
    )
    .await;
    let stage = |name: &str| outcome.stage(name);
    let more = (outcome.latency(0.5) / stage("inference") - 1.0) * 100.0;
    writeln!(
        text,
        "## Maps\n\n`/v1/pca` at 518, one client, ms: {:.1} in all (p50); decode {:.1}, resize {:.1}, inference {:.1}, components and PNG {:.1}. \
         **{more:.1} %** on top of the inference.\n",
        outcome.latency(0.5),
        stage("decode"),
        stage("resize"),
        stage("inference"),
        stage("post")
    )?;
    let tokens = folder.with_file_name("loadtest-tokens.npy");
    let client = reqwest::Client::new();
    let request = client
        .post(server.url("/v1/embed?tokens=true&size=518"))
        .header("accept", "application/x-npy");
    let photo = standard.photos.first().context("a photograph")?.clone();
    std::fs::write(
        &tokens,
        request
            .header("content-type", "image/jpeg")
            .body(photo)
            .send()
            .await?
            .bytes()
            .await?,
    )?;
    let Some(python) = python_with_numpy(options) else {
        text.push_str("(No Python with NumPy was found for the lesson's way.)\n\n");
        return Ok(());
    };
    let mut ratios = Vec::new();
    let (mut ours, mut lessons) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let report = programs
            .bench(
                folder,
                &["--sizes", "518", "--rounds", "21", "--seconds", "0"],
            )
            .await?;
        let ms = report["rows"][0]["pca_ms"].as_f64().context("pca_ms")?;
        let script = options.project.join("loadtest/peers/pca_numpy.py");
        let output = Command::new(&python).arg(script).arg(&tokens).output()?;
        let lesson: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("pca_numpy.py")?;
        let lesson = lesson["ms"].as_f64().context("ms")?;
        ours.push(ms);
        lessons.push(lesson);
        ratios.push(lesson / ms);
    }
    writeln!(
        text,
        "The components of 37×37 patches take {} ms; the lesson's `numpy.linalg.svd` on the same tokens takes {} ms, **{}** times as \
         long.\n",
        spread(&ours, 1),
        spread(&lessons, 0),
        spread(&ratios, 1)
    )?;
    Ok(())
}

/// The peers' Python, or the system's.
fn python_with_numpy(options: &Report) -> Option<std::path::PathBuf> {
    let cache = std::env::var_os("DINOSERVE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| {
        Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache/dinoserve"))
    })?;
    let of_peers = options
        .peers
        .iter()
        .map(|name| cache.join(format!("peers/{name}/venv/bin/python")));
    let given = std::env::var_os("PEERS_VENV")
        .map(|venv| std::path::PathBuf::from(venv).join("bin/python"));
    let has_numpy = |python: &std::path::PathBuf| {
        Command::new(python)
            .args(["-c", "import numpy"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    given
        .into_iter()
        .chain(of_peers)
        .chain(["python3".into()])
        .find(has_numpy)
}

fn model_mb(options: &Report) -> anyhow::Result<f64> {
    let output = Command::new(&options.dinoserve)
        .args(["models", "verify", &options.model])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = text
        .split(" is as it was written")
        .next()
        .context("the model's path")?;
    let bytes = |path: String| {
        std::fs::metadata(&path)
            .map(|metadata| metadata.len())
            .with_context(|| path)
    };
    Ok((bytes(path.to_owned())? + bytes(format!("{path}.data"))?) as f64 / 1e6)
}

async fn by_size(
    programs: &Programs,
    standard: &Target,
    options: &Report,
    text: &mut String,
) -> anyhow::Result<()> {
    let mut latency = Vec::new();
    let mut throughput = Vec::new();
    for precision in ["fp32", "int8"] {
        let server = programs
            .serve(precision, &["--precision", precision])
            .await?;
        let line = || Line {
            name: precision.to_owned(),
            points: Vec::new(),
        };
        let (mut ms, mut rate) = (line(), line());
        for size in SIZES {
            let target = [Target {
                url: server.url(&format!("/v1/embed?size={size}")),
                ..standard.clone()
            }];
            let time = Duration::from_secs_f64(options.seconds.max(4.0));
            let one = load(&target, Arrivals::Closed { clients: 1 }, time).await;
            let many = load(&target, Arrivals::Closed { clients: 16 }, time * 2).await;
            ms.points.push((size as f64, one.latency(0.5)));
            rate.points.push((size as f64, many.rate()));
        }
        server.stop().await;
        latency.push(ms);
        throughput.push(rate);
    }
    let picture = options.to.with_file_name("sizes.svg");
    plot::by_size(&picture, &latency, &throughput)?;
    text.push_str(
        "## Cost against size\n\n![Latency and throughput against the image's size](sizes.svg)\n\n",
    );
    text.push_str(
        "| size | patches | fp32, ms | int8, ms | fp32, images/s | int8, images/s |\n|---|---|---|---|---|---|\n",
    );
    for (index, size) in SIZES.into_iter().enumerate() {
        let (ms, rate) = (
            |line: usize| latency[line].points[index].1,
            |line: usize| throughput[line].points[index].1,
        );
        let patches = (size / 14).pow(2);
        writeln!(
            text,
            "| {size} | {patches} | {:.1} | {:.1} | {:.2} | {:.2} |",
            ms(0),
            ms(1),
            rate(0),
            rate(1)
        )?;
    }
    Ok(())
}
