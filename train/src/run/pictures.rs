//! Pictures of a run: curves of what was measured, and maps in which objects emerge.

use std::path::Path;

use anyhow::{Context, anyhow};
use burn::tensor::{Device, Tensor};
use dinoserve::{
    features::{
        attention,
        pca::{self, Foreground},
        render::{self, Colormap, Output, Style, Upscale},
    },
    vision::{Grid, PATCH, RgbImage},
};
use ndarray::Array2;
use plotters::{coord::Shift, prelude::*};

use super::{Metrics, evaluate::on_device, files};
use crate::model::Backbone;

const GREY: RGBColor = RGBColor(80, 80, 80);
const PALE: RGBColor = RGBColor(160, 160, 160);
const BLUE: RGBColor = RGBColor(33, 113, 181);
const ORANGE: RGBColor = RGBColor(217, 95, 14);
/// Width of a panel, and height of all.
const PANEL: (u32, u32) = (420, 340);
/// Points that a curve is averaged over, at most this share of them.
const SMOOTHED: usize = 40;
/// Least side in pixels of a picture on a sheet; smaller ones are enlarged.
const SHEET_SIDE: u32 = 224;

/// A curve, or with two points a line to compare with.
struct Curve {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Draws the loss, the teacher's entropies and, if it was measured, the k-NN accuracy over the
/// epochs.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn curves(path: &Path, metrics: &Metrics, prototypes: usize) -> anyhow::Result<()> {
    let last = metrics.steps.last().map(|line| line.epoch).unwrap_or(0.0);
    let last = metrics
        .knn
        .last()
        .map_or(last, |line| line.epoch.max(last))
        .max(1e-3);
    let of = |name: &str, color, value: &dyn Fn(&super::StepLine) -> f64| Curve {
        name: name.to_owned(),
        color,
        points: smoothed(
            metrics
                .steps
                .iter()
                .map(|line| (line.epoch, value(line)))
                .collect(),
        ),
    };
    let level = |name: String, color, height: f64| Curve {
        name,
        color,
        points: vec![(0.0, height), (last, height)],
    };
    let mut panels = vec![
        ("Loss", vec![of("loss", BLUE, &|line| line.loss)]),
        (
            "Entropy of the teacher, nats",
            vec![
                of("of a target", BLUE, &|line| line.teacher_entropy),
                of("of their mean: prototypes in use", ORANGE, &|line| {
                    line.usage_entropy
                }),
                level(
                    "most there can be".to_owned(),
                    PALE,
                    (prototypes as f64).ln(),
                ),
            ],
        ),
    ];
    if let Some(first) = metrics.knn.first() {
        let points = metrics
            .knn
            .iter()
            .map(|line| (line.epoch, 100.0 * line.knn))
            .collect();
        let mut lines = vec![Curve {
            name: "teacher".to_owned(),
            color: BLUE,
            points,
        }];
        lines.push(level(
            format!("before training: {:.1}", 100.0 * first.knn),
            PALE,
            100.0 * first.knn,
        ));
        if let Some(pixels) = first.knn_of_pixels {
            lines.push(level(
                format!("pixels: {:.1}", 100.0 * pixels),
                ORANGE,
                100.0 * pixels,
            ));
        }
        panels.push(("k-NN accuracy, %", lines));
    }

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (PANEL.0 * panels.len() as u32, PANEL.1))
            .into_drawing_area();
        root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        for (area, (title, lines)) in root.split_evenly((1, panels.len())).iter().zip(&panels) {
            panel(area, title, lines, last)
                .map_err(|error| anyhow!("drawing the curves: {error}"))?;
        }
        root.present().map_err(|error| anyhow!("{error}"))?;
    }
    files::write(path, svg.as_bytes())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    curves: &[Curve],
    last: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let values = || {
        curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|point| point.1))
            .filter(|v| v.is_finite())
    };
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = (0.06 * (high - low)).max(0.01 * high.abs()).max(1e-6);
    // Room above for the legend.
    let top = high + margin + 0.12 * curves.len() as f64 * (high - low).max(margin);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17).into_font().color(&GREY))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..last, (low - margin)..top)?;
    chart
        .configure_mesh()
        .x_desc("epochs")
        .x_labels(6)
        .y_labels(6)
        .light_line_style(WHITE.mix(0.0))
        .label_style(("sans-serif", 12))
        .draw()?;
    for curve in curves {
        let style = curve.color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.clone(), style))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    if curves.len() > 1 {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", 12))
            .position(SeriesLabelPosition::UpperRight)
            .draw()?;
    }
    Ok(())
}

/// The running mean of a long curve; at its beginning, that of what there is.
fn smoothed(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let window = (points.len() / 20).clamp(1, SMOOTHED);
    let mean = |index: usize| {
        let some = &points[(index + 1).saturating_sub(window)..=index];
        some.iter().map(|point| point.1).sum::<f64>() / some.len() as f64
    };
    points
        .iter()
        .enumerate()
        .map(|(index, point)| (point.0, mean(index)))
        .collect()
}

/// A sheet of some images as the teacher sees them: each beside where CLS looks (mean of the heads)
/// and the first three components of its patches, in a basis that all share. `images` are of one
/// size.
///
/// # Errors
/// If there are too few patches for components, or the file cannot be written.
pub(super) fn maps(
    path: &Path,
    backbone: &Backbone,
    images: &[RgbImage],
    device: &Device,
) -> anyhow::Result<()> {
    let Some(first) = images.first() else {
        return Ok(());
    };
    let grid = Grid {
        height: first.height() as usize / PATCH,
        width: first.width() as usize / PATCH,
    };
    let mut tokens = Vec::new();
    let mut attention = Vec::new();
    for image in images {
        let found = backbone.forward(
            on_device(std::slice::from_ref(image), device),
            None,
            &mut None,
        );
        let registers = found
            .registers
            .as_ref()
            .map_or(0, |registers| registers.dims()[1]);
        tokens.push(host(found.patches.squeeze_dim::<2>(0))?);
        let rows = host(found.attention.squeeze_dim::<2>(0))?;
        attention.push(attention::mean(attention::patch_columns(
            rows.view(),
            registers,
        )));
    }
    let views: Vec<_> = tokens.iter().map(|tokens| tokens.view()).collect();
    let components = pca::maps(&views, &[], 3, Foreground::None)?;
    let style = Style {
        output: Output::Input,
        upscale: Upscale::Bilinear,
        overlay: 1.0,
    };
    let mut pictures = Vec::new();
    for ((image, looked), colors) in images.iter().zip(&attention).zip(&components.maps) {
        let looked = attention::min_max(looked.view());
        let colors: Vec<f32> = colors.iter().copied().collect();
        pictures.push(image.clone());
        pictures.push(render::draw(
            &looked,
            1,
            grid,
            image,
            style,
            Colormap::Viridis,
        ));
        pictures.push(render::draw(
            &colors,
            3,
            grid,
            image,
            style,
            Colormap::Viridis,
        ));
    }
    let sheet = sheet(&pictures);
    files::write(path, &render::png(&sheet)?)
}

fn host(tensor: Tensor<2>) -> anyhow::Result<Array2<f32>> {
    let [rows, columns] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().try_into_vec_as().context("the tokens")?;
    Ok(Array2::from_shape_vec((rows, columns), values)?)
}

/// Triples side by side, two in a row: image, attention, components.
fn sheet(pictures: &[RgbImage]) -> RgbImage {
    const GAP: u32 = 8;
    const ACROSS: u32 = 6;
    let (width, height) = pictures[0].dimensions();
    let zoom = SHEET_SIDE.div_ceil(width).max(1);
    let (width, height) = (width * zoom, height * zoom);
    let columns = ACROSS.min(pictures.len() as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (width + GAP) + GAP,
        rows * (height + GAP) + GAP,
        image::Rgb([255; 3]),
    );
    for (index, picture) in pictures.iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        let large =
            image::imageops::resize(picture, width, height, image::imageops::FilterType::Nearest);
        image::imageops::replace(
            &mut sheet,
            &large,
            (GAP + column * (width + GAP)).into(),
            (GAP + row * (height + GAP)).into(),
        );
    }
    sheet
}
