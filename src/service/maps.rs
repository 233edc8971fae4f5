//! PCA maps and attention maps, as numbers and as pictures.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ndarray::{Array2, ArrayView2};
use serde::Deserialize;

use super::{
    ImageOptions, Service, Stages,
    images::{CachedFeatures, Inference},
};
use crate::{
    engine::{Features, RequestedOutputs},
    error::{Error, Result},
    features::{
        attention::{self, HeadChoice},
        pca::{self, Foreground, PcaMaps},
        render::{self, Colormap, Output, Style, Upscale},
    },
    gallery::GalleryName,
    vision::{Grid, RgbImage},
};

/// In which form maps are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// As numbers only.
    Numbers,
    /// As one PNG; several images stand side by side.
    Picture(Rendering),
    /// As one PNG per image.
    Pictures(Rendering),
}

impl Form {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Numbers => Ok(()),
            Self::Picture(rendering) | Self::Pictures(rendering) => {
                share("overlay", rendering.overlay)
            }
        }
    }

    /// The PNG files of what `draw` draws; a strip has at most `max_pixels`.
    pub(super) fn encode(
        &self,
        max_pixels: u64,
        draw: impl FnOnce(&Rendering) -> Result<Vec<RgbImage>>,
    ) -> Result<Vec<Vec<u8>>> {
        match self {
            Self::Numbers => Ok(Vec::new()),
            Self::Pictures(rendering) => draw(rendering)?.iter().map(render::png).collect(),
            Self::Picture(rendering) => match draw(rendering)?.as_slice() {
                [one] => Ok(vec![render::png(one)?]),
                several => Ok(vec![render::png(&render::strip(several, max_pixels)?)?]),
            },
        }
    }
}

/// How maps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rendering {
    /// Size of the picture.
    pub output: Output,
    /// The way from patches to pixels.
    pub upscale: Upscale,
    /// Opacity of the map over the photograph.
    pub overlay: f32,
}

impl Default for Rendering {
    fn default() -> Self {
        Self {
            output: Output::Input,
            upscale: Upscale::Nearest,
            overlay: 1.0,
        }
    }
}

impl Rendering {
    pub(super) fn style(&self) -> Style {
        Style {
            output: self.output,
            upscale: self.upscale,
            overlay: self.overlay,
        }
    }
}

fn share(name: &str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::option(
        name,
        format!("{value} is out of range; it must be 0 to 1"),
    ))
}

/// What PCA is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PcaOptions {
    /// How many components; [`PCA_COMPONENTS`], or all that a basis has if these are fewer.
    pub components: Option<usize>,
    /// Which patches take part.
    pub foreground: Foreground,
    /// A basis that was kept, in place of one that is fitted on the images.
    pub basis: Option<GalleryName>,
}

/// As many as a picture has colors.
pub const PCA_COMPONENTS: usize = 3;

/// PCA maps of the images of one request, in one joint basis.
#[derive(Debug)]
pub struct PcaAnswer {
    /// The maps.
    pub pca: PcaMaps,
    /// Grid of each image.
    pub grids: Vec<Grid>,
}

impl PcaAnswer {
    fn draw(&self, views: &[Arc<CachedFeatures>], rendering: &Rendering) -> Result<Vec<RgbImage>> {
        let maps = self.pca.maps.iter().zip(&self.grids).zip(views);
        maps.map(|((map, &grid), view)| {
            // A picture shows three components at most, and a single one as a shade of grey.
            let shown = map.slice(ndarray::s![.., ..map.ncols().min(3)]);
            let values: Vec<f32> = shown.iter().copied().collect();
            Ok(render::draw(
                &values,
                shown.ncols(),
                grid,
                photo(view)?,
                rendering.style(),
                Colormap::Gray,
            ))
        })
        .collect()
    }
}

/// What attention maps are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct AttentionOptions {
    /// Which heads; by default the mean as a picture and every head as numbers.
    pub head: Option<HeadChoice>,
    /// Keep only the patches that carry this share of the attention.
    pub threshold: Option<f32>,
    /// Colors of the picture.
    pub colormap: Colormap,
}

/// Attention maps of one image.
#[derive(Debug)]
pub struct AttentionMaps {
    /// `[maps, patches]`: raw softmax values; those below the threshold are 0.
    pub maps: Array2<f32>,
    /// The image's grid.
    pub grid: Grid,
}

impl AttentionMaps {
    /// One map, or all heads in a labeled grid. Each is scaled to its own range.
    fn draw(
        &self,
        photo: &RgbImage,
        options: &AttentionOptions,
        rendering: &Rendering,
    ) -> RgbImage {
        let draw = |map: ndarray::ArrayView1<'_, f32>| {
            render::draw(
                &attention::min_max(map),
                1,
                self.grid,
                photo,
                rendering.style(),
                options.colormap,
            )
        };
        if self.maps.nrows() == 1 {
            return draw(self.maps.row(0));
        }
        let labeled: Vec<(String, RgbImage)> = self
            .maps
            .rows()
            .into_iter()
            .enumerate()
            .map(|(head, map)| (format!("head {head}"), draw(map)))
            .collect();
        render::labeled_grid(&labeled)
    }
}

impl Service {
    /// PCA maps in one joint basis over all images, or in one that was kept, and the PNG files that
    /// `form` asks for.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index; [`crate::error::Kind::InvalidOption`] for
    /// a bad option; as [`Service::basis`], and [`crate::error::Kind::Conflict`] for a basis of
    /// another model.
    pub async fn pca(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: PcaOptions,
        form: Form,
    ) -> Result<(PcaAnswer, Vec<Vec<u8>>, Stages)> {
        form.check()?;
        let basis = match &options.basis {
            Some(name) => Some(self.basis_of_model(name).await?),
            None => None,
        };
        // Known before the model has seen the images.
        let most = basis.as_ref().map_or(self.engine.spec().dim, |basis| {
            basis.pca().components().nrows()
        });
        let count = options.components.unwrap_or(PCA_COMPONENTS.min(most));
        if count == 0 || count > most {
            let reason = if basis.is_some() {
                ", as many as the basis has"
            } else {
                ""
            };
            let detail = format!("{count} is out of range; it must be 1 to {most}{reason}");
            return Err(Error::option("components", detail));
        }
        let foreground = options.foreground == Foreground::Auto;
        let wanted = RequestedOutputs {
            patch_tokens: true,
            attention: foreground,
            ..RequestedOutputs::default()
        };
        let seen = self
            .see_for_maps(
                files,
                image.over(&self.engine.spec().map_preprocessing()),
                wanted,
            )
            .await?;
        let registers = self.engine.spec().registers;
        let max_pixels = self.limits.decode.max_pixels;
        let work = move |views: &[Arc<CachedFeatures>]| {
            let tokens: Vec<ArrayView2<'_, f32>> = views
                .iter()
                .map(|view| patch_tokens(&view.features))
                .collect::<Result<_>>()?;
            let of_cls = |view: &Arc<CachedFeatures>| {
                Ok(attention::mean(heads(&view.features, registers)?).to_vec())
            };
            let attention = if foreground {
                views.iter().map(of_cls).collect::<Result<_>>()?
            } else {
                Vec::new()
            };
            let pca = match &basis {
                Some(basis) => pca::maps_in(basis, &tokens, &attention, count, options.foreground)?,
                None => pca::maps(&tokens, &attention, count, options.foreground)?,
            };
            let answer = PcaAnswer {
                pca,
                grids: views.iter().map(|view| view.features.grid).collect(),
            };
            let pictures = form.encode(max_pixels, |rendering| answer.draw(views, rendering))?;
            Ok((answer, pictures))
        };
        let ((answer, pictures), stages) = finish(self, seen, work).await?;
        Ok((answer, pictures, stages))
    }

    /// Attention maps of each image, and the PNG files that `form` asks for.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index; [`crate::error::Kind::InvalidOption`] for
    /// a bad option.
    pub async fn attention(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: AttentionOptions,
        form: Form,
    ) -> Result<(Vec<AttentionMaps>, Vec<Vec<u8>>, Stages)> {
        form.check()?;
        options
            .threshold
            .map_or(Ok(()), |threshold| share("threshold", threshold))?;
        let heads_of_model = self.engine.spec().heads;
        let choice = options.head.unwrap_or(if form == Form::Numbers {
            HeadChoice::All
        } else {
            HeadChoice::Mean
        });
        if let HeadChoice::One(head) = choice
            && head >= heads_of_model
        {
            let detail = format!(
                "the model has no head {head}; its heads are 0 to {}",
                heads_of_model - 1
            );
            return Err(Error::option("head", detail));
        }
        let wanted = RequestedOutputs {
            attention: true,
            ..RequestedOutputs::default()
        };
        let seen = self
            .see_for_maps(
                files,
                image.over(&self.engine.spec().map_preprocessing()),
                wanted,
            )
            .await?;
        let registers = self.engine.spec().registers;
        let max_pixels = self.limits.decode.max_pixels;
        let work = move |views: &[Arc<CachedFeatures>]| {
            let maps = |view: &Arc<CachedFeatures>| {
                let mut maps = attention::choose(heads(&view.features, registers)?, choice);
                if let Some(mass) = options.threshold {
                    maps.rows_mut()
                        .into_iter()
                        .for_each(|map| attention::keep_mass(map, mass));
                }
                Ok(AttentionMaps {
                    maps,
                    grid: view.features.grid,
                })
            };
            let answers: Vec<AttentionMaps> = views.iter().map(maps).collect::<Result<_>>()?;
            let pictures = form.encode(max_pixels, |rendering| {
                let draw = |(answer, view): (&AttentionMaps, &Arc<CachedFeatures>)| {
                    Ok(answer.draw(photo(view)?, &options, rendering))
                };
                answers.iter().zip(views).map(draw).collect()
            })?;
            Ok((answers, pictures))
        };
        let ((answers, pictures), stages) = finish(self, seen, work).await?;
        Ok((answers, pictures, stages))
    }
}

pub(super) fn patch_tokens(features: &Features) -> Result<ArrayView2<'_, f32>> {
    let tokens = features
        .patch_tokens
        .as_ref()
        .ok_or_else(|| Error::internal("patch tokens were not asked for"))?;
    Ok(tokens.view())
}

pub(super) fn heads(features: &Features, registers: usize) -> Result<ArrayView2<'_, f32>> {
    let rows = features
        .attention
        .as_ref()
        .ok_or_else(|| Error::internal("attention was not asked for"))?;
    Ok(attention::patch_columns(rows.view(), registers))
}

pub(super) fn photo(view: &CachedFeatures) -> Result<&RgbImage> {
    view.photo
        .as_ref()
        .ok_or_else(|| Error::internal("the photograph was not kept"))
}

/// Does the work that follows the model, and takes its time.
pub(super) async fn finish<T: Send + 'static>(
    service: &Service,
    seen: Vec<Inference>,
    work: impl FnOnce(&[Arc<CachedFeatures>]) -> Result<T> + Send + 'static,
) -> Result<(T, Stages)> {
    let mut stages = seen.iter().fold(Stages::default(), |stages, seen| {
        stages.longest(seen.stages)
    });
    let views: Vec<Arc<CachedFeatures>> = seen.into_iter().map(|seen| seen.view).collect();
    let started = Instant::now();
    let done = service
        .on_blocking_thread("drawing a map", move || work(&views))
        .await?;
    stages.post = started.elapsed();
    stages.observe();
    Ok((done, stages))
}
