//! Reading converted models.

use std::{
    borrow::Cow,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use ndarray::Array2;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{ModelPaths, map_file};
use crate::{
    error::{Error, Result},
    hex,
    model::{
        Architecture, ModelSpec, PositionEncoding, PositionRule, PositionTable, Positions,
        RopePeriods,
    },
    onnx::{
        Dialect, Precision, metadata,
        proto::{DataType, ModelProto, TensorProto},
    },
};

/// A large tensor of a converted model, stored in the data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWeight {
    /// Name in the graph.
    pub name: String,
    /// Type of the elements.
    pub kind: DataType,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Byte range in the data file: little-endian values, aligned to a page.
    pub range: Range<usize>,
}

impl StoredWeight {
    /// Returns `None` for a small tensor, which the model file contains, and for a damaged entry.
    fn from_tensor(tensor: &TensorProto) -> Option<Self> {
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key == key)?;
            entry.value.parse::<usize>().ok()
        };
        let offset = entry("offset")?;
        Some(Self {
            name: tensor.name.clone(),
            kind: DataType::try_from(tensor.data_type).ok()?,
            shape: tensor.dims.clone(),
            range: offset..offset.checked_add(entry("length")?)?,
        })
    }
}

/// A converted model whose file has been read, but which no runtime has loaded.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// Paths of the model's files.
    pub paths: ModelPaths,
    /// Description of the model.
    pub spec: ModelSpec,
    /// Identity of the model's features. It depends on the position rule.
    pub fingerprint: String,
    /// Precision of the weights and products.
    pub precision: Precision,
    /// Operators of the graph.
    pub dialect: Dialect,
    /// Large tensors, stored in the data file.
    pub weights: Vec<StoredWeight>,
    /// Positions for any grid.
    pub positions: PositionEncoding,
}

impl ModelFile {
    /// Returns the size of the weights, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        let bytes = self.weights.iter().map(|weight| weight.range.len() as u64);
        bytes.sum()
    }

    /// Opens a model that `dinoserve models convert` wrote.
    pub fn open(path: &Path, rule: PositionRule) -> Result<Self> {
        let invalid = |detail: &str| Error::artifact(format!("{}: {detail}", path.display()));
        let model = ModelProto::decode(map_file(path)?).map_err(|error| {
            invalid(&format!(
                "damaged, or not an ONNX file ({error}); convert it again"
            ))
        })?;
        let optional = |key: &str| {
            let entry = model.metadata_props.iter().find(|entry| entry.key == key);
            entry.map(|entry| entry.value.as_str())
        };
        let entry = |key: &str| {
            optional(key).ok_or_else(|| {
                invalid("not a model that `dinoserve models convert` wrote; convert it first")
            })
        };
        let unknown = |what: &str| {
            invalid(&format!(
                "its {what} is unknown to this version; convert it again"
            ))
        };
        let spec: ModelSpec = serde_json::from_str(entry(metadata::SPEC)?).map_err(|error| {
            invalid(&format!(
                "written by another version of dinoserve ({error}); convert it again"
            ))
        })?;
        spec.check()
            .map_err(|error| error.context(path.display()))?;
        let graph = model.graph.as_ref();
        let graph = graph.ok_or_else(|| invalid("contains no graph; convert it again"))?;
        let paths = ModelPaths::new(path);
        let stored = match optional(metadata::POSITIONS) {
            Some(place) => stored_bytes(&paths, place)?.map(Cow::Owned),
            None => {
                let mut tensors = graph.initializer.iter();
                let table = tensors.find(|tensor| tensor.name == "pos_embed");
                table.map(|table| Cow::Borrowed(table.raw_data.as_ref()))
            }
        };
        let periods = optional(metadata::ROPE_PERIODS);
        let positions = position_encoding(&spec.architecture, stored.as_deref(), periods, rule)
            .ok_or_else(|| invalid("its positions do not fit its description; convert it again"))?;
        Ok(Self {
            paths,
            fingerprint: effective_fingerprint(entry(metadata::FINGERPRINT)?, &positions, rule),
            precision: entry(metadata::PRECISION)?
                .parse()
                .map_err(|_| unknown("precision"))?,
            dialect: optional(metadata::DIALECT)
                .map_or(Ok(Dialect::Fused), str::parse)
                .map_err(|_| unknown("dialect"))?,
            weights: graph
                .initializer
                .iter()
                .filter_map(StoredWeight::from_tensor)
                .collect(),
            positions,
            spec,
        })
    }
}

/// Returns the bytes of the data file at `OFFSET+LENGTH`, or `None` if it does not contain them.
fn stored_bytes(paths: &ModelPaths, place: &str) -> Result<Option<Vec<u8>>> {
    let range = place.split_once('+').and_then(|(offset, length)| {
        let offset: usize = offset.parse().ok()?;
        Some(offset..offset.checked_add(length.parse().ok()?)?)
    });
    let Some(range) = range else { return Ok(None) };
    // Not mapped; see `release_pages_of`.
    let reading = |error| Error::reading(&paths.data, error);
    let mut file = File::open(&paths.data).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    if range.start > range.end || range.end as u64 > length {
        return Ok(None);
    }
    let mut bytes = vec![0; range.len()];
    file.seek(SeekFrom::Start(range.start as u64))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(reading)?;
    Ok(Some(bytes))
}

/// Makes the encoding from a stored table or stored periods; `None` if they are missing or do not
/// fit the architecture.
fn position_encoding(
    architecture: &Architecture,
    table: Option<&[u8]>,
    periods: Option<&str>,
    rule: PositionRule,
) -> Option<PositionEncoding> {
    match architecture.positions {
        Positions::Learned => {
            let (bytes, _) = table?.as_chunks::<4>();
            let values = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes));
            let shape = architecture.position_table_shape();
            let table = Array2::from_shape_vec(shape, values.collect()).ok()?;
            let table = PositionTable::new(table, architecture, rule);
            Some(PositionEncoding::Table(table))
        }
        Positions::Rope => {
            let periods: Vec<f32> = serde_json::from_str(periods?).ok()?;
            RopePeriods::are_usable(&periods, architecture)
                .then(|| PositionEncoding::Rope(RopePeriods::new(periods, architecture)))
        }
    }
}

/// Combines the file's fingerprint with the position rule, where it changes the features. The
/// default rule keeps the fingerprint.
fn effective_fingerprint(
    of_file: &str,
    positions: &PositionEncoding,
    rule: PositionRule,
) -> String {
    match (rule, positions) {
        (PositionRule::Hub, _) | (_, PositionEncoding::Rope(_)) => of_file.to_owned(),
        (PositionRule::Hf, PositionEncoding::Table(_)) => {
            hex::encode(&Sha256::digest(format!("{of_file} pos_embed=hf")))
        }
    }
}
