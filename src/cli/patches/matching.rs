//! `dinoserve match IMAGE SOURCE… -o DIR`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Made, make_all, read};
use crate::{
    cli::{
        executor::block_on,
        flags::{MapFlags, names},
    },
    error::{Error, ResultExt},
    features::{
        matching::{Geometry, Level},
        pca::Foreground,
    },
    http::MatchesJson,
    service::MatchOptions,
};

/// Match an image with others, and write two files of each: `NAME.png`, both images with lines
/// between places that correspond, and `NAME.json`, the matches as of `POST /v1/match`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Match {
    /// Image that the others are matched with
    #[arg(value_name = "IMAGE")]
    first: PathBuf,

    /// Folders of images, images, `-` for a list of paths on standard input, or any other source of
    /// `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    others: Vec<String>,

    /// Folder to write to; files of the same names are replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Tokens that are compared: `early` for one scene, `last` for different objects of a kind
    #[arg(long, default_value_t, value_parser = names::<Level>())]
    tokens: Level,

    /// Minimum cosine similarity of a match
    #[arg(
        long,
        value_name = "COSINE",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    min_score: f32,

    /// Maximum quotient of the distances to the best patch and to the second best [default: 0.9, or
    /// 1 with --tokens last]
    #[arg(long)]
    ratio: Option<f32>,

    /// Minimum number of the eight patches around whose matches move alike [default: 3, or 0 with
    /// --tokens last]
    #[arg(long, value_name = "COUNT")]
    support: Option<usize>,

    /// Patches that take part: all, or the foreground of both images
    #[arg(long, default_value_t, value_parser = names::<Foreground>())]
    foreground: Foreground,

    /// Leave points in the centers of patches
    #[arg(long)]
    no_subpixel: bool,

    /// Transform that the matches are checked with
    #[arg(long, default_value_t, value_parser = names::<Geometry>())]
    geometry: Geometry,

    /// Maximum number of matches; the most similar are kept
    #[arg(long, value_name = "COUNT")]
    max: Option<usize>,

    #[command(flatten)]
    map: MapFlags,
}

impl Match {
    pub(in crate::cli) fn run(self) -> anyhow::Result<ExitCode> {
        let image = self.map.image_options();
        let options = MatchOptions {
            tokens: self.tokens,
            min_score: self.min_score,
            ratio: self.ratio,
            support: self.support,
            subpixel: !self.no_subpixel,
            foreground: self.foreground,
            geometry: self.geometry,
            max: self.max,
        };
        block_on(self.map.with_extractor(async |extractor| {
            let first = read(&self.first).await;
            let first = first.map_err(|error| error.about(&self.first))?;
            extractor.engine().ready().await?;
            // An error is then not one of each other image.
            let same = [first.clone(), first.clone()];
            let checked = extractor.match_images(same, &image, options, true).await;
            checked.map_err(|error| error.about(&self.first))?;
            make_all(&extractor, &self.others, &self.output, async |file| {
                let files = [first.clone(), file.read().await?];
                let found = extractor.match_images(files, &image, options, true).await?;
                let sizes = extractor.map_sizes(&image);
                let sizes = found.value.grids.map(|grid| sizes.of(grid));
                let json = MatchesJson::new(&extractor, &found.value, options.geometry, sizes);
                let json = serde_json::to_value(json).internal("describing matches")?;
                let png = found.value.png;
                Ok(Made {
                    png: png.ok_or_else(|| Error::internal("nothing was drawn"))?,
                    json,
                })
            })
            .await
        }))
    }
}
