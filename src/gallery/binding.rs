//! How the vectors of a gallery were made. Only vectors that were made in the same way compare.

use serde::{Deserialize, Serialize};

use super::GalleryName;
use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    model::ModelId,
    vision::{Difference, Preprocessing},
};

/// How the vectors of a gallery were made: the model, its input and the pooling of its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Model that made the features.
    #[serde(flatten)]
    pub model: ModelId,
    /// Width of the vectors.
    pub dim: usize,
    /// How tokens become a vector.
    pub pooling: Pooling,
    /// Number of last blocks whose pooled tokens are joined.
    pub layers: usize,
    /// How a file becomes the model's input.
    #[serde(flatten)]
    pub preprocessing: Preprocessing,
}

impl Binding {
    /// Checks that vectors of the binding `other` compare with those of the gallery `name`.
    ///
    /// # Errors
    /// [`Kind::Conflict`] that lists the differences.
    pub fn check(&self, name: &GalleryName, other: &Self) -> Result<()> {
        let holder = format_args!("the gallery `{name}` holds");
        self.model
            .require(&other.model, holder, "use another gallery")?;
        let pooled = [
            Difference::between("pooling", &self.pooling, &other.pooling),
            Difference::between("layers", &self.layers, &other.layers),
        ];
        let differences: Vec<String> = pooled
            .into_iter()
            .flatten()
            .chain(self.preprocessing.differences(&other.preprocessing))
            .chain(Difference::between("dim", &self.dim, &other.dim))
            .map(|difference| difference.to_string())
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "the gallery `{name}` was made with {}; leave the options out to use the gallery's \
             own, or use another gallery",
            differences.join(", ")
        );
        Err(Error::new(Kind::Conflict, detail))
    }
}
