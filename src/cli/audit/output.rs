//! What an audit prints and writes.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use super::page;
use crate::{
    cli::output::{print_json, write_file, write_json},
    error::Error,
    names::plural,
    service::AuditReport,
};

/// Where the findings go.
#[derive(Debug, Args)]
pub(in crate::cli) struct OutputFlags {
    /// File for all findings: a page with pictures (.html), .json or .csv; may be repeated
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,

    /// Print all findings as JSON
    #[arg(long)]
    json: bool,

    /// Maximum number of findings of each kind on a page
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    show: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Json,
    Csv,
}

impl OutputFlags {
    /// Rejects files of an unknown format.
    pub(in crate::cli) fn check(&self) -> Result<(), Error> {
        self.output
            .iter()
            .try_for_each(|path| format_of(path).map(drop))
    }

    /// Returns whether standard output has JSON alone.
    pub(in crate::cli) fn prints_json(&self) -> bool {
        self.json
    }

    /// Prints a summary, and writes the files. `picture` returns the thumbnail of an image, if it
    /// has one.
    pub(in crate::cli) async fn write(
        &self,
        title: &str,
        report: &AuditReport,
        mut picture: impl AsyncFnMut(&str) -> anyhow::Result<Option<Vec<u8>>>,
    ) -> anyhow::Result<()> {
        match self.json {
            true => print_json(report)?,
            false => print(report)?,
        }
        for path in &self.output {
            match format_of(path)? {
                Format::Json => write_json(path, report)?,
                Format::Csv => {
                    let rows = report.to_csv()?;
                    write_file(path, |writer| writer.write_all(&rows))?;
                }
                Format::Html => {
                    let page = page::render(title, report, self.show, &mut picture).await?;
                    write_file(path, |writer| writer.write_all(page.as_bytes()))?;
                }
            }
            if !self.json {
                writeln!(io::stdout(), "written to {}", path.display())?;
            }
        }
        Ok(())
    }
}

fn format_of(path: &Path) -> Result<Format, Error> {
    let extension = path.extension().unwrap_or_default();
    match extension.to_string_lossy().to_lowercase().as_str() {
        "html" => Ok(Format::Html),
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => {
            let detail = format_args!("{}: must end in .html, .json or .csv", path.display());
            Err(Error::option("output", detail))
        }
    }
}

fn print(report: &AuditReport) -> io::Result<()> {
    let copies: usize = report
        .duplicates
        .iter()
        .map(|group| group.ids.len() - 1)
        .sum();
    let mut out = io::stdout();
    writeln!(
        out,
        "{}: {} of near-duplicates with {} to spare, {}, {}, {} (silhouette {:.2})",
        plural(report.images, "image"),
        plural(report.duplicates.len(), "group"),
        plural(copies, "image"),
        plural(report.outliers.len(), "outlier"),
        plural(report.mislabels.len(), "label") + " likely wrong",
        plural(report.clusters.len(), "cluster"),
        report.silhouette,
    )
}
