//! Scores of images, and where they are anomalous.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ndarray::Array2;

use super::{
    super::{
        cached_features::CachedFeatures,
        extractor::Extractor,
        images::{Decoding, Preparation},
        maps::check_share,
        photograph::{Fields, Seen},
        stages::Timed,
    },
    stored::BankInfo,
};
use crate::{
    error::{Error, Result, ResultExt},
    features::{
        anomaly::{Defect, Detector, Distances},
        npy,
        render::{self, heat_map},
        similarity::Region,
    },
    vision::{Grid, Placement, Size},
};

/// Picture of a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnomalyPicture {
    /// The image as the model sees it, with unusual patches in colors of this opacity, and frames
    /// around defects.
    Overlay(f32),
    /// 1 where there is a defect, and 0 elsewhere, as large as the photograph.
    Mask,
}

impl AnomalyPicture {
    /// Default opacity.
    pub const OPACITY: f32 = 0.8;
}

/// Forms in which a score is requested, in addition to the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AnomalyForms {
    /// Whether to write the heat map as `.npy`.
    pub npy: bool,
    /// Picture.
    pub picture: Option<AnomalyPicture>,
}

impl AnomalyForms {
    /// Returns the memory that the forms of a photograph take, in bytes.
    fn bytes(&self, photograph: Size) -> u64 {
        let mask = self.picture == Some(AnomalyPicture::Mask);
        photograph.pixels() * (u64::from(self.npy) * 8 + u64::from(mask) * 2)
    }
}

/// How an image compares with a bank.
#[derive(Debug)]
pub struct ImageAnomaly {
    /// How the photograph became the model's input.
    pub placement: Placement,
    /// Patches of that input.
    pub grid: Grid,
    /// `size` to which the image was resized, in pixels.
    pub size: usize,
    /// Mean of the largest 1 % of the distances of its patches, 0 to 2.
    pub score: f32,
    /// Score above which an image is anomalous; `None` for a bank of one photograph.
    pub threshold: Option<f32>,
    /// Places that are unusual, the most unusual first; none if the image is not anomalous.
    pub defects: Vec<FoundDefect>,
    /// Distances, f32 `[height, width]`, as `.npy`.
    pub npy: Option<Vec<u8>>,
    /// The picture, as PNG.
    pub png: Option<Vec<u8>>,
}

impl ImageAnomaly {
    /// Returns whether the score is above the threshold; `None` without one.
    pub fn is_anomalous(&self) -> Option<bool> {
        Some(self.score > self.threshold?)
    }
}

/// An unusual place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundDefect {
    /// Left, top, right and bottom, in pixels of the upright photograph.
    pub bounds: [f64; 4],
    /// Its largest distance, 0 to 2.
    pub score: f32,
}

impl Extractor {
    /// Scores an image with a bank.
    ///
    /// # Errors
    /// [`crate::error::Kind::Damaged`] if the bank takes other tokens than the model makes.
    pub async fn score(
        &self,
        detector: Arc<Detector>,
        info: &BankInfo,
        file: Bytes,
        decoding: Decoding,
        forms: AnomalyForms,
    ) -> Result<Timed<ImageAnomaly>> {
        if let Some(AnomalyPicture::Overlay(opacity)) = forms.picture {
            check_share("overlay", opacity)?;
        }
        let options = info.options;
        let preparation = Preparation {
            preprocessing: info.preprocessing,
            decoding,
            shrinks: true,
            quarter_turns: 0,
        };
        let with_image = matches!(forms.picture, Some(AnomalyPicture::Overlay(_)));
        let extracted = self
            .extract(file, options.request(preparation, with_image))
            .await?;
        let image = extracted.value;
        let started = Instant::now();
        let share = match forms.bytes(image.placement.image) {
            0 => None,
            bytes => Some(self.take_memory(bytes).await?),
        };
        let threshold = info.threshold;
        let size = self.sizes(info.preprocessing.size).of(image.grid());
        let compare = move || {
            let _share = share;
            let (tokens, chosen) = options.tokens_of(&image)?;
            if tokens.ncols() != detector.dim() {
                let (takes, made) = (detector.dim(), tokens.ncols());
                let detail = format!(
                    "the bank is damaged: it takes {takes} values, and its model makes {made}"
                );
                return Err(Error::damaged(detail));
            }
            let mut distances = detector.distances(tokens.view());
            if let Some(chosen) = chosen {
                distances.patches = scattered(&distances.patches, &chosen);
            }
            describe(&image, size, &distances, threshold, &forms)
        };
        let found = self.on_blocking_thread("scoring an image", compare).await?;
        Ok(extracted.stages.finish(started, found))
    }
}

/// Brings the distances of the chosen patches to their places; that of others is 0.
fn scattered(distances: &[f32], chosen: &[bool]) -> Vec<f32> {
    let mut rest = distances.iter().copied();
    let place = |&is_chosen: &bool| match is_chosen {
        true => rest.next().unwrap_or(0.0),
        false => 0.0,
    };
    chosen.iter().map(place).collect()
}

fn describe(
    image: &CachedFeatures,
    size: usize,
    distances: &Distances,
    threshold: Option<f32>,
    forms: &AnomalyForms,
) -> Result<ImageAnomaly> {
    let grid = image.grid();
    let placement = image.placement;
    let patch = image.patch_side();
    let defects = threshold.map_or_else(Vec::new, |threshold| distances.defects(threshold, grid));
    let seen = Seen::new(&placement, patch as usize);
    let values = std::slice::from_ref(&distances.patches);
    let fields = |floor, is_sharp| Fields {
        values,
        size: Size::new(grid.width, grid.height),
        cell: patch,
        floor,
        is_sharp,
    };
    let png = match forms.picture {
        None => None,
        Some(AnomalyPicture::Overlay(opacity)) => {
            // The threshold lies in the middle of the colors.
            let largest = distances.patches.iter().copied().fold(1e-6, f32::max);
            let top = threshold.map_or(largest, |threshold| 2.0 * threshold);
            let heat: Vec<f32> = distances.patches.iter().map(|d| d / top).collect();
            let mut drawn = heat_map(image.image(), &heat, grid, opacity);
            for Defect { bounds, .. } in &defects {
                let [left, top, right, bottom] = *bounds;
                let region = Region {
                    rows: top..bottom,
                    columns: left..right,
                };
                render::frame(&mut drawn, grid, &region);
            }
            Some(render::png(&drawn)?)
        }
        Some(AnomalyPicture::Mask) => {
            let level = match threshold.filter(|_| !defects.is_empty()) {
                Some(threshold) => distances.defect_level(threshold),
                None => f32::INFINITY,
            };
            // The patches of the boxes: between their centers, no pixel has as large a value.
            let labels = fields(level, true).of_photograph(&placement, seen);
            Some(render::indexed_png(labels.labels(), labels.size())?)
        }
    };
    let npy = match forms.npy {
        true => {
            let Size { width, height } = placement.image;
            let values = fields(0.0, false).values_of_photograph(&placement, seen);
            let map = Array2::from_shape_vec((height, width), values);
            Some(npy::encode(&map.internal("shaping a heat map")?)?)
        }
        false => None,
    };
    Ok(ImageAnomaly {
        placement,
        grid,
        size,
        score: distances.score,
        threshold,
        defects: defects
            .iter()
            .map(|defect| in_photograph(defect, &placement, seen, grid, patch))
            .collect(),
        npy,
        png,
    })
}

/// Brings a defect to the photograph. At the edges of what the model saw, it ends where the mask
/// does.
fn in_photograph(
    defect: &Defect,
    placement: &Placement,
    seen: Seen,
    grid: Grid,
    patch: f64,
) -> FoundDefect {
    let [left, top, right, bottom] = defect.bounds;
    let [x0, y0] = placement.to_image([left as f64 * patch, top as f64 * patch]);
    let [x1, y1] = placement.to_image([right as f64 * patch, bottom as f64 * patch]);
    let at_edge = |is_edge, edge: usize, at| if is_edge { edge as f64 } else { at };
    FoundDefect {
        bounds: [
            at_edge(left == 0, seen.left, x0),
            at_edge(top == 0, seen.top, y0),
            at_edge(right == grid.width, seen.right, x1),
            at_edge(bottom == grid.height, seen.bottom, y1),
        ],
        score: defect.score,
    }
}
