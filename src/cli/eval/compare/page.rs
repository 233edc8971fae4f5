//! The report as one HTML page, which holds its pictures and needs no network.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;

use super::{
    comparison::Comparison,
    examples::{Example, spread},
};
use crate::{
    cli::{
        eval::datasets::Datasets,
        executor::block_on,
        flags::RunFlags,
        progress::{Progress, Unit},
    },
    error::Error,
    features::render::Style,
    service::{AttentionOptions, Extractor, ImageOptions, MapFormat, PcaOptions},
    sources::SourceImage,
    vision::{DecodeLimits, DecodeOptions, decode, thumbnail},
};

const TEMPLATE: &str = include_str!("page.html");
/// Longer side of a picture on the page, in pixels.
const PICTURE_SIDE: usize = 128;
/// Number of neighbors that are shown of each picture.
const SHOWN_NEIGHBORS: usize = 5;
/// Maximum number of pictures with maps.
const MAPPED_PICTURES: usize = 8;
/// Shorter side of the image that maps are made of, in pixels.
const MAP_SIZE: usize = 224;

/// Two models and the pictures that only one of them gets right.
#[derive(Serialize)]
struct PairPictures<'a> {
    first: &'a str,
    second: &'a str,
    only_first: Vec<Picture<'a>>,
    only_second: Vec<Picture<'a>>,
}

/// A test image, and why two models decide as they do.
#[derive(Serialize)]
struct Picture<'a> {
    id: &'a str,
    label: &'a str,
    image: String,
    decisions: Vec<Decision<'a>>,
}

/// The class that a model finds, and the neighbors that decide.
#[derive(Serialize)]
struct Decision<'a> {
    model: &'a str,
    predicted: Option<&'a str>,
    is_right: bool,
    neighbors: Vec<NeighborPicture<'a>>,
}

#[derive(Serialize)]
struct NeighborPicture<'a> {
    id: &'a str,
    label: &'a str,
    score: f32,
    is_right: bool,
    image: String,
}

/// A test image with the maps of every model.
#[derive(Serialize)]
struct MappedPicture<'a> {
    id: &'a str,
    label: &'a str,
    image: String,
    maps: Vec<Maps>,
}

#[derive(Serialize)]
struct Maps {
    pca: String,
    attention: String,
}

/// Pictures as `data:` URIs, each read once.
struct Pictures {
    limits: DecodeLimits,
    known: BTreeMap<String, String>,
}

impl Pictures {
    fn uri(&mut self, source: &SourceImage) -> anyhow::Result<String> {
        if let Some(uri) = self.known.get(&source.origin) {
            return Ok(uri.clone());
        }
        let file = block_on(async { Ok(source.read().await?) })?;
        let options = DecodeOptions::default();
        let image = decode(&file, options, self.limits).map_err(|error| source.about(error))?;
        let uri = data_uri("image/jpeg", &thumbnail(&image, PICTURE_SIDE)?);
        self.known.insert(source.origin.clone(), uri.clone());
        Ok(uri)
    }
}

fn data_uri(kind: &str, file: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(file))
}

/// Returns the page.
pub(super) fn render(
    run: &RunFlags,
    comparison: &Comparison<'_>,
    datasets: &Datasets,
    examples: &[Example],
) -> anyhow::Result<String> {
    let mut pictures = Pictures {
        limits: run.limits().decode,
        known: BTreeMap::new(),
    };
    let mut pairs = Vec::with_capacity(examples.len());
    for example in examples {
        let [first, second] = example.models.map(|model| &comparison.models[model]);
        let mut sides = [Vec::new(), Vec::new()];
        for (side, images) in sides.iter_mut().zip(&example.images) {
            for &image in images {
                side.push(picture(
                    comparison,
                    datasets,
                    example,
                    image,
                    &mut pictures,
                )?);
            }
        }
        let [only_first, only_second] = sides;
        pairs.push(PairPictures {
            first: &first.model,
            second: &second.model,
            only_first,
            only_second,
        });
    }
    let mapped = mapped_images(datasets, examples);
    let maps = draw_maps(run, comparison, datasets, &mapped)?;
    let mut mapped_pictures = Vec::with_capacity(mapped.len());
    for (&image, maps) in mapped.iter().zip(maps) {
        let test = &datasets.test;
        mapped_pictures.push(MappedPicture {
            id: &test.vectors.ids[image],
            label: &test.vectors.labels[image],
            image: pictures.uri(&test.sources[image])?,
            maps,
        });
    }
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("fixed", |value: f64, digits: usize| {
        format!("{value:.digits$}")
    });
    // As the user wrote it, without the digits that f32 adds.
    environment.add_filter("single", |value: f64| (value as f32).to_string());
    environment.add_filter("p", |value: f64| match value {
        value if value < 0.001 => format!("{value:.1e}"),
        value => format!("{value:.3}"),
    });
    environment
        .render_str(
            TEMPLATE,
            context! { comparison, pairs, mapped => mapped_pictures },
        )
        .map_err(|error| Error::internal(format!("the page of the report: {error:#}")).into())
}

fn picture<'a>(
    comparison: &'a Comparison<'_>,
    datasets: &'a Datasets,
    example: &Example,
    image: usize,
    pictures: &mut Pictures,
) -> anyhow::Result<Picture<'a>> {
    let (train, test) = (&datasets.train, &datasets.test);
    let label = &test.vectors.labels[image];
    let mut decisions = Vec::with_capacity(2);
    for model in example.models.map(|model| &comparison.models[model]) {
        let outcome = &model.outcomes[0];
        let mut neighbors = Vec::with_capacity(SHOWN_NEIGHBORS);
        for near in model.neighbors[image].iter().take(SHOWN_NEIGHBORS) {
            let of_neighbor = &train.vectors.labels[near.index];
            neighbors.push(NeighborPicture {
                id: &train.vectors.ids[near.index],
                label: of_neighbor,
                score: near.score,
                is_right: of_neighbor == label,
                image: pictures.uri(&train.sources[near.index])?,
            });
        }
        let predicted = outcome.predicted[image];
        decisions.push(Decision {
            model: &model.model,
            predicted: predicted.map(|class| datasets.classes[class].as_str()),
            is_right: outcome.is_right[image],
            neighbors,
        });
    }
    Ok(Picture {
        id: &test.vectors.ids[image],
        label,
        image: pictures.uri(&test.sources[image])?,
        decisions,
    })
}

/// Returns the test images whose maps are shown: of the examples, or any if there are none.
fn mapped_images(datasets: &Datasets, examples: &[Example]) -> Vec<usize> {
    let sides = examples.iter().flat_map(|example| &example.images);
    let mut images: Vec<usize> = sides.flatten().copied().collect();
    images.sort_unstable();
    images.dedup();
    if images.is_empty() {
        images = (0..datasets.test.vectors.ids.len()).collect();
    }
    spread(images, MAPPED_PICTURES)
}

/// Draws the maps of each image by each model.
fn draw_maps(
    run: &RunFlags,
    comparison: &Comparison<'_>,
    datasets: &Datasets,
    images: &[usize],
) -> anyhow::Result<Vec<Vec<Maps>>> {
    let mut maps: Vec<Vec<Maps>> = images.iter().map(|_| Vec::new()).collect();
    let mut progress = Progress::new(Unit::Items);
    let total = (images.len() * comparison.models.len()) as u64;
    let mut done = 0;
    for model in comparison.models {
        block_on(run.with_extractor(&model.model, async |extractor| {
            extractor.engine().ready().await?;
            for (&image, maps) in images.iter().zip(&mut maps) {
                progress.show("drawing maps", done, Some(total));
                let file = datasets.test.sources[image].read().await?;
                let options = run.vector.image_options();
                maps.push(draw(&extractor, file, options).await?);
                done += 1;
            }
            Ok(())
        }))?;
    }
    Ok(maps)
}

/// Draws the maps of an image, prepared as the user wants, but in the size of the page.
async fn draw(
    extractor: &Extractor,
    file: Bytes,
    mut options: ImageOptions,
) -> anyhow::Result<Maps> {
    options.overrides.size = Some(MAP_SIZE);
    let format = MapFormat::SinglePng(Style::default());
    let files = vec![file];
    let parts = PcaOptions::default();
    let pca = extractor.pca(files.clone(), &options, &parts, None, format);
    let pca = pca.await?.value.pngs;
    let attention = extractor.attention(files, &options, AttentionOptions::default(), format);
    let attention = attention.await?.value.pngs;
    let uri = |pngs: Vec<Vec<u8>>| {
        let png = pngs
            .first()
            .ok_or_else(|| Error::internal("nothing was drawn"));
        png.map(|png| data_uri("image/png", png))
    };
    Ok(Maps {
        pca: uri(pca)?,
        attention: uri(attention)?,
    })
}
