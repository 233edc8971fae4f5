//! `dinoserve eval segmentation`.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        executor::block_on,
        flags::{MapFlags, SegmenterFlags},
        output::{exit_code, write_json},
        patches::{MaskFolders, MaskedFile, masked_files},
        progress::{Progress, Unit, show_progress},
    },
    error::{Error, Result},
    features::segmentation::Confusion,
    names::plural,
    service::{Decoding, Extractor, LabeledPatches, SegmentForms, SegmenterOptions},
};

/// Train a segmenter on images with masks, and compare what it finds with masks that it has not
/// seen: those of `--test-images`, or each fifth of the images in turn
#[derive(Debug, Args)]
pub(in crate::cli) struct Segmentation {
    #[command(flatten)]
    folders: MaskFolders,

    /// Folder, or another source, of images to test on [default: the images that were held out of
    /// five trainings]
    #[arg(long, value_name = "SOURCE", requires = "test_masks")]
    test_images: Option<String>,

    /// Folder, or another source, of their masks
    #[arg(long, value_name = "SOURCE", requires = "test_images")]
    test_masks: Option<String>,

    /// File for the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    training: SegmenterFlags,

    #[command(flatten)]
    map: MapFlags,
}

/// Number of parts of the images that are held out in turn.
const PARTS: usize = 5;

/// The file of `--json`.
#[derive(Serialize)]
struct SegmentationReport<'a> {
    model: &'a str,
    fingerprint: &'a str,
    /// Number of images that were tested.
    images: usize,
    /// Mean over classes of `iou`.
    mean_iou: Option<f64>,
    /// Share of pixels whose class was found.
    pixel_accuracy: Option<f64>,
    classes: Vec<ClassReport>,
}

#[derive(Serialize)]
struct ClassReport {
    class: u8,
    /// Share of the pixels in both masks among those in either; null for a class in neither.
    iou: Option<f64>,
    /// Pixels of this class by the class that was found, in the order of the classes.
    found: Vec<u64>,
}

impl Segmentation {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        block_on(self.map.with_extractor(async |extractor| {
            let files = self.folders.find().await?;
            let test = match (&self.test_images, &self.test_masks) {
                (Some(images), Some(masks)) => Some(masked_files(images, masks).await?),
                _ if files.len() < 2 => bail!(
                    "one image cannot be held out; give more, or --test-images and --test-masks"
                ),
                _ => None,
            };
            extractor.engine().ready().await?;
            let evaluation = Evaluation {
                extractor: &extractor,
                map: &self.map,
                options: self.training.options(),
                max_patches: self.training.max_patches(),
            };
            let patches = evaluation.read(&files).await?;
            let mut confusion = Confusion::default();
            let tested = match &test {
                Some(test) => {
                    evaluation.test(patches, test, &mut confusion).await?;
                    test.len()
                }
                None => {
                    let parts = PARTS.min(files.len());
                    for part in 0..parts {
                        let others = patches.of_images(|index| index % parts != part);
                        let held_out: Vec<MaskedFile> =
                            files.iter().skip(part).step_by(parts).cloned().collect();
                        evaluation.test(others, &held_out, &mut confusion).await?;
                    }
                    files.len()
                }
            };
            print(&mut std::io::stdout(), &confusion, tested)?;
            if let Some(path) = &self.json {
                write_json(path, &report(&extractor, &confusion, tested))?;
            }
            Ok(exit_code(true))
        }))
    }
}

/// An evaluation with what it needs.
struct Evaluation<'a> {
    extractor: &'a Extractor,
    map: &'a MapFlags,
    options: SegmenterOptions,
    max_patches: usize,
}

impl Evaluation<'_> {
    async fn read(&self, files: &[MaskedFile]) -> Result<LabeledPatches> {
        let image = self.map.image_options();
        let max = self.max_patches;
        let about = |error: Error, index: usize| files[index].image.about(error);
        let reads = files.iter().map(|file| file.clone().read()).collect();
        self.extractor
            .labeled_patches(reads, &image, self.options, max, about, show_progress())
            .await
    }

    /// Trains on `patches`, and counts the pixels of images that were held out.
    async fn test(
        &self,
        patches: LabeledPatches,
        files: &[MaskedFile],
        confusion: &mut Confusion,
    ) -> Result<()> {
        let image = self.map.image_options();
        let trained =
            self.extractor
                .learn_segmenter(patches, &image, self.options, show_progress());
        let segmenter = Arc::new(trained.await?);
        let forms = SegmentForms {
            labels: true,
            ..SegmentForms::default()
        };
        let mut progress = Progress::new(Unit::Items);
        for (done, file) in files.iter().enumerate() {
            let about = |error: Error| file.image.about(error);
            let masked = file.clone().read().await?;
            let segmenter = Arc::clone(&segmenter);
            let decoding = Decoding::default();
            let found = self
                .extractor
                .segment(segmenter, masked.image, decoding, forms);
            let found = found.await.map_err(about)?.value;
            let truth = self.extractor.read_mask(masked.mask, found.placement.image);
            let truth = truth.await.map_err(about)?;
            let found = found.labels.ok_or_else(|| Error::internal("no labels"))?;
            confusion.add(&truth, &found);
            progress.show("testing", done as u64 + 1, Some(files.len() as u64));
        }
        Ok(())
    }
}

fn report<'a>(
    extractor: &'a Extractor,
    confusion: &Confusion,
    images: usize,
) -> SegmentationReport<'a> {
    let classes = confusion.classes();
    SegmentationReport {
        model: extractor.name(),
        fingerprint: extractor.engine().fingerprint(),
        images,
        mean_iou: confusion.mean_iou(),
        pixel_accuracy: confusion.accuracy(),
        classes: classes
            .iter()
            .map(|&class| ClassReport {
                class,
                iou: confusion.iou(class),
                found: classes
                    .iter()
                    .map(|&found| confusion.pixels(class, found))
                    .collect(),
            })
            .collect(),
    }
}

/// Prints the mean, each class, and the shares of its pixels by the class that was found.
fn print(out: &mut impl Write, confusion: &Confusion, images: usize) -> std::io::Result<()> {
    let percent = |share: Option<f64>| match share {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => "-".to_owned(),
    };
    writeln!(
        out,
        "{}: mIoU {}, {} of the pixels right",
        plural(images, "image"),
        percent(confusion.mean_iou()),
        percent(confusion.accuracy())
    )?;
    let classes = confusion.classes();
    let header: String = classes.iter().map(|class| format!("{class:>9}")).collect();
    writeln!(out, "\n{:>5}{:>9}  found as{header}", "class", "IoU")?;
    for &class in &classes {
        let pixels = |found| confusion.pixels(class, found);
        let all: u64 = (0..=u8::MAX).map(pixels).sum();
        let share = |&found: &u8| (all > 0).then(|| pixels(found) as f64 / all as f64);
        let shares = classes
            .iter()
            .map(|found| format!("{:>9}", percent(share(found))));
        let shares: String = shares.collect();
        writeln!(
            out,
            "{class:>5}{:>9}          {shares}",
            percent(confusion.iou(class))
        )?;
    }
    Ok(())
}
