//! Whether weights are those of a model.

use super::{positions::Coverage, prefix, translate::Weights};
use crate::{
    error::{Error, Result},
    model::ModelSpec,
};

impl Weights {
    /// Rejects weights of another architecture than the model's, and weights that have more than
    /// any supported model: reading only a part of them would silently give wrong features.
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
                "they have {} {name}, which no supported model has; see models/README.md for what \
                 an architecture may have",
                match self.foreign.len() {
                    1 => "the tensor".to_owned(),
                    count => format!("{count} tensors such as"),
                }
            ));
        }
        if let (Some(rows), None) = (found.position_rows, found.positions()) {
            return wrong(format!(
                "their position table has {rows} rows, which are those of no square grid; \
                 interpolate it to one before saving"
            ));
        }
        if found.position_rows.is_some() && self.has("rope_embed.periods") {
            return wrong(
                "they have rope_embed.periods next to a position table, and no supported model \
                 has both"
                    .to_owned(),
            );
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
            (None, _) if !spec.architecture.has_rope() => {
                " (they have no position table)".to_owned()
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
