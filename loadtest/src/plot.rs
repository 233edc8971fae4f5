//! Draws latency and throughput against the size of the model's input.

use anyhow::anyhow;
use plotters::prelude::*;

/// A line of a chart.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Sizes in pixels, and the values there.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            points: Vec::new(),
        }
    }
}

const GRAY: RGBColor = RGBColor(80, 80, 80);
const COLORS: [RGBColor; 4] = [
    RGBColor(33, 113, 181),
    RGBColor(217, 95, 14),
    RGBColor(49, 163, 84),
    RGBColor(117, 107, 177),
];

/// Draws two charts side by side to an SVG file: milliseconds of one image, and images per second.
pub(crate) fn by_size(
    path: &std::path::Path,
    latency: &[Line],
    throughput: &[Line],
) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, (1000, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (left, right) = root.split_horizontally(500);
    chart(&left, "One image, ms (p50 over HTTP)", latency).map_err(|error| anyhow!("{error}"))?;
    chart(&right, "Images/s (16 clients)", throughput).map_err(|error| anyhow!("{error}"))?;
    root.present().map_err(|error| anyhow!("{error}"))
}

fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point.1))
    };
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18).into_font().color(&GRAY))
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(54)
        .build_cartesian_2d(
            (200.0..920.0_f64).log_scale(),
            (low / 1.4..high * 1.6).log_scale(),
        )?;
    let sizes: Vec<f64> = lines
        .first()
        .map(|line| line.points.iter().map(|point| point.0).collect())
        .unwrap_or_default();
    chart
        .configure_mesh()
        .x_desc("side in pixels")
        .x_labels(sizes.len())
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|&value| rounded(value))
        .light_line_style(WHITE.mix(0.0))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS) {
        chart
            .draw_series(LineSeries::new(line.points.clone(), color.stroke_width(2)).point_size(4))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(line.points.iter().map(|&(size, value)| {
            Text::new(
                rounded(value),
                (size, value * 1.08),
                ("sans-serif", 12).into_font().color(&color),
            )
        }))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .position(SeriesLabelPosition::UpperMiddle)
        .draw()?;
    Ok(())
}

fn rounded(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}
