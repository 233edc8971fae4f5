//! A result: the features of an image, or the reason why there are none.

use ndarray::{ArrayView2, aview1};

use super::{Dtype, Feature};
use crate::{
    error::{Error, Result},
    service::{SeveralFeatures, SeveralOptions},
};

/// The columns of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// One for each feature.
    pub columns: Vec<Column>,
    /// Type of all values.
    pub dtype: Dtype,
}

/// A column of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// `embedding` for the only feature, else the feature's name.
    pub name: String,
    /// What it has.
    pub feature: Feature,
    /// Number of values of a vector or of a patch.
    pub width: usize,
}

/// The features of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// See [`SourceImage::id`](crate::sources::SourceImage::id).
    pub id: String,
    /// Label of the image.
    pub label: Option<String>,
    /// Height and width of the patch grid.
    pub grid: [usize; 2],
    /// One for each column.
    pub columns: Vec<Values>,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Little-endian, in row order.
    pub bytes: Vec<u8>,
    /// See [`Dtype::I8`].
    pub scales: Vec<f32>,
}

/// What has become of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Its features.
    Row(Row),
    /// It cannot be read.
    Failed {
        /// Name of the image, or its place in a list.
        name: String,
        /// The reason.
        error: String,
    },
}

impl Record {
    pub(super) fn failed(name: String, error: &Error) -> Self {
        Self::Failed {
            name,
            error: error.to_string(),
        }
    }
}

impl Schema {
    /// Returns the columns of features of a model.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::error::Kind) for a feature that is named twice.
    pub fn new(features: &[Feature], dtype: Dtype, layers: usize, dim: usize) -> Result<Self> {
        let mut columns: Vec<Column> = Vec::with_capacity(features.len());
        for &feature in features {
            let name = match features {
                [_] => "embedding".to_owned(),
                _ => feature.to_string(),
            };
            if columns.iter().any(|column| column.feature == feature) {
                let detail = format_args!("{feature} is named twice");
                return Err(Error::option("features", detail));
            }
            let width = match feature.pooling() {
                Some(pooling) => layers * pooling.dim(dim),
                None => dim,
            };
            columns.push(Column {
                name,
                feature,
                width,
            });
        }
        Ok(Self { columns, dtype })
    }

    /// Returns what is asked of the extractor.
    pub fn options(&self, layers: usize, normalize: bool) -> SeveralOptions {
        let features = self.columns.iter().map(|column| column.feature);
        SeveralOptions {
            poolings: features.clone().filter_map(Feature::pooling).collect(),
            tokens: self.has_tokens(),
            layers,
            normalize,
        }
    }

    /// Returns whether there is a column of patch tokens.
    pub fn has_tokens(&self) -> bool {
        self.columns.iter().any(Column::is_tokens)
    }

    /// Encodes the features of an image in the order of the columns.
    pub(super) fn row(&self, id: String, label: Option<String>, features: &SeveralFeatures) -> Row {
        let mut vectors = features.vectors.iter();
        let columns = self.columns.iter().map(|column| {
            let tokens = features.tokens.as_ref().filter(|_| column.is_tokens());
            match tokens {
                Some(tokens) => self.values(tokens.view()),
                None => {
                    let vector = vectors.next().map_or(&[][..], Vec::as_slice);
                    self.values(aview1(vector).insert_axis(ndarray::Axis(0)))
                }
            }
        });
        Row {
            columns: columns.collect(),
            id,
            label,
            grid: [features.grid.height, features.grid.width],
        }
    }

    fn values(&self, rows: ArrayView2<'_, f32>) -> Values {
        let (bytes, scales) = self.dtype.encode(rows);
        Values { bytes, scales }
    }
}

impl Column {
    /// Returns whether this is the column of patch tokens.
    pub fn is_tokens(&self) -> bool {
        self.feature == Feature::PatchTokens
    }

    /// Returns the name of the column of scales.
    pub fn scale_name(&self) -> String {
        format!("{}_scale", self.name)
    }
}
