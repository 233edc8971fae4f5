//! `dinoserve objects SOURCE… -o DIR`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Made, make_all};
use crate::{
    cli::{
        executor::block_on,
        flags::{MapFlags, names},
    },
    error::{Error, ResultExt},
    features::objects::{Method, Refine},
    http::ObjectsJson,
    service::{ObjectForms, ObjectOptions, ObjectPicture},
};

/// Find the objects of images without labels, and write two files of each image: `NAME.png`, the
/// image with the objects in colors, and `NAME.json`, their masks as of `POST /v1/objects`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Objects {
    /// Folders of images, images, `-` for a list of paths on standard input, or any other source of
    /// `dinoserve embed`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Folder to write to; files of the same names are replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Way to find objects: cuts of the graph of alike patches, or the patches with the most
    /// attention
    #[arg(long, default_value_t, value_parser = names::<Method>())]
    method: Method,

    /// Maximum number of objects of an image
    #[arg(long, value_name = "COUNT", default_value_t = ObjectOptions::default().max_objects)]
    max_objects: usize,

    /// Cosine above which patches are alike, or share of the attention to keep [default: 0, or 0.6]
    #[arg(long, allow_negative_numbers = true)]
    threshold: Option<f32>,

    /// Edges of objects: those of the photograph, or those of patches
    #[arg(long, default_value_t, value_parser = names::<Refine>())]
    refine: Refine,

    /// Write the mask as an indexed PNG, as large as the photograph, in place of the drawing
    #[arg(long)]
    mask: bool,

    #[command(flatten)]
    map: MapFlags,
}

impl Objects {
    pub(in crate::cli) fn run(self) -> anyhow::Result<ExitCode> {
        let image = self.map.image_options();
        let options = ObjectOptions {
            method: self.method,
            max_objects: self.max_objects,
            threshold: self.threshold,
            refine: self.refine,
        };
        let picture = match self.mask {
            true => ObjectPicture::Mask,
            false => ObjectPicture::Overlay(ObjectPicture::OPACITY),
        };
        let forms = ObjectForms {
            descriptions: true,
            npy: false,
            picture: Some(picture),
        };
        block_on(self.map.with_extractor(async |extractor| {
            make_all(&extractor, &self.sources, &self.output, async |file| {
                let content = file.read().await?;
                let found = extractor.objects(content, &image, options, forms).await?;
                let size = extractor.map_sizes(&image).of(found.value.grid);
                let json = serde_json::to_value(ObjectsJson::new(&extractor, &found.value, size));
                let png = found.value.png;
                Ok(Made {
                    png: png.ok_or_else(|| Error::internal("nothing was drawn"))?,
                    json: json.internal("describing objects")?,
                })
            })
            .await
        }))
    }
}
