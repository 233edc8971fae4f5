//! The images that an evaluation learns from and those that it is tested on, as vectors.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use crate::{
    artifacts::{IMAGE_ENDINGS, images_of, write_atomically},
    cli::{
        common::{EngineFlags, LimitFlags, VectorFlags},
        vectors::embed_files,
    },
    error::{Error, Kind},
    eval::{LabeledImages, LabeledVectors, classes},
    features::pool::Pooling,
    service::{EmbedOptions, Extractor, ImageOptions},
    vision::{PreprocessingOverrides, ResizeMode},
};

/// Flags of every evaluation.
#[derive(Debug, Args)]
pub(super) struct SetFlags {
    /// Folder of images to learn from, with a subfolder for each label
    #[arg(long, value_name = "DIR")]
    train: PathBuf,

    /// Folder of images to test, with a subfolder for each label
    #[arg(long, value_name = "DIR")]
    test: PathBuf,

    /// Write the report with every prediction to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    vector: VectorFlags,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,
}

/// A folder before its images are read.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) images: LabeledImages,
    unreadable: Vec<Unreadable>,
}

/// A file that takes no part.
#[derive(Debug, Serialize)]
struct Unreadable {
    path: String,
    error: String,
}

/// A folder as vectors.
#[derive(Debug, Serialize)]
pub(super) struct Set {
    folder: PathBuf,
    images: usize,
    unreadable: Vec<Unreadable>,
    #[serde(skip)]
    pub(super) vectors: LabeledVectors,
}

/// Both sets, and how their vectors were made.
#[derive(Debug, Serialize)]
pub(super) struct Sets {
    model: String,
    fingerprint: String,
    precision: String,
    pooling: Pooling,
    layers: usize,
    size: usize,
    resize: ResizeMode,
    dim: usize,
    pub(super) train: Set,
    pub(super) test: Set,
    /// All labels of both sets, sorted.
    pub(super) classes: Vec<String>,
    /// Labels of the test that nothing was learned about.
    not_in_train: Vec<String>,
}

impl SetFlags {
    /// Finds the images of both folders: what is learned from, and what is tested.
    pub(super) fn find(&self) -> anyhow::Result<(Folder, Folder)> {
        Ok((find(&self.train)?, find(&self.test)?))
    }

    /// Puts all images through the model. `pooling` is the default of the evaluation.
    pub(super) fn embed(
        &self,
        train: Folder,
        test: Folder,
        pooling: Pooling,
        normalize: bool,
    ) -> anyhow::Result<Sets> {
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (engine, thread) = self.engine.start(&runtime, model)?;
        let VectorFlags {
            pooling: chosen,
            layers,
            size,
            resize,
        } = self.vector.clone();
        let options = EmbedOptions {
            pooling: chosen.unwrap_or(pooling),
            normalize,
            layers: layers.unwrap_or(1),
            tokens: false,
        };
        let overrides = PreprocessingOverrides {
            size,
            resize,
            ..PreprocessingOverrides::default()
        };
        let image = ImageOptions {
            overrides,
            ..ImageOptions::default()
        };

        let spec = engine.spec().clone();
        let (fingerprint, precision) = (
            engine.fingerprint().to_owned(),
            engine.precision().to_string(),
        );
        let extractor = Extractor::new(engine, self.limits.limits(), 0);
        let sets = tokio.block_on(async {
            let train = embed(
                &extractor,
                &self.train,
                train,
                &image,
                &options,
                "embedding train",
            )
            .await?;
            let test = embed(
                &extractor,
                &self.test,
                test,
                &image,
                &options,
                "embedding test",
            )
            .await?;
            anyhow::Ok((train, test))
        });
        drop(extractor);
        thread.join();
        let (train, test) = sets?;
        let not_in_train = train.vectors.lacks(&test.vectors);
        Ok(Sets {
            model: spec.name.clone(),
            fingerprint,
            precision,
            pooling: options.pooling,
            layers: options.layers,
            size: size.unwrap_or(spec.embed_size),
            resize: resize.unwrap_or(ResizeMode::Crop),
            dim: train.vectors.vectors.ncols(),
            classes: classes(&[&train.vectors, &test.vectors]),
            train,
            test,
            not_in_train,
        })
    }

    /// Writes what `--json` asks for.
    pub(super) fn write_json(&self, content: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_vec_pretty(content)?;
        write_atomically(path, |file| {
            file.write_all(&text)
                .map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
        })?;
        writeln!(
            std::io::stdout(),
            "Every prediction is in {}",
            path.display()
        )?;
        Ok(())
    }
}

impl Sets {
    /// Says what is evaluated, and which files and labels are not as one would like them.
    pub(super) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let Self {
            model,
            precision,
            pooling,
            layers,
            resize,
            size,
            dim,
            ..
        } = self;
        let layers = if *layers > 1 {
            format!(" of {layers} blocks")
        } else {
            String::new()
        };
        writeln!(
            out,
            "{model} ({precision}), {pooling}{layers}, {resize} {size}: {dim} values an image"
        )?;
        for (name, set) in [("train", &self.train), ("test", &self.test)] {
            let labels = classes(&[&set.vectors]).len();
            writeln!(
                out,
                "{name:<5}  {} images of {labels} labels, {}",
                set.images,
                set.folder.display()
            )?;
        }
        for set in [&self.train, &self.test] {
            if !set.unreadable.is_empty() {
                writeln!(
                    out,
                    "{} files of {} take no part:",
                    set.unreadable.len(),
                    set.folder.display()
                )?;
            }
            for Unreadable { path, error } in &set.unreadable {
                writeln!(out, "  {path}: {error}")?;
            }
        }
        for label in &self.not_in_train {
            let images = self
                .test
                .vectors
                .labels
                .iter()
                .filter(|found| *found == label)
                .count();
            writeln!(
                out,
                "There is nothing to learn `{label}` from, so its {images} test images count as wrong."
            )?;
        }
        writeln!(out)?;
        Ok(())
    }
}

fn find(root: &Path) -> anyhow::Result<Folder> {
    let (paths, bad) = images_of(root)?;
    let images = LabeledImages::new(root, paths).with_context(|| {
        format!(
            "looking for images ({}) in {}",
            IMAGE_ENDINGS.join(", "),
            root.display()
        )
    })?;
    let unreadable = bad.into_iter().map(|(path, error)| Unreadable {
        path,
        error: error.to_string(),
    });
    let unlabelled = images.unlabelled.iter().map(|path| Unreadable {
        path: path.clone(),
        error: "it lies in no subfolder, whose name would be its label".to_owned(),
    });
    let unreadable = unreadable.chain(unlabelled).collect();
    Ok(Folder { images, unreadable })
}

async fn embed(
    extractor: &Extractor,
    root: &Path,
    folder: Folder,
    image: &ImageOptions,
    options: &EmbedOptions,
    step: &str,
) -> anyhow::Result<Set> {
    let Folder {
        images,
        mut unreadable,
    } = folder;
    let results = embed_files(extractor, &images.paths, image, options, step).await?;
    let mut found = LabeledVectors::default();
    let mut values = Vec::new();
    for ((id, label), result) in images.ids.into_iter().zip(images.labels).zip(results) {
        match result {
            Ok(vector) => {
                values.extend(vector);
                found.ids.push(id);
                found.labels.push(label);
            }
            Err(error) => unreadable.push(Unreadable {
                path: id,
                error: error.to_string(),
            }),
        }
    }
    let rows = found.ids.len();
    if rows == 0 {
        let first = unreadable
            .first()
            .map(|first| format!("; {}: {}", first.path, first.error))
            .unwrap_or_default();
        let detail = format!(
            "none of the images of {} can be read{first}",
            root.display()
        );
        return Err(Error::new(Kind::UndecodableImage, detail).into());
    }
    found.vectors = Array2::from_shape_vec((rows, values.len() / rows), values)?;
    Ok(Set {
        folder: root.to_owned(),
        images: rows,
        unreadable,
        vectors: found,
    })
}
