//! Draws attention and PCA maps of a few images, in which objects emerge.

use std::path::Path;

use anyhow::Context;
use burn::tensor::{Device, Tensor};
use dinoserve::{
    features::{
        attention,
        pca::{self, Foreground},
        render::{self, Colormap, Output, Style, Upscale},
    },
    vision::{RgbImage, Size},
};
use image::imageops::{FilterType, replace, resize};
use ndarray::Array2;

use super::{evaluate::to_device, files};
use crate::model::Backbone;

/// Smallest side of a rendering on the sheet in pixels; smaller ones are enlarged.
const MIN_SIDE: u32 = 224;
/// Gap between renderings in pixels.
const GAP: u32 = 8;
/// Number of renderings in a row of the sheet.
const COLUMNS: u32 = 6;

/// Draws a sheet of images of one size. Next to each image are the attention of CLS (mean of the
/// heads) and the first three principal components of its patches, in a basis that all images
/// share.
pub(super) fn draw(
    path: &Path,
    backbone: &Backbone,
    images: &[RgbImage],
    device: &Device,
) -> anyhow::Result<()> {
    let Some(first) = images.first() else {
        return Ok(());
    };
    let grid = backbone.architecture().patch.grid(Size::of(first));
    let mut patches = Vec::new();
    let mut attention_maps = Vec::new();
    for image in images {
        let input = to_device(std::slice::from_ref(image), device);
        let tokens = backbone.forward(input, None, &mut None);
        let registers = tokens
            .registers
            .as_ref()
            .map_or(0, |registers| registers.dims()[1]);
        patches.push(to_host(tokens.patches.squeeze_dim::<2>(0))?);
        let rows = to_host(tokens.attention.squeeze_dim::<2>(0))?;
        let columns = attention::patch_columns(rows.view(), registers);
        attention_maps.push(attention::mean(columns));
    }
    let views: Vec<_> = patches.iter().map(|patches| patches.view()).collect();
    let components = pca::maps(&views, &[], 3, Foreground::None)?;
    let style = Style {
        output: Output::Input,
        upscale: Upscale::Bilinear,
        overlay: 1.0,
    };
    let mut renderings = Vec::new();
    for ((image, attention), components) in images.iter().zip(&attention_maps).zip(&components.maps)
    {
        let attention = attention::min_max(attention.view());
        let components: Vec<f32> = components.iter().copied().collect();
        renderings.push(image.clone());
        for (values, channels) in [(&attention, 1), (&components, 3)] {
            let map = render::draw(values, channels, grid, image, style, Colormap::Viridis);
            renderings.push(map);
        }
    }
    files::write(path, &render::png(&sheet(&renderings))?)
}

fn to_host(tensor: Tensor<2>) -> anyhow::Result<Array2<f32>> {
    let [rows, columns] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().try_into_vec_as().context("the tokens")?;
    Ok(Array2::from_shape_vec((rows, columns), values)?)
}

/// Arranges triples of image, attention and components, two in a row.
fn sheet(renderings: &[RgbImage]) -> RgbImage {
    let (width, height) = renderings[0].dimensions();
    let zoom = MIN_SIDE.div_ceil(width).max(1);
    let width = width * zoom;
    let height = height * zoom;
    let columns = COLUMNS.min(renderings.len() as u32);
    let rows = (renderings.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (width + GAP) + GAP,
        rows * (height + GAP) + GAP,
        image::Rgb([255; 3]),
    );
    for (index, rendering) in (0..).zip(renderings) {
        let large = resize(rendering, width, height, FilterType::Nearest);
        let x = GAP + index % columns * (width + GAP);
        let y = GAP + index / columns * (height + GAP);
        replace(&mut sheet, &large, x.into(), y.into());
    }
    sheet
}
