//! `dinoserve segment SOURCE… --images DIR --masks DIR -o DIR`.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{ArgGroup, Args};

use super::{
    Made, make_all, read,
    training::{check_model, masked_files},
};
use crate::{
    cli::{
        executor::block_on,
        flags::{MapFlags, SegmenterFlags},
        output::write_file,
        progress::show_progress,
    },
    error::{Error, ResultExt},
    http::SegmentsJson,
    names::plural,
    service::{Decoding, Extractor, SegmentForms, SegmentPicture, Segmenter},
};

/// Find the class of each pixel of images, learned from a few masks, and write two files of each:
/// `NAME.png`, whose pixels are classes, and `NAME.json`, the masks as of `POST /v1/segment`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("head").required(true).args(["images", "segmenter"]))]
pub(in crate::cli) struct Segment {
    /// Folders of images, images, `-` for a list of paths on standard input, or any other source of
    /// `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Folder to write to; files of the same names are replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Folder, or another source, of images to learn from
    #[arg(long, value_name = "SOURCE", requires = "masks")]
    images: Option<String>,

    /// Folder, or another source, of their masks: `a.png` for the image `a.jpg`, at the same place
    /// within the folder; the value of a pixel is its class, and 255 is left out
    #[arg(long, value_name = "SOURCE", requires = "images")]
    masks: Option<String>,

    /// File of a segmenter that --save wrote, in place of images and masks
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["masks", "save", "layers", "l2", "folds"])]
    #[arg(conflicts_with_all = ["max_patches_learned", "size", "resize", "levels"])]
    segmenter: Option<PathBuf>,

    /// File to keep the segmenter in
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Draw the classes over the image, in place of the mask
    #[arg(long)]
    overlay: bool,

    #[command(flatten)]
    training: SegmenterFlags,

    #[command(flatten)]
    map: MapFlags,
}

impl Segment {
    pub(in crate::cli) fn run(self) -> anyhow::Result<ExitCode> {
        let picture = match self.overlay {
            true => SegmentPicture::Overlay(SegmentPicture::OPACITY),
            false => SegmentPicture::Mask,
        };
        let forms = SegmentForms {
            descriptions: true,
            picture: Some(picture),
            ..SegmentForms::default()
        };
        block_on(self.map.with_extractor(async |extractor| {
            extractor.engine().ready().await?;
            let segmenter = Arc::new(self.segmenter(&extractor).await?);
            let mut out = std::io::stdout();
            let images = segmenter.info.images;
            let (classes, images_of) = (segmenter.classes.len(), plural(images, "image"));
            write!(out, "{classes} classes, learned from {images_of}")?;
            if images > 1 {
                let share = 100.0 * segmenter.probe.accuracy;
                write!(out, "; {share:.1} % of held-out patches are right")?;
            }
            writeln!(out)?;
            if let Some(path) = &self.save {
                let file = segmenter.encode()?;
                write_file(path, |writer| writer.write_all(&file))?;
                writeln!(out, "written to {}", path.display())?;
            }
            make_all(&extractor, &self.sources, &self.output, async |file| {
                let content = file.read().await?;
                let segmenter = Arc::clone(&segmenter);
                let found = extractor.segment(segmenter, content, Decoding::default(), forms);
                let found = found.await?.value;
                let json = serde_json::to_value(SegmentsJson::new(&extractor, &found));
                Ok(Made {
                    png: found
                        .png
                        .ok_or_else(|| Error::internal("nothing was drawn"))?,
                    json: json.internal("describing segments")?,
                })
            })
            .await
        }))
    }

    /// Returns the segmenter of a file, or trains one.
    async fn segmenter(&self, extractor: &Extractor) -> anyhow::Result<Segmenter> {
        if let Some(path) = &self.segmenter {
            let file = read(path).await.map_err(|error| error.about(path))?;
            let segmenter = Segmenter::decode(&file).map_err(|error| error.about(path))?;
            check_model(&segmenter.info.model, extractor, path)?;
            return Ok(segmenter);
        }
        let (Some(images), Some(masks)) = (&self.images, &self.masks) else {
            anyhow::bail!("give --images and --masks, or --segmenter");
        };
        let files = masked_files(images, masks).await?;
        let about = |error: Error, index: usize| files[index].image.about(error);
        let reads = files.iter().map(|file| file.clone().read()).collect();
        let image = self.map.image_options();
        let options = self.training.options();
        let max = self.training.max_patches();
        let patches =
            extractor.labeled_patches(reads, &image, options, max, about, show_progress());
        let trained = extractor.learn_segmenter(patches.await?, &image, options, show_progress());
        Ok(trained.await?)
    }
}
