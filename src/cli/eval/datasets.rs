//! The labeled images that an evaluation trains on and those that it tests, as vectors.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use crate::{
    cli::{
        embed_files::{FileVector, embed_files},
        executor::block_on,
        flags::{EmbedFlags, RunFlags},
        output::{exit_code, print_dim, write_json},
        progress::{Progress, Unit},
    },
    error::{Error, Kind},
    eval::{LabeledVectors, classes},
    features::pool::Pooling,
    names::plural,
    service::{EmbedOptions, Extractor, ImageOptions},
    sources::{Listing, SkippedFiles, SourceImage},
    vision::ResizeMode,
};

/// The images of an evaluation.
#[derive(Debug, Args)]
pub(super) struct FolderFlags {
    /// Folder of images to learn from, with a subfolder for each label, or another source of
    /// labeled images
    #[arg(long, value_name = "SOURCE")]
    train: String,

    /// Folder of images to test, with a subfolder for each label, or another source of labeled
    /// images
    #[arg(long, value_name = "SOURCE")]
    test: String,

    /// File for the report with every prediction
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Flags of an evaluation of one model.
#[derive(Debug, Args)]
pub(super) struct DatasetFlags {
    #[command(flatten)]
    pub(super) folders: FolderFlags,

    #[command(flatten)]
    embed: EmbedFlags,
}

/// A dataset before its images are read.
#[derive(Debug, Clone)]
pub(super) struct LabeledSource {
    name: String,
    /// Those that have a label.
    pub(super) images: Vec<SourceImage>,
    excluded: Vec<ExcludedFile>,
    skipped: SkippedFiles,
}

/// A file that is left out.
#[derive(Debug, Clone, Serialize)]
struct ExcludedFile {
    path: String,
    error: String,
    /// Whether the file has no label, but may be a good image.
    #[serde(skip)]
    unlabeled: bool,
}

/// A labeled folder as vectors.
#[derive(Debug, Serialize)]
pub(super) struct Dataset {
    pub(super) folder: String,
    images: usize,
    #[serde(rename = "unreadable")]
    excluded: Vec<ExcludedFile>,
    #[serde(skip)]
    skipped: SkippedFiles,
    /// Number of images that are nearly black.
    #[serde(skip)]
    dim_images: usize,
    #[serde(skip)]
    pub(super) vectors: LabeledVectors,
    /// Image of each vector.
    #[serde(skip)]
    pub(super) sources: Vec<SourceImage>,
}

/// Both datasets, and how their vectors were made.
#[derive(Debug, Serialize)]
pub(super) struct Datasets {
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) precision: String,
    pooling: Pooling,
    layers: usize,
    pub(super) size: usize,
    resize: ResizeMode,
    dim: usize,
    pub(super) train: Dataset,
    pub(super) test: Dataset,
    /// All labels of both datasets, sorted.
    pub(super) classes: Vec<String>,
    /// Labels that occur in the test dataset only.
    not_in_train: Vec<String>,
}

/// The prediction for an image of the test dataset.
#[derive(Serialize)]
pub(super) struct Prediction<'a> {
    pub(super) id: &'a str,
    pub(super) label: &'a str,
    pub(super) predicted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f32>,
}

impl FolderFlags {
    /// Finds the images to learn from and those to test.
    pub(super) fn find(&self) -> anyhow::Result<(LabeledSource, LabeledSource)> {
        block_on(async {
            let train = LabeledSource::find(&self.train).await?;
            Ok((train, LabeledSource::find(&self.test).await?))
        })
    }

    /// Writes the file of `--json`, if one is asked for.
    pub(super) fn write_json(&self, content: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        write_json(path, content)?;
        let path = path.display();
        writeln!(std::io::stdout(), "Every prediction is in {path}")?;
        Ok(())
    }
}

impl DatasetFlags {
    /// Embeds all images. `pooling` is the default of the evaluation.
    pub(super) fn embed(
        &self,
        folders: (LabeledSource, LabeledSource),
        pooling: Pooling,
        normalize: bool,
    ) -> anyhow::Result<Datasets> {
        embed_both(
            &self.embed.run,
            self.embed.name(),
            folders,
            pooling,
            normalize,
        )
    }
}

/// Embeds the images to learn from and those to test. `pooling` is the default of the evaluation.
pub(super) fn embed_both(
    run: &RunFlags,
    model: &str,
    (train, test): (LabeledSource, LabeledSource),
    pooling: Pooling,
    normalize: bool,
) -> anyhow::Result<Datasets> {
    let image = run.vector.image_options();
    let options = run.vector.embed_options(pooling, normalize);
    block_on(run.with_extractor(model, async |extractor| {
        let train = train
            .embed(&extractor, &image, &options, "embedding train")
            .await?;
        let test = test
            .embed(&extractor, &image, &options, "embedding test")
            .await?;
        let engine = extractor.engine();
        let spec = engine.spec();
        Ok(Datasets {
            model: spec.name.clone(),
            fingerprint: engine.fingerprint().to_owned(),
            precision: engine.precision().to_string(),
            pooling: options.pooling,
            layers: options.layers,
            size: image.overrides.size.unwrap_or(spec.embed_size),
            resize: image.overrides.resize.unwrap_or(ResizeMode::Crop),
            dim: train.vectors.vectors.ncols(),
            classes: classes(&[&train.vectors, &test.vectors]),
            not_in_train: train.vectors.missing_labels(&test.vectors),
            train,
            test,
        })
    }))
}

impl LabeledSource {
    async fn find(name: &str) -> anyhow::Result<Self> {
        let listing = Listing::open(&[name.to_owned()], None).await?;
        let listed = listing.list_all().await?;
        let (images, unlabeled): (Vec<_>, Vec<_>) = listed
            .images
            .into_iter()
            .partition(|image| image.label.is_some());
        let unlabeled = unlabeled.into_iter().map(|image| ExcludedFile {
            path: image.id,
            error: "is in no subfolder, whose name would be its label".to_owned(),
            unlabeled: true,
        });
        let failed = listed
            .failures
            .into_iter()
            .map(|(path, error)| ExcludedFile {
                path,
                error: error.to_string(),
                unlabeled: false,
            });
        let found = Self {
            name: name.to_owned(),
            images,
            excluded: unlabeled.chain(failed).collect(),
            skipped: listed.skipped,
        };
        if found.images.is_empty() {
            let detail =
                format!("{name} has no subfolders with images; it needs one for each label");
            return Err(Error::new(Kind::InvalidOption, detail).into());
        }
        Ok(found)
    }

    async fn embed(
        self,
        extractor: &Extractor,
        image: &ImageOptions,
        options: &EmbedOptions,
        step: &str,
    ) -> anyhow::Result<Dataset> {
        let images = self.images;
        let mut excluded = self.excluded;
        let total = images.len() as u64;
        let mut progress = Progress::new(Unit::Items);
        progress.show(step, 0, Some(total));
        let mut results = Vec::with_capacity(images.len());
        embed_files(extractor, &images, image, options, |index, result| {
            results.push((index, result));
            progress.show(step, results.len() as u64, Some(total));
            Ok(())
        })
        .await?;
        results.sort_by_key(|&(index, _)| index);
        let mut vectors = LabeledVectors::default();
        let mut values = Vec::new();
        let mut dim_images = 0;
        let mut sources = Vec::with_capacity(images.len());
        for (source, (_, result)) in images.into_iter().zip(results) {
            match result {
                Ok(FileVector { vector, is_dim, .. }) => {
                    values.extend(vector);
                    dim_images += usize::from(is_dim);
                    vectors.ids.push(source.id.clone());
                    vectors
                        .labels
                        .push(source.label.clone().unwrap_or_default());
                    sources.push(source);
                }
                Err(error) => excluded.push(ExcludedFile {
                    path: source.id,
                    error: error.to_string(),
                    unlabeled: false,
                }),
            }
        }
        let rows = vectors.ids.len();
        if rows == 0 {
            let first = excluded
                .first()
                .map(|first| format!("; {}: {}", first.path, first.error))
                .unwrap_or_default();
            let detail = format!("none of the images of {} can be read{first}", self.name);
            return Err(Error::new(Kind::UndecodableImage, detail).into());
        }
        vectors.vectors = Array2::from_shape_vec((rows, values.len() / rows), values)?;
        Ok(Dataset {
            folder: self.name,
            images: rows,
            excluded,
            skipped: self.skipped,
            dim_images,
            vectors,
            sources,
        })
    }
}

impl Datasets {
    /// Returns 1 if an image could not be read, else 0.
    pub(super) fn exit_code(&self) -> ExitCode {
        let mut excluded = self.train.excluded.iter().chain(&self.test.excluded);
        exit_code(excluded.all(|file| file.unlabeled))
    }

    /// Prints what is evaluated, the files that are left out, and the labels without examples.
    pub(super) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let layers = match self.layers {
            1 => String::new(),
            layers => format!(" of {layers} blocks"),
        };
        writeln!(
            out,
            "{} ({}), {}{layers}, {} {}: {} values an image",
            self.model, self.precision, self.pooling, self.resize, self.size, self.dim
        )?;
        for (name, set) in [("train", &self.train), ("test", &self.test)] {
            let labels = plural(classes(&[&set.vectors]).len(), "label");
            let images = plural(set.images, "image");
            let folder = &set.folder;
            writeln!(out, "{name:<5}  {images} of {labels}, {folder}")?;
        }
        for set in [&self.train, &self.test] {
            let excluded = set.excluded.len();
            let folder = &set.folder;
            if !set.skipped.is_empty() {
                writeln!(out, "{folder}: {}", set.skipped)?;
            }
            if excluded > 0 {
                writeln!(out, "{} of {folder} left out:", plural(excluded, "file"))?;
            }
            for ExcludedFile { path, error, .. } in &set.excluded {
                writeln!(out, "  {path}: {error}")?;
            }
        }
        print_dim(out, self.train.dim_images + self.test.dim_images, "")?;
        for label in &self.not_in_train {
            let test_labels = &self.test.vectors.labels;
            let images = test_labels.iter().filter(|found| *found == label).count();
            writeln!(
                out,
                "Label `{label}` has no images to learn from, so its {} as wrong.",
                match images {
                    1 => "test image counts".to_owned(),
                    _ => format!("{images} test images count"),
                }
            )?;
        }
        writeln!(out)?;
        Ok(())
    }
}
