//! What the vectors of a gallery are. Vectors compare only with others of the same kind.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    features::pool::Pooling,
    vision::{Background, ResampleFilter, ResizeMode},
};

/// How the vectors of a gallery were made: the model, and the way from a file to its input and from
/// its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the model, for people.
    pub model: String,
    /// Identifies its features.
    pub fingerprint: String,
    /// Width of the vectors.
    pub dim: usize,
    /// How tokens become a vector.
    pub pooling: Pooling,
    /// How many last blocks are joined.
    pub layers: usize,
    /// The size that `resize` speaks of.
    pub size: usize,
    /// The way to the model's grid.
    pub resize: ResizeMode,
    /// The resampling filter.
    pub filter: ResampleFilter,
    /// Whether images are turned upright.
    pub exif: bool,
    /// What stands behind transparent pixels.
    pub background: Background,
}

impl Binding {
    /// Checks that vectors of `other` may be compared with those of the gallery `name`.
    ///
    /// # Errors
    /// [`Kind::Conflict`] that names what differs, and what the gallery wants.
    pub fn check(&self, name: &super::GalleryName, other: &Self) -> Result<()> {
        if self.fingerprint != other.fingerprint {
            let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
            let detail = format!(
                "the gallery `{name}` holds features of {} (fingerprint {}), and these are of {} ({}); serve that model, or use \
                 another gallery",
                self.model,
                short(&self.fingerprint),
                other.model,
                short(&other.fingerprint)
            );
            return Err(Error::new(Kind::Conflict, detail));
        }
        let pair = |name: &'static str, ours: &dyn ToString, theirs: &dyn ToString| {
            (name, ours.to_string(), theirs.to_string())
        };
        let settings = [
            pair("pooling", &self.pooling, &other.pooling),
            pair("layers", &self.layers, &other.layers),
            pair("size", &self.size, &other.size),
            pair("resize", &self.resize, &other.resize),
            pair("filter", &self.filter, &other.filter),
            pair("exif", &self.exif, &other.exif),
            pair("background", &self.background, &other.background),
            pair("dim", &self.dim, &other.dim),
        ];
        let differ = settings.iter().filter(|(_, ours, theirs)| ours != theirs);
        let differ: Vec<String> = differ
            .map(|(name, ours, theirs)| format!("{name}={ours} and not {name}={theirs}"))
            .collect();
        if differ.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "the gallery `{name}` was made with {}; leave the options out to use the gallery's own, or use another gallery",
            differ.join(", ")
        );
        Err(Error::new(Kind::Conflict, detail))
    }
}
