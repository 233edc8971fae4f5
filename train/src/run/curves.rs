//! Draws the curves of a run as SVG.

use std::path::Path;

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};

use super::{RunMetrics, files};
use crate::method::StepReport;

const GRAY: RGBColor = RGBColor(80, 80, 80);
const LIGHT_GRAY: RGBColor = RGBColor(160, 160, 160);
const BLUE: RGBColor = RGBColor(33, 113, 181);
const ORANGE: RGBColor = RGBColor(217, 95, 14);
/// Width of a panel in pixels.
const PANEL_WIDTH: u32 = 420;
/// Height of all panels in pixels.
const PANEL_HEIGHT: u32 = 340;
/// Largest number of points that the running mean averages.
const MAX_WINDOW: usize = 40;

/// One diagram.
struct Panel {
    title: &'static str,
    curves: Vec<Curve>,
}

/// A curve, or a horizontal line of two points.
struct Curve {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Draws over the epochs the loss, the teacher's entropies or the accuracy on the training views,
/// and the k-NN accuracy if it was measured.
pub(super) fn draw(path: &Path, metrics: &RunMetrics, prototypes: usize) -> anyhow::Result<()> {
    let last_step = metrics.steps.last().map_or(0.0, |line| line.epoch);
    let last_knn = metrics.knn.last().map_or(0.0, |line| line.epoch);
    let last_epoch = last_step.max(last_knn).max(1e-3);
    let panels = panels(metrics, prototypes, last_epoch);
    let mut svg = String::new();
    draw_panels(&mut svg, &panels, last_epoch)
        .map_err(|error| anyhow!("drawing the curves: {error}"))?;
    files::write(path, svg.as_bytes())
}

fn panels(metrics: &RunMetrics, prototypes: usize, last_epoch: f64) -> Vec<Panel> {
    let max_entropy = (prototypes as f64).ln();
    let mut panels = vec![Panel {
        title: "Loss",
        curves: vec![Curve::of_steps("loss", BLUE, metrics, |report| {
            Some(report.loss)
        })],
    }];
    let of_teacher = Curve::of_steps("single targets", BLUE, metrics, |report| {
        report.teacher_entropy
    });
    let of_mean = Curve::of_steps(
        "mean target: prototypes in use",
        ORANGE,
        metrics,
        |report| report.usage_entropy,
    );
    if !of_teacher.points.is_empty() {
        let maximum = Curve::level("maximum".to_owned(), LIGHT_GRAY, max_entropy, last_epoch);
        panels.push(Panel {
            title: "Entropy of the teacher, nats",
            curves: vec![of_teacher, of_mean, maximum],
        });
    }
    let correct = Curve::of_steps("views", BLUE, metrics, |report| {
        report.accuracy.map(|share| 100.0 * share)
    });
    if !correct.points.is_empty() {
        panels.push(Panel {
            title: "Accuracy on training views, %",
            curves: vec![correct],
        });
    }
    if let Some(first) = metrics.knn.first() {
        let percent = 100.0 * first.knn;
        let name = format!("before training: {percent:.1}");
        let mut curves = vec![
            Curve {
                name: "teacher".to_owned(),
                color: BLUE,
                points: metrics
                    .knn
                    .iter()
                    .map(|line| (line.epoch, 100.0 * line.knn))
                    .collect(),
            },
            Curve::level(name, LIGHT_GRAY, percent, last_epoch),
        ];
        if let Some(pixels) = first.knn_of_pixels {
            let percent = 100.0 * pixels;
            let name = format!("pixels: {percent:.1}");
            curves.push(Curve::level(name, ORANGE, percent, last_epoch));
        }
        panels.push(Panel {
            title: "k-NN accuracy, %",
            curves,
        });
    }
    panels
}

impl Curve {
    /// Returns the smoothed curve of a value of the logged steps that have it.
    fn of_steps(
        name: &str,
        color: RGBColor,
        metrics: &RunMetrics,
        value: impl Fn(&StepReport) -> Option<f64>,
    ) -> Self {
        let points: Vec<(f64, f64)> = metrics
            .steps
            .iter()
            .filter_map(|line| Some((line.epoch, value(&line.report)?)))
            .collect();
        Self {
            name: name.to_owned(),
            color,
            points: running_mean(&points),
        }
    }

    /// Returns a horizontal line.
    fn level(name: String, color: RGBColor, height: f64, last_epoch: f64) -> Self {
        Self {
            name,
            color,
            points: vec![(0.0, height), (last_epoch, height)],
        }
    }
}

/// Averages each point with those before it: up to a twentieth of the curve.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 20).clamp(1, MAX_WINDOW);
    points
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let recent = &points[(index + 1).saturating_sub(window)..=index];
            let sum: f64 = recent.iter().map(|point| point.1).sum();
            (point.0, sum / recent.len() as f64)
        })
        .collect()
}

fn draw_panels(
    svg: &mut String,
    panels: &[Panel],
    last_epoch: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let size = (PANEL_WIDTH * panels.len() as u32, PANEL_HEIGHT);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel, last_epoch)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    last_epoch: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let curves = &panel.curves;
    let mut low = f64::MAX;
    let mut high = f64::MIN;
    for (_, value) in curves.iter().flat_map(|curve| &curve.points) {
        if value.is_finite() {
            low = low.min(*value);
            high = high.max(*value);
        }
    }
    if low > high {
        low = 0.0;
        high = 1.0;
    }
    let margin = (0.06 * (high - low)).max(0.01 * high.abs()).max(1e-6);
    // Leaves room at the top for the legend.
    let top = high + margin + 0.12 * curves.len() as f64 * (high - low).max(margin);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 17).into_font().color(&GRAY))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..last_epoch, (low - margin)..top)?;
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
