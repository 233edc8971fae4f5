//! Latency and throughput against the size of the image, as a picture.

use anyhow::anyhow;
use plotters::prelude::*;

/// One line of a chart.
pub(crate) struct Line {
    /// What it shows.
    pub(crate) name: String,
    /// Size in pixels, and the value there.
    pub(crate) points: Vec<(f64, f64)>,
}

const GREY: RGBColor = RGBColor(80, 80, 80);
const COLORS: [RGBColor; 4] = [
    RGBColor(33, 113, 181),
    RGBColor(217, 95, 14),
    RGBColor(49, 163, 84),
    RGBColor(117, 107, 177),
];

/// Draws two charts side by side to an SVG file: milliseconds of one image, and images a second.
pub(crate) fn by_size(
    path: &std::path::Path,
    latency: &[Line],
    throughput: &[Line],
) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, (1000, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (left, right) = root.split_horizontally(500);
    chart(&left, "One image, ms (p50 over HTTP)", latency).map_err(|error| anyhow!("{error}"))?;
    chart(&right, "Images a second (16 clients)", throughput)
        .map_err(|error| anyhow!("{error}"))?;
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
        .caption(title, ("sans-serif", 18).into_font().color(&GREY))
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
        .y_label_formatter(&|value| {
            if *value < 10.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.0}")
            }
        })
        .light_line_style(WHITE.mix(0.0))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS) {
        chart
            .draw_series(LineSeries::new(line.points.clone(), color.stroke_width(2)).point_size(4))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let labels = line.points.iter().map(|&(size, value)| {
            let text = if value < 10.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.0}")
            };
            Text::new(
                text,
                (size, value * 1.08),
                ("sans-serif", 12).into_font().color(&color),
            )
        });
        chart.draw_series(labels)?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .position(SeriesLabelPosition::UpperMiddle)
        .draw()?;
    Ok(())
}
