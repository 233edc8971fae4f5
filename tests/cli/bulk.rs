//! Embedding in bulk: sources, formats, and shards that end as if they had never been stopped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    golden,
    process::PROGRAM,
    program::{dinoserve, home_with_tiny, text},
    python::Python,
    scratch,
    server::npy,
};

const PICTURES: [&str; 3] = ["chelsea.png", "coffee.png", "rocket.jpg"];

struct Bulk {
    folder: PathBuf,
    home: PathBuf,
}

impl Bulk {
    /// A folder with `count` pictures in two classes, all of them different.
    fn new(name: &str, count: u32) -> Self {
        let folder = scratch(name);
        for index in 0..count {
            let source = golden("dinov2-small-focus").join(PICTURES[index as usize % 3]);
            let whole = image::open(source).unwrap().into_rgb8();
            let class = folder.join("images").join(["a", "b"][index as usize % 2]);
            fs::create_dir_all(&class).unwrap();
            let crop = image::imageops::crop_imm(&whole, index, 2 * index, 64, 56).to_image();
            crop.save(class.join(format!("{index:03}.png"))).unwrap();
        }
        Self {
            folder,
            home: home_with_tiny(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = dinoserve();
        command
            .args(arguments)
            .env("DINOSERVE_HOME", &self.home)
            .current_dir(&self.folder);
        if arguments[0] == "embed" {
            command.args(["--model", "tiny", "--device", "cpu"]);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let printed = text(&stdout) + text(&stderr).as_str();
        (status.code().unwrap_or(-1), printed)
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let (code, printed) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {printed}");
        printed
    }

    #[track_caller]
    fn fail(&self, arguments: &[&str], part: &str) {
        let (code, printed) = self.run(arguments);
        assert!(
            code != 0 && printed.contains(part),
            "{arguments:?}: {code} {printed}"
        );
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The files of a folder that are not those of sources.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.contains("partial") || name.starts_with(".writing"))
            .collect()
    }
}

fn vector(value: &Value) -> Vec<f32> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn all_formats_have_the_same_values() {
    let bulk = Bulk::new("bulk-formats", 7);
    for output in ["out.npy", "out.jsonl", "out.parquet", "out.tar"] {
        let printed = bulk.succeed(&["embed", "images", "-o", output]);
        assert!(printed.starts_with("7 images embedded in "), "{printed}");
    }
    let matrix = npy(&bulk.read("out.npy"));
    let lines = bulk.lines("out.jsonl");
    let ids: Vec<&str> = lines
        .iter()
        .map(|line| line["path"].as_str().unwrap())
        .collect();
    assert_eq!(ids[0], "a/000.png");
    assert_eq!(ids.join("\n") + "\n", text(&bulk.read("out.paths.txt")));
    assert!(
        lines
            .iter()
            .all(|line| line["label"] == line["path"].as_str().unwrap()[..1])
    );
    for (index, line) in lines.iter().enumerate() {
        let row = matrix.index_axis(ndarray::Axis(0), index);
        assert_eq!(
            vector(&line["embedding"]),
            row.iter().copied().collect::<Vec<_>>()
        );
    }
    let file = bulk.read("out.tar");
    let mut archive = tar::Archive::new(&file[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|member| member.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names[..2], ["000000000.embedding.npy", "000000000.json"]);
    assert_eq!(names.len(), 14);
    // Twice the same to the byte.
    for output in ["out.parquet", "out.tar"] {
        let before = bulk.read(output);
        bulk.succeed(&["embed", "images", "-o", output]);
        assert!(bulk.read(output) == before, "{output}");
    }
    assert_eq!(bulk.leftovers(), [""; 0]);
}

#[test]
fn several_features_come_from_one_inference() {
    let bulk = Bulk::new("bulk-features", 3);
    let all = "cls,mean,cls_mean,gem,patch_tokens";
    bulk.succeed(&["embed", "images", "-o", "all.jsonl", "--features", all]);
    for feature in ["cls", "mean", "cls_mean", "gem"] {
        bulk.succeed(&["embed", "images", "-o", "one.jsonl", "--features", feature]);
        for (one, all) in bulk.lines("one.jsonl").iter().zip(bulk.lines("all.jsonl")) {
            assert_eq!(one["embedding"], all[feature], "{feature}");
        }
    }
    let line = &bulk.lines("all.jsonl")[0];
    let [height, width] = [0, 1].map(|axis| line["grid"][axis].as_u64().unwrap());
    let tokens = line["patch_tokens"].as_array().unwrap();
    assert_eq!(tokens.len() as u64, height * width);
    // The mean of the tokens, scaled to length 1, is `mean`.
    let mut mean = vec![0.0f64; vector(&line["cls"]).len()];
    for token in tokens {
        for (sum, value) in mean.iter_mut().zip(vector(token)) {
            *sum += f64::from(value);
        }
    }
    let length = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
    for (value, expected) in mean.iter().zip(vector(&line["mean"])) {
        assert!((value / length - f64::from(expected)).abs() < 1e-5);
    }

    bulk.succeed(&[
        "embed",
        "images",
        "-o",
        "tokens.npy",
        "--features",
        "patch_tokens",
    ]);
    let array = bulk.read("tokens.npy");
    let shape = format!("'shape': (3, {}, {})", tokens.len(), mean.len());
    assert!(
        text(&array[..128]).contains(&shape),
        "{}",
        text(&array[..128])
    );
    bulk.fail(
        &["embed", "images", "-o", "x.npy", "--features", all],
        "a .npy has one feature",
    );
    let fit = [
        "embed",
        "images",
        "-o",
        "x.npy",
        "--features",
        "patch_tokens",
        "--resize",
        "fit",
    ];
    fs::write(bulk.folder.join("images/wide.png"), {
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(200, 60)
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        png.into_inner()
    })
    .unwrap();
    bulk.fail(&fit, "a .npy needs one grid for all");
}

#[test]
fn smaller_types_are_near_the_full_values() {
    let bulk = Bulk::new("bulk-types", 3);
    let embed = |dtype| {
        bulk.succeed(&["embed", "images", "-o", "out.jsonl", "--dtype", dtype]);
        bulk.lines("out.jsonl")
    };
    let (full, half, integers) = (embed("f32"), embed("f16"), embed("i8"));
    for ((full, half), integers) in full.iter().zip(&half).zip(&integers) {
        let scale = integers["embedding_scale"].as_f64().unwrap() as f32;
        let full = vector(&full["embedding"]);
        let integers = vector(&integers["embedding"]);
        assert!(integers.iter().any(|value| value.abs() == 127.0));
        for ((full, half), integer) in full.iter().zip(vector(&half["embedding"])).zip(integers) {
            assert!((full - half).abs() <= full.abs() / 1024.0 + 1e-7);
            assert!((full - integer * scale).abs() <= 0.51 * scale);
        }
    }
    bulk.succeed(&["embed", "images", "-o", "out.npy", "--dtype", "i8"]);
    assert_eq!(
        bulk.read("out.npy").len(),
        128 + 3 * vector(&full[0]["embedding"]).len()
    );
    assert_eq!(npy(&bulk.read("out.scales.npy")).shape(), [3]);
}

/// Starts a command and kills it as soon as it has results, unless it ends before.
fn kill_midway(bulk: &Bulk, arguments: &[&str], partial: &Path, after: u64) -> bool {
    let mut process = bulk.command(arguments).spawn().unwrap();
    loop {
        let length = fs::metadata(partial).map_or(0, |metadata| metadata.len());
        if length > after {
            process.kill().unwrap();
            process.wait().unwrap();
            return true;
        }
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn shards_that_were_killed_end_like_others() {
    let bulk = Bulk::new("bulk-shards", 40);
    bulk.succeed(&["embed", "images", "-o", "whole.parquet"]);
    let embed = |output: &str, shard: &str| {
        let output = format!("{output}/out.parquet");
        ["embed", "images", "-o", &output, "--shard", shard].map(str::to_owned)
    };
    fs::create_dir(bulk.folder.join("twice")).unwrap();
    let mut killed = 0;
    for shard in 0..3 {
        let name = format!("{shard}/3");
        for folder in ["once", "twice"] {
            let arguments = embed(folder, &name);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if folder == "twice" {
                let partial = format!("twice/out-0000{shard}-of-00003.parquet.partial");
                let partial = bulk.folder.join(partial);
                for after in [600, 3000] {
                    killed += i32::from(kill_midway(&bulk, &arguments, &partial, after));
                }
            }
            let printed = bulk.succeed(&arguments);
            assert!(printed.contains(" embedded in "), "{printed}");
            // Finished shards are skipped.
            let printed = bulk.succeed(&arguments);
            assert!(
                printed.contains(&format!("shard {name} is finished")),
                "{printed}"
            );
        }
        for extension in ["parquet", "json"] {
            let file = format!("out-0000{shard}-of-00003.{extension}");
            let [once, twice] =
                ["once", "twice"].map(|folder| bulk.read(&format!("{folder}/{file}")));
            assert!(once == twice, "{file}");
        }
    }
    assert!(killed > 0, "no process was killed");
    let printed = bulk.succeed(&["shards", "status", "twice/out.parquet"]);
    assert!(
        printed.ends_with("3 shards finished: 40 images embedded, 0 failed\n"),
        "{printed}"
    );

    // Merged, they are the whole run in another order.
    bulk.succeed(&[
        "shards",
        "merge",
        "twice/out.parquet",
        "-o",
        "merged.parquet",
    ]);
    let rows = |name: &str| -> BTreeMap<String, String> {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let file = fs::File::open(bulk.folder.join(name)).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
        rows.map(|row| {
            let mut columns = row.get_column_iter();
            let (_, id) = columns.next().unwrap();
            (
                id.to_string(),
                format!("{columns:?}", columns = columns.collect::<Vec<_>>()),
            )
        })
        .collect()
    };
    let whole = rows("whole.parquet");
    assert_eq!(whole.len(), 40);
    assert_eq!(rows("merged.parquet"), whole);
}

#[test]
fn merged_files_of_other_formats_have_all_images() {
    let bulk = Bulk::new("bulk-merge", 9);
    for (format, dtype) in [("npy", "i8"), ("jsonl", "f32"), ("tar", "f16")] {
        let output = format!("{format}/out.{format}");
        let arguments = [
            "embed", "images", "-o", &output, "--dtype", dtype, "--shard",
        ];
        for shard in ["0/2", "1/2"] {
            if shard == "1/2" {
                bulk.fail(
                    &["shards", "merge", &output, "-o", &format!("all.{format}")],
                    "1 shard of 2 are not finished: 1/2",
                );
                let (code, printed) = bulk.run(&["shards", "status", &output]);
                assert!(code == 1 && printed.contains("1/2  not begun"), "{printed}");
            }
            bulk.succeed(&[&arguments[..], &[shard]].concat());
        }
        let merged = format!("all.{format}");
        let printed = bulk.succeed(&["shards", "merge", &output, "-o", &merged]);
        assert!(
            printed.starts_with("9 images of 2 shards written"),
            "{printed}"
        );
    }
    assert_eq!(bulk.lines("all.jsonl").len(), 9);
    let ids: Vec<String> = bulk
        .lines("all.jsonl")
        .iter()
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.join("\n") + "\n", text(&bulk.read("all.paths.txt")));
    assert_eq!(npy(&bulk.read("all.scales.npy")).shape(), [9]);
    let dim = vector(&bulk.lines("all.jsonl")[0]["embedding"]).len();
    assert_eq!(bulk.read("all.npy").len(), 128 + 9 * dim);
    let file = bulk.read("all.tar");
    let mut archive = tar::Archive::new(&file[..]);
    let last = archive.entries().unwrap().last().unwrap().unwrap();
    assert_eq!(last.path().unwrap().display().to_string(), "000000008.json");
    // A damaged shard is not merged.
    let damaged = bulk.folder.join("jsonl/out-00000-of-00002.jsonl");
    fs::write(&damaged, "").unwrap();
    bulk.fail(
        &["shards", "merge", "jsonl/out.jsonl", "-o", "x.jsonl"],
        "what its manifest says",
    );
}

#[test]
fn a_run_that_differs_is_refused_and_names_the_difference() {
    let bulk = Bulk::new("bulk-conflicts", 4);
    let embed = ["embed", "images", "-o", "out.parquet", "--shard", "0/2"];
    bulk.succeed(&embed);
    for (more, part) in [
        (&["--pooling", "mean"][..], "with the options"),
        (&["--size", "56"], "with the options"),
        (&["images/a"], "of images, not of images images/a"),
    ] {
        bulk.fail(&[&embed[..], more].concat(), part);
    }
    bulk.fail(
        &["embed", "images", "-o", "out.parquet", "--shard", "2/2"],
        "0/2 to 1/2",
    );
    bulk.fail(&["embed", "images", "-o", "out.csv"], "must end in .npy");
    bulk.fail(
        &["embed", "images", "-o", "o.npy", "--features", "cls,cls"],
        "named twice",
    );
    bulk.fail(
        &["shards", "status", "none.parquet"],
        "there are no shards of none.parquet",
    );

    // Two processes on one shard: the second is refused while the first runs.
    let journal = bulk.folder.join("other-00000-of-00002.parquet.partial");
    let lock = fs::File::create(&journal).unwrap();
    lock.lock().unwrap();
    let other = ["embed", "images", "-o", "other.parquet", "--shard", "0/2"];
    bulk.fail(&other, "another process writes");
    drop(lock);
    bulk.succeed(&other);
    assert_eq!(bulk.leftovers(), [""; 0]);
}

#[test]
fn schedulers_number_the_shards() {
    let bulk = Bulk::new("bulk-environment", 4);
    for (variables, shard) in [
        (
            &[("JOB_COMPLETION_INDEX", "1"), ("COMPLETIONS", "3")][..],
            "1/3",
        ),
        (
            &[
                ("SLURM_ARRAY_TASK_ID", "5"),
                ("SLURM_ARRAY_TASK_COUNT", "3"),
                ("SLURM_ARRAY_TASK_MIN", "5"),
            ],
            "0/3",
        ),
        (&[("RANK", "2"), ("WORLD_SIZE", "3")], "2/3"),
    ] {
        let mut command = bulk.command(&["embed", "images", "-o", "out.jsonl"]);
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let printed = text(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(
            printed.contains(&format!("shard {shard}, by ")),
            "{printed}"
        );
    }
    let printed = bulk.succeed(&["shards", "status", "out.jsonl"]);
    assert!(
        printed.contains("3 of 3 shards finished: 4 images"),
        "{printed}"
    );
    let mut command = bulk.command(&["embed", "images", "-o", "out.jsonl"]);
    let output = command
        .envs([("RANK", "three"), ("WORLD_SIZE", "3")])
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("RANK is \"three\""),
        "{output:?}"
    );
}

/// Writes the pictures as members of a tar file.
fn write_tar(bulk: &Bulk, name: &str, ids: &[String]) {
    let mut archive = tar::Builder::new(fs::File::create(bulk.folder.join(name)).unwrap());
    for id in ids {
        let path = bulk.folder.join("images").join(id);
        archive
            .append_path_with_name(path, id.replace('/', "-"))
            .unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn lists_patterns_and_containers_have_the_same_images_as_the_folder() {
    let bulk = Bulk::new("bulk-sources", 8);
    bulk.succeed(&["embed", "images", "-o", "folder.jsonl"]);
    let vectors = |name: &str| -> Vec<Vec<f32>> {
        bulk.lines(name)
            .iter()
            .map(|line| vector(&line["embedding"]))
            .collect()
    };
    let ids: Vec<String> = bulk
        .lines("folder.jsonl")
        .iter()
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect();
    let expected = vectors("folder.jsonl");
    let list: String = ids.iter().map(|id| format!("images/{id}\n")).collect();
    fs::write(bulk.folder.join("list.txt"), &list).unwrap();
    let rows: String = ids.iter().map(|id| format!("images/{id},{id}\n")).collect();
    fs::write(bulk.folder.join("list.csv"), format!("path,id\n{rows}")).unwrap();
    write_tar(&bulk, "0.tar", &ids[..4]);
    write_tar(&bulk, "1.tar", &ids[4..]);
    for sources in [
        &["list.txt"][..],
        &["list.csv"],
        &["0.tar", "1.tar"],
        &["*.tar"],
        &["images/*/*.png"],
        &["images/a", "images/b"],
    ] {
        bulk.succeed(&[&["embed", "-o", "out.jsonl"][..], sources].concat());
        assert_eq!(vectors("out.jsonl"), expected, "{sources:?}");
    }
    // Ids of several folders differ by the folder.
    assert_eq!(bulk.lines("out.jsonl")[0]["path"], "images/a/000.png");

    // Two tar files for two shards: each shard has one of them as a whole.
    for (index, shard) in ["0/2", "1/2"].iter().enumerate() {
        bulk.succeed(&["embed", "*.tar", "-o", "tar.jsonl", "--shard", shard]);
        let half = vectors(&format!("tar-0000{index}-of-00002.jsonl"));
        assert_eq!(half, expected[4 * index..][..4], "{shard}");
    }
    // A gallery takes the same, and so do commands over patches.
    let import = ["gallery", "import", "0.tar", "--gallery", "galleries"];
    let mut command = bulk.command(&import);
    let output = command
        .args(["--model", "tiny", "--device", "cpu"])
        .output()
        .unwrap();
    assert!(
        text(&output.stdout).starts_with("4 images stored"),
        "{output:?}"
    );
}

#[test]
fn damaged_sources_are_refused_and_leave_nothing() {
    let bulk = Bulk::new("bulk-damaged", 4);
    let ids = ["a/000.png", "b/001.png"].map(str::to_owned);
    write_tar(&bulk, "whole.tar", &ids);
    let whole = bulk.read("whole.tar");
    for (name, content) in [
        ("cut.tar", &whole[..whole.len() / 2]),
        ("text.tar", &b"no tar file"[..]),
        ("empty.tar", b""),
    ] {
        fs::write(bulk.folder.join(name), content).unwrap();
        bulk.fail(
            &["embed", name, "-o", "out.npy"],
            &format!("{name}: the tar file is damaged or incomplete"),
        );
        assert!(!bulk.folder.join("out.npy").exists());
        fs::remove_file(bulk.folder.join("out.npy.partial")).unwrap_or_default();
    }
    fs::write(bulk.folder.join("text.parquet"), "no Parquet file").unwrap();
    bulk.fail(
        &["embed", "text.parquet", "-o", "out.npy"],
        "text.parquet: the Parquet file cannot be read",
    );
    bulk.succeed(&["embed", "images", "-o", "vectors.parquet"]);
    bulk.fail(
        &["embed", "vectors.parquet", "-o", "out.npy"],
        "has no column of images (image, bytes,",
    );
    bulk.fail(
        &[
            "embed",
            "vectors.parquet",
            "-o",
            "out.npy",
            "--column",
            "embedding",
        ],
        "the column embedding is of type",
    );
    bulk.fail(&["embed", "*.webp", "-o", "out.npy"], "has no images");
    bulk.fail(
        &["embed", "none*.tar", "-o", "out.npy"],
        "no file matches the pattern",
    );
    bulk.fail(
        &["embed", "ftp://host/a", "-o", "out.npy"],
        "must begin with s3://",
    );
    bulk.fail(
        &["embed", "s3://bucket/a/", "-o", "out.npy"],
        "there are no credentials",
    );
    bulk.fail(
        &["embed", "images", "-o", "s3://bucket/a.npy"],
        "there are no credentials",
    );
    assert_eq!(bulk.leftovers(), [""; 0]);
}

#[test]
fn a_changed_listing_keeps_what_is_done() {
    let bulk = Bulk::new("bulk-changed", 30);
    let embed = ["embed", "images", "-o", "out.jsonl"];
    let partial = bulk.folder.join("out.jsonl.partial");
    assert!(
        kill_midway(&bulk, &embed, &partial, 4000),
        "it ends before it is killed"
    );
    let done = fs::read_to_string(&partial).unwrap().lines().count() - 1;
    assert!(done >= 3, "{done}");
    // One more before all others, and the second is gone.
    let images = bulk.folder.join("images");
    fs::copy(images.join("b/001.png"), images.join("0.png")).unwrap();
    fs::remove_file(images.join("a/002.png")).unwrap();
    let printed = bulk.succeed(&embed);
    let earlier = format!("{} by an earlier run", done - 1);
    assert!(printed.contains(&earlier), "{printed}, of {done}");
    let ids: Vec<Value> = bulk
        .lines("out.jsonl")
        .iter()
        .map(|line| line["path"].clone())
        .collect();
    assert_eq!(ids.len(), 30);
    assert_eq!(ids[..3], ["0.png", "a/000.png", "a/004.png"]);
    bulk.succeed(&["embed", "images", "-o", "again.jsonl"]);
    assert!(bulk.read("out.jsonl") == bulk.read("again.jsonl"));
    assert_eq!(bulk.leftovers(), [""; 0]);
}

/// From and to a real object store that refuses requests, read by other programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_the_readers_of_files_agree() {
    let Some(python) = Python::with_packages("bulk", "cli::bulk") else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bulk/check.py");
    let home = home_with_tiny();
    let arguments = [
        script,
        PROGRAM,
        "--home",
        home.to_str().unwrap(),
        "--model",
        "tiny",
    ];
    let printed = python.run(&arguments).await;
    assert!(printed.contains("ok     shards"), "{printed}");
}
