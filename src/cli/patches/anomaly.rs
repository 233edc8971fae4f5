//! `dinoserve anomaly SOURCE… --good DIR -o DIR`.

use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::{ArgGroup, Args};

use super::{
    Made, make_all, read,
    training::{check_model, find_all, read_owned},
};
use crate::{
    cli::{
        executor::block_on,
        flags::{MapFlags, names},
        output::write_file,
        progress::show_progress,
    },
    error::{Error, ResultExt},
    features::{
        anomaly::{Bank, BankTokens, Detector},
        pca::Foreground,
    },
    http::AnomalyJson,
    names::plural,
    service::{
        AnomalyForms, AnomalyPicture, Augment, BankInfo, BankOptions, Decoding, Extractor,
        GalleryLimits,
    },
};

/// Score images by how much they differ from good ones, and write two files of each: `NAME.png`,
/// the image with unusual places in warm colors, and `NAME.json`, its score as of
/// `POST /v1/anomaly/{name}/score`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("bank_source").required(true).args(["good", "bank"]))]
pub(in crate::cli) struct Anomaly {
    /// Folders of images, images, `-` for a list of paths on standard input, or any other source of
    /// `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Folder to write to; files of the same names are replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Folder, or another source, of good images to learn from; ten are a good start
    #[arg(long, value_name = "SOURCE")]
    good: Option<String>,

    /// File of a bank that --save wrote, in place of good images
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["save", "tokens", "coreset", "foreground", "augment"])]
    #[arg(conflicts_with_all = ["max_patches_learned", "size", "resize", "levels"])]
    bank: Option<PathBuf>,

    /// File to keep the bank in
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Tokens that are compared: `early` shows small differences best, `all` takes four times the
    /// memory
    #[arg(long, default_value_t, value_parser = names::<BankTokens>())]
    tokens: BankTokens,

    /// Share of the patches of good images that are kept
    #[arg(long, value_name = "SHARE", default_value_t = BankOptions::default().coreset)]
    coreset: f32,

    /// Patches that take part: all, or the foreground of each image
    #[arg(long, default_value_t, value_parser = names::<Foreground>())]
    foreground: Foreground,

    /// Copies of good images that are learned, too: `rotate` for those turned by quarters
    #[arg(long, default_value_t, value_parser = names::<Augment>())]
    augment: Augment,

    /// Maximum number of patches that the bank learns; it keeps an even sample of more
    #[arg(long, value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_bank_patches)]
    max_patches_learned: usize,

    /// Write the mask of defects as an indexed PNG, as large as the photograph, in place of the
    /// drawing
    #[arg(long)]
    mask: bool,

    #[command(flatten)]
    map: MapFlags,
}

impl Anomaly {
    pub(in crate::cli) fn run(self) -> anyhow::Result<ExitCode> {
        let picture = match self.mask {
            true => AnomalyPicture::Mask,
            false => AnomalyPicture::Overlay(AnomalyPicture::OPACITY),
        };
        let forms = AnomalyForms {
            npy: false,
            picture: Some(picture),
        };
        block_on(self.map.with_extractor(async |extractor| {
            extractor.engine().ready().await?;
            let (bank, info) = self.bank(&extractor).await?;
            let mut out = std::io::stdout();
            match info.threshold {
                Some(threshold) => writeln!(
                    out,
                    "{} of {} in the bank; images above {threshold:.3} are anomalous",
                    plural(info.entries, "patch"),
                    plural(info.images, "image"),
                )?,
                None => writeln!(
                    out,
                    "{} of 1 image in the bank; give more good images for a threshold",
                    plural(info.entries, "patch"),
                )?,
            }
            if let Some(path) = &self.save {
                let file = info.encode(&bank)?;
                write_file(path, |writer| writer.write_all(&file))?;
                writeln!(out, "written to {}", path.display())?;
            }
            let detector = Arc::new(Detector::new(&bank));
            drop(bank);
            let anomalous = AtomicUsize::new(0);
            let code = make_all(&extractor, &self.sources, &self.output, async |file| {
                let content = file.read().await?;
                let detector = Arc::clone(&detector);
                let decoding = Decoding::default();
                let scored = extractor.score(detector, &info, content, decoding, forms);
                let found = scored.await?.value;
                if found.is_anomalous() == Some(true) {
                    anomalous.fetch_add(1, Ordering::Relaxed);
                }
                let json = serde_json::to_value(AnomalyJson::new(&extractor, &found));
                Ok(Made {
                    png: found
                        .png
                        .ok_or_else(|| Error::internal("nothing was drawn"))?,
                    json: json.internal("describing a score")?,
                })
            })
            .await?;
            if info.threshold.is_some() {
                writeln!(out, "{} anomalous", anomalous.load(Ordering::Relaxed))?;
            }
            Ok(code)
        }))
    }

    /// Returns the bank of a file, or makes one.
    async fn bank(&self, extractor: &Extractor) -> anyhow::Result<(Bank, BankInfo)> {
        if let Some(path) = &self.bank {
            let file = read(path).await.map_err(|error| error.about(path))?;
            let (bank, info) = BankInfo::decode(&file).map_err(|error| error.about(path))?;
            check_model(&info.model, extractor, path)?;
            return Ok((bank, info));
        }
        let good = match &self.good {
            Some(good) => std::slice::from_ref(good),
            None => &self.sources,
        };
        let files = find_all(good).await?;
        let about = |error: Error, index: usize| files[index].about(error);
        let reads = files.iter().cloned().map(read_owned).collect();
        let options = BankOptions {
            tokens: self.tokens,
            coreset: self.coreset,
            foreground: self.foreground,
            augment: self.augment,
        };
        let image = self.map.image_options();
        let max = self.max_patches_learned;
        let learned = extractor.learn_bank(reads, &image, options, max, about, show_progress());
        Ok(learned.await?)
    }
}
