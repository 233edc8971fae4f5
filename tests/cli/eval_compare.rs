//! `eval compare`: its numbers against those of other commands, its page, and what it rejects.

use std::{path::PathBuf, process::Output};

use serde_json::Value;

use crate::support::{
    golden,
    program::{convert_focus_in, dinoserve, text},
    scratch, tiny_home,
};

const FOCUS: &str = "dinov2-small-focus";
const TINY: &str = "tiny-reg";

/// A home with both models, and the first images of each class of CIFAR-10.
struct Setting {
    home: PathBuf,
    images: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let home = tiny_home(&[TINY]);
        convert_focus_in(&home, "fp32");
        let images = scratch("eval-compare-images");
        for (set, count) in [("train", 8), ("test", 4)] {
            let from = golden("cifar10-sample").join(set);
            for class in std::fs::read_dir(from).unwrap().flatten() {
                let to = images.join(set).join(class.file_name());
                std::fs::create_dir_all(&to).unwrap();
                let files = std::fs::read_dir(class.path()).unwrap().flatten();
                let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
                files.sort();
                for file in &files[..count] {
                    std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        Self { home, images }
    }

    /// Runs an evaluation. Returns its output and the file of `--json`.
    fn eval(&self, arguments: &[&str]) -> (Output, Option<Value>) {
        let json = scratch("eval-compare").join("found.json");
        let mut command = dinoserve();
        command
            .arg("eval")
            .args(arguments)
            .args(["--device", "cpu"]);
        for set in ["train", "test"] {
            command.arg(format!("--{set}")).arg(self.images.join(set));
        }
        let output = command
            .arg("--json")
            .arg(&json)
            .env("DINOSERVE_HOME", &self.home)
            .output()
            .unwrap();
        let found = std::fs::read(json).ok();
        (
            output,
            found.map(|text| serde_json::from_slice(&text).unwrap()),
        )
    }
}

#[test]
fn two_models_are_compared_by_every_classifier() {
    let setting = Setting::new();
    let page = setting.home.join("report.html");
    let models = format!("{FOCUS},{TINY}");
    let output = page.to_str().unwrap();
    let compare = [
        "compare", "--models", &models, "--linear", "-k", "5", "-o", output,
    ];
    let (output, found) = setting.eval(&compare);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = found.unwrap();
    // The vectors of k-NN are a part of those for the probe, and must be as good as alone.
    let votes = ["--vote", "weighted", "--vote", "majority"];
    let knn = [&["knn", "-k", "5", "--model", FOCUS], &votes[..]].concat();
    let alone = setting.eval(&knn).1.unwrap();
    let outcomes = found["models"][0]["outcomes"].as_array().unwrap();
    for (index, classifier) in ["knn_weighted", "knn_majority"].into_iter().enumerate() {
        assert_eq!(outcomes[index]["classifier"], classifier);
        assert_eq!(
            outcomes[index]["confusion"],
            alone["runs"][index]["confusion"]
        );
    }
    assert_eq!(outcomes[2]["classifier"], "linear");
    let count = found["test_images"].as_u64().unwrap();
    let pairs = found["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 3);
    for (index, pair) in pairs.iter().enumerate() {
        let number = |name: &str| pair[name].as_u64().unwrap();
        let rights = |model: usize| {
            let outcome = &found["models"][model]["outcomes"][index];
            outcome["correct"].as_u64().unwrap()
        };
        assert_eq!(number("both") + number("only_first"), rights(0));
        assert_eq!(number("both") + number("only_second"), rights(1));
        let all = ["both", "only_first", "only_second", "neither"].map(number);
        assert_eq!(all.iter().sum::<u64>(), count);
        let p = pair["p_value"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&p), "{pair}");
    }
    assert!(printed.contains("only tiny-reg right"), "{printed}");

    let page = std::fs::read_to_string(page).unwrap();
    for part in [
        &format!("Only {FOCUS} is right"),
        "What is taken for what",
        "src=\"data:image/png;base64,",
        "src=\"data:image/jpeg;base64,",
        "alt=\"PCA map\"",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    for outside in ["http:", "https:", "src=\"/", "<script", "@import"] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }
}

#[test]
fn a_comparison_that_makes_no_sense_is_refused_before_it_takes_long() {
    let setting = Setting::new();
    let both = format!("{FOCUS},{TINY}");
    for (models, more, expected) in [
        (FOCUS, &[][..], "one model cannot be compared"),
        (&format!("{FOCUS},{FOCUS}"), &[], "is given twice"),
        (
            &format!("{FOCUS},nonsense"),
            &[],
            "there is no model \"nonsense\"",
        ),
        (&both, &["-k", "0"], "-k: with"),
        (&both, &["-k", "100000"], "-k: with"),
        (
            &both,
            &["--temperature", "0"],
            "--temperature 0 is out of range",
        ),
        (&both, &["--pooling", "mean"], "--pooling and --layers"),
        (&both, &["--layers", "2"], "--pooling and --layers"),
    ] {
        let (output, found) = setting.eval(&[&["compare", "--models", models][..], more].concat());
        let err = text(&output.stderr);
        assert!(!output.status.success() && err.contains(expected), "{err}");
        assert!(found.is_none());
    }
}
