//! `dinoserve gallery convert --vectors FORMAT`.

use std::{io::Write, process::ExitCode};

use clap::Args;

use super::selection::OneGallery;
use crate::{
    cli::{executor::block_on, flags::names},
    gallery::VectorFormat,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Convert {
    /// Precision of the vectors in memory, or in the index of a database, which can be served
    /// meanwhile. Vectors on the disk stay as they are, and the gallery can be converted back
    #[arg(long = "vectors", value_name = "FORMAT", value_parser = names::<VectorFormat>())]
    format: VectorFormat,

    #[command(flatten)]
    gallery: OneGallery,
}

impl Convert {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let before = block_on(self.gallery.set_vectors(self.format))?;
        let (name, format) = (&self.gallery.name, self.format);
        writeln!(
            std::io::stdout(),
            "{name}: vectors as {format}, before {before}"
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
