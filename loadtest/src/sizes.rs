//! Latency and throughput against the size of the model's input.

use std::{fmt::Write as _, path::Path, time::Duration};

use crate::{
    client::{Arrivals, Target, load},
    plot::{self, Line},
    servers::Programs,
};

const SIZES: [usize; 5] = [224, 336, 448, 518, 896];

/// Measures all sizes in both precisions, and draws `chart`.
pub(crate) async fn measure(
    programs: &Programs,
    images: &Target,
    seconds: f64,
    chart: &Path,
    text: &mut String,
) -> anyhow::Result<()> {
    let time = Duration::from_secs_f64(seconds.max(4.0));
    let mut latency = Vec::new();
    let mut throughput = Vec::new();
    for precision in ["fp32", "int8"] {
        let server = programs
            .serve(precision, &["--precision", precision])
            .await?;
        let mut ms = Line::new(precision);
        let mut rate = Line::new(precision);
        for size in SIZES {
            let target = [Target {
                url: server.url(&format!("/v1/embed?size={size}")),
                ..images.clone()
            }];
            let one = load(&target, Arrivals::Closed { clients: 1 }, time).await;
            let many = load(&target, Arrivals::Closed { clients: 16 }, time * 2).await;
            ms.points.push((size as f64, one.latency(0.5)));
            rate.points.push((size as f64, many.rate()));
        }
        server.stop().await;
        latency.push(ms);
        throughput.push(rate);
    }
    plot::by_size(chart, &latency, &throughput)?;
    text.push_str(
        "## Cost against size\n\n![Latency and throughput against the size](sizes.svg)\n\n\
         | size | patches | fp32, ms | int8, ms | fp32, images/s | int8, images/s |\n\
         |---|---|---|---|---|---|\n",
    );
    for (index, size) in SIZES.into_iter().enumerate() {
        let patches = (size / 14).pow(2);
        writeln!(
            text,
            "| {size} | {patches} | {:.1} | {:.1} | {:.2} | {:.2} |",
            latency[0].points[index].1,
            latency[1].points[index].1,
            throughput[0].points[index].1,
            throughput[1].points[index].1
        )?;
    }
    Ok(())
}
