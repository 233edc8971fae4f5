//! The pictures and numbers of one photograph.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    features::{
        attention::HeadChoice,
        pca::Foreground,
        render::{Colormap, Style, Upscale},
    },
    service::{
        AttentionOptions, EmbedOptions, Extractor, ImageOptions, MapFormat, PcaOptions,
        SimilarityOptions,
    },
    vision::{DecodeOptions, decode, thumbnail},
};

/// Longer side of the original on the page, in pixels.
const ORIGINAL_SIDE: usize = 720;
/// Number of values of the embedding that the page shows.
const SHOWN_VALUES: usize = 6;

/// A photograph on the page.
#[derive(Debug, Serialize)]
pub(super) struct Drawn {
    pub(super) name: String,
    /// File of the original, as large as the page shows it.
    original: String,
    /// The embedding, of length 1.
    pub(super) embedding: Vec<f32>,
    /// The first values of the embedding.
    values: Vec<String>,
    pictures: Vec<Picture>,
    heads: Vec<Head>,
    /// Mean overlap of two heads, 0 to 1.
    overlap: Option<f32>,
}

/// A picture, and the request that makes it.
#[derive(Debug, Serialize)]
struct Picture {
    file: String,
    title: &'static str,
    route: &'static str,
}

/// What one head attends to.
#[derive(Debug, Serialize)]
struct Head {
    effective_patches: f32,
    foreground: f32,
}

/// A rendering: the ending of its file's name, its title, its request, and its options.
struct Rendering {
    ending: &'static str,
    title: &'static str,
    route: &'static str,
    style: Style,
    kind: Kind,
}

enum Kind {
    Pca(Foreground),
    Attention(HeadChoice, Colormap),
    Similarity([f32; 4]),
}

const fn over(overlay: f32, upscale: Upscale) -> Style {
    Style {
        output: crate::features::render::Output::Input,
        upscale,
        overlay,
    }
}

const RENDERINGS: [Rendering; 7] = [
    Rendering {
        ending: "pca",
        title: "Parts: three principal components of the patches as colors",
        route: "/v1/pca",
        style: over(1.0, Upscale::Nearest),
        kind: Kind::Pca(Foreground::None),
    },
    Rendering {
        ending: "pca-foreground",
        title: "Parts of the foreground alone",
        route: "/v1/pca?foreground=auto",
        style: over(1.0, Upscale::Nearest),
        kind: Kind::Pca(Foreground::Auto),
    },
    Rendering {
        ending: "pca-overlay",
        title: "Parts over the photograph",
        route: "/v1/pca?upscale=bicubic&overlay=0.6",
        style: over(0.6, Upscale::Bicubic),
        kind: Kind::Pca(Foreground::None),
    },
    Rendering {
        ending: "attention",
        title: "Attention of CLS, mean of the heads",
        route: "/v1/attention?colormap=inferno",
        style: over(1.0, Upscale::Nearest),
        kind: Kind::Attention(HeadChoice::Mean, Colormap::Inferno),
    },
    Rendering {
        ending: "attention-overlay",
        title: "Attention over the photograph",
        route: "/v1/attention?upscale=bicubic&overlay=0.6",
        style: over(0.6, Upscale::Bicubic),
        kind: Kind::Attention(HeadChoice::Mean, Colormap::Viridis),
    },
    Rendering {
        ending: "similarity",
        title: "Similarity to the patches in the frame",
        route: "/v1/similarity?box=0.45,0.35,0.55,0.45&overlay=0.7",
        style: over(0.7, Upscale::Nearest),
        kind: Kind::Similarity([0.45, 0.35, 0.55, 0.45]),
    },
    Rendering {
        ending: "attention-heads",
        title: "Attention of each head",
        route: "/v1/attention?head=all&overlay=0.7",
        style: over(0.7, Upscale::Nearest),
        kind: Kind::Attention(HeadChoice::All, Colormap::Viridis),
    },
];

/// Computes everything about a photograph. Returns it with the files of its pictures.
pub(super) async fn draw(
    extractor: &Extractor,
    name: &str,
    file: Bytes,
) -> Result<(Drawn, Vec<(String, Vec<u8>)>)> {
    let image = ImageOptions::default();
    let options = EmbedOptions::default();
    let embedded = extractor.embed(vec![file.clone()], &image, &options);
    let embedding = first(embedded.await?.value)??.vector;
    let stats = extractor.head_stats(vec![file.clone()], &image).await?;
    let stats = first(stats.value)?.stats;

    let decoded = decode(&file, DecodeOptions::default(), extractor.limits().decode)?;
    let original = format!("{name}-original.jpg");
    let mut files = vec![(original.clone(), thumbnail(&decoded, ORIGINAL_SIDE)?)];
    drop(decoded);
    let mut pictures = Vec::with_capacity(RENDERINGS.len());
    for rendering in &RENDERINGS {
        let picture = Picture {
            file: format!("{name}-{}.png", rendering.ending),
            title: rendering.title,
            route: rendering.route,
        };
        let png = rendering.png(extractor, file.clone(), &image).await?;
        files.push((picture.file.clone(), png));
        pictures.push(picture);
    }
    let heads = stats.effective_patches.iter().zip(&stats.foreground);
    let drawn = Drawn {
        name: name.to_owned(),
        original,
        values: embedding
            .iter()
            .take(SHOWN_VALUES)
            .map(|value| format!("{value:.4}"))
            .collect(),
        embedding,
        pictures,
        heads: heads
            .map(|(&effective_patches, &foreground)| Head {
                effective_patches,
                foreground,
            })
            .collect(),
        overlap: stats.mean_overlap(),
    };
    Ok((drawn, files))
}

impl Rendering {
    async fn png(
        &self,
        extractor: &Extractor,
        file: Bytes,
        image: &ImageOptions,
    ) -> Result<Vec<u8>> {
        let format = MapFormat::SinglePng(self.style);
        let files = vec![file];
        let pngs = match self.kind {
            Kind::Pca(foreground) => {
                let options = PcaOptions {
                    foreground,
                    ..PcaOptions::default()
                };
                let pca = extractor.pca(files, image, &options, None, format);
                pca.await?.value.pngs
            }
            Kind::Attention(head, colormap) => {
                let options = AttentionOptions {
                    head: Some(head),
                    colormap,
                    ..AttentionOptions::default()
                };
                let attention = extractor.attention(files, image, options, format);
                attention.await?.value.pngs
            }
            Kind::Similarity(sides) => {
                let options = SimilarityOptions {
                    region: Some(sides),
                    ..SimilarityOptions::default()
                };
                let similarity = extractor.similarity(files, image, options, format);
                similarity.await?.value.pngs
            }
        };
        first(pngs)
    }
}

/// Returns the only value of an answer about one photograph.
fn first<T>(values: Vec<T>) -> Result<T> {
    let mut values = values.into_iter();
    values
        .next()
        .ok_or_else(|| Error::internal("an answer about one image is empty"))
}
