//! Whether weights are those of a model.

use super::{positions::Coverage, prefix, translate::Weights};
use crate::{
    error::{Error, Result},
    model::ModelSpec,
};

impl Weights {
    /// Rejects weights of another architecture than the model's, and weights that have more than
    /// any DINOv2: reading only a part of them would silently give wrong features.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let found = &self.found;
        let wrong = |detail: String| {
            Err(Error::artifact(format!(
                "the weights under {} are {found}; {detail}",
                prefix::quoted(&self.prefix)
            )))
        };
        if let Some(name) = self.foreign.first() {
            return wrong(format!(
                "they have {} {name}, which no DINOv2 has; only the architecture of DINOv2 is \
                 supported, with trained positions",
                match self.foreign.len() {
                    1 => "the tensor".to_owned(),
                    count => format!("{count} tensors such as"),
                }
            ));
        }
        match (found.position_rows, found.positions()) {
            (None, _) => {
                return wrong(
                    "they have no position table; models with rotary positions, such as DINOv3, \
                     are not supported"
                        .to_owned(),
                );
            }
            (Some(rows), None) => {
                return wrong(format!(
                    "their position table has {rows} rows, which are those of no square grid; \
                     interpolate it to one before saving"
                ));
            }
            _ => {}
        }
        let differences = found.differences(spec);
        if differences.is_empty() {
            return Ok(());
        }
        let (needed, described): (Vec<_>, Vec<_>) = differences.into_iter().unzip();
        let needed = needed.join(", ");
        let advice = match found.known_as().as_slice() {
            [] => format!("describe the model in a file with {needed}, and name it with --spec"),
            names => format!("convert them as {}", names.join(" or ")),
        };
        let table = match (found.position_rows, found.positions()) {
            (Some(rows), Some((_, grid))) if grid != spec.architecture.native_grid => {
                format!(" (a position table of {rows} rows, for {grid}×{grid} patches)")
            }
            _ => String::new(),
        };
        wrong(format!(
            "they need {needed}{table}, but {} has {}; {advice}",
            spec.name,
            described.join(", ")
        ))
    }

    /// Returns what the position table covers, if it is one.
    pub(super) fn coverage(&self) -> Option<Coverage> {
        self.found.positions().map(|(coverage, _)| coverage)
    }
}
