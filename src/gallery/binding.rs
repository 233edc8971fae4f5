//! How the vectors of a gallery were made. Only vectors that were made in the same way compare.

use serde::{Deserialize, Serialize};

use super::GalleryName;
use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    model::{Architecture, ModelId},
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

/// Maximum length of a model's name and of its fingerprint, in bytes.
const MAX_TEXT_BYTES: usize = 256;

impl Binding {
    /// Maximum width of the features for probes.
    pub const MAX_FEATURES: usize = 2 * Architecture::MAX_SIZE;
    /// Maximum width of vectors: of the widest model, with all layers and with two parts of each.
    pub const MAX_DIM: usize = 2 * Architecture::MAX_LAYERS * Architecture::MAX_SIZE;

    /// Checks that a model can have made such vectors. A binding from a file or a database is
    /// checked before a size depends on its numbers.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] that says what no model has.
    pub fn check_possible(&self) -> Result<()> {
        let max_layers = Architecture::MAX_LAYERS;
        let max_size = Architecture::MAX_SIZE;
        let impossible = |detail: String| {
            let detail = format!("the description of its vectors is impossible: {detail}");
            Err(Error::new(Kind::InvalidOption, detail))
        };
        if !(1..=max_layers).contains(&self.layers) {
            let layers = self.layers;
            return impossible(format!(
                "`layers` is {layers}; a model has 1 to {max_layers}"
            ));
        }
        let parts = self.layers * self.pooling.dim(1);
        let dim = self.dim;
        if dim == 0 || dim > parts * max_size {
            let range = format_args!("1 to {}", parts * max_size);
            return impossible(format!("`dim` is {dim}; it must be {range}"));
        }
        if !dim.is_multiple_of(parts) {
            return impossible(format!(
                "`dim` is {dim}; with `pooling` {} and `layers` {} it is a multiple of {parts}",
                self.pooling, self.layers
            ));
        }
        let size = self.preprocessing.size;
        if !(1..=max_size).contains(&size) {
            return impossible(format!("`size` is {size}; it must be 1 to {max_size}"));
        }
        let texts = [&*self.model.name, self.model.fingerprint.as_str()];
        if texts
            .iter()
            .any(|text| text.len() > MAX_TEXT_BYTES || text.contains('\0'))
        {
            return impossible(format!(
                "`model` and `fingerprint` have at most {MAX_TEXT_BYTES} bytes and no NUL"
            ));
        }
        Ok(())
    }

    /// Returns the width of the features for probes: CLS and the mean of the patch tokens.
    pub fn features_width(&self) -> usize {
        2 * self.dim / (self.layers * self.pooling.dim(1))
    }

    /// Checks the features of an item for probes, which a store may keep in half precision.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for another width, or for values outside half precision.
    pub fn check_features(&self, features: &[f32]) -> Result<()> {
        let width = self.features_width();
        let is_finite = |&value: &f32| half::f16::from_f32(value).is_finite();
        if features.len() == width && features.iter().all(is_finite) {
            return Ok(());
        }
        let detail = format!(
            "must be {width} numbers in the range of half precision: {} of CLS, then as many of \
             the mean of the patch tokens",
            width / 2
        );
        Err(Error::option("features", detail))
    }

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
