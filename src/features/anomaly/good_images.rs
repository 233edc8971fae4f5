//! Tokens of good images, from which a bank is made.

use half::{f16, slice::HalfFloatSliceExt};
use ndarray::{Array2, ArrayView2};

/// Seed of the choice of patches, so that the same images give the same bank.
const SEED: u64 = 22;

/// Tokens of good images, rounded to f16: a bank that gets more images later is the one that all of
/// them would have made at once.
#[derive(Debug, Clone, PartialEq)]
pub struct GoodImages {
    dim: usize,
    /// Tokens of all images, `[patches, dim]`, image by image.
    tokens: Vec<f16>,
    images: Vec<GoodImage>,
}

/// An image of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoodImage {
    /// Number of its patches.
    pub patches: usize,
    /// Number of the photograph. Turned copies of a photograph are images of their own.
    pub source: u32,
}

impl GoodImages {
    /// Returns an empty set for tokens of width `dim`.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            tokens: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Makes a set of its parts; `None` if they do not fit, or if there are no patches.
    pub(super) fn of_parts(dim: usize, tokens: Vec<f16>, images: Vec<GoodImage>) -> Option<Self> {
        let patches = images.iter().try_fold(0_usize, |sum, image| {
            (image.patches > 0).then_some(sum.checked_add(image.patches)?)
        });
        let fits = dim > 0 && patches? > 0 && patches?.checked_mul(dim)? == tokens.len();
        let last = images.last()?.source;
        let is_sorted = images.is_sorted_by_key(|image| image.source) && last < u32::MAX;
        (fits && is_sorted).then_some(Self {
            dim,
            tokens,
            images,
        })
    }

    /// Adds the tokens of an image, `[patches, dim]`, of at least one patch: an even sample of
    /// `most` of them, if there are more. Sources are added in order.
    ///
    /// # Panics
    /// If the tokens have another width.
    pub fn add(&mut self, tokens: ArrayView2<'_, f32>, source: u32, most: usize) {
        assert_eq!(tokens.ncols(), self.dim, "tokens of one model");
        let mut chosen: Vec<usize> = (0..tokens.nrows()).collect();
        if chosen.len() > most {
            fastrand::Rng::with_seed(SEED).shuffle(&mut chosen);
            chosen.truncate(most);
            chosen.sort_unstable();
        }
        let start = self.tokens.len();
        self.tokens
            .resize(start + chosen.len() * self.dim, f16::ZERO);
        let rows = self.tokens[start..].chunks_exact_mut(self.dim);
        for (row, index) in rows.zip(&chosen) {
            let token = tokens.row(*index);
            match token.as_slice() {
                Some(token) => row.convert_from_f32_slice(token),
                None => row.convert_from_f32_slice(&token.to_vec()),
            }
        }
        self.images.push(GoodImage {
            patches: chosen.len(),
            source,
        });
    }

    /// Reduces each image to an even sample of `most` patches.
    pub fn shrink(&mut self, most: usize) {
        if self.images.iter().all(|image| image.patches <= most) {
            return;
        }
        let mut smaller = Self::new(self.dim);
        for (index, image) in self.images.iter().enumerate() {
            smaller.add(self.image(index).view(), image.source, most);
        }
        *self = smaller;
    }

    /// Returns the width of a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the images.
    pub fn images(&self) -> &[GoodImage] {
        &self.images
    }

    /// Returns the number of patches of all images.
    pub fn patches(&self) -> usize {
        self.tokens.len() / self.dim
    }

    /// Returns the number of photographs.
    pub fn sources(&self) -> usize {
        let mut sources: Vec<u32> = self.images.iter().map(|image| image.source).collect();
        sources.dedup();
        sources.len()
    }

    /// Returns the number that the next photograph gets.
    pub fn next_source(&self) -> u32 {
        self.images.last().map_or(0, |image| image.source + 1)
    }

    /// Returns the tokens of all images, image by image.
    pub(super) fn tokens(&self) -> &[f16] {
        &self.tokens
    }

    /// Iterates over the tokens of each image.
    pub(super) fn each(&self) -> impl Iterator<Item = (&[f16], GoodImage)> {
        let mut rest = self.tokens.as_slice();
        self.images.iter().map(move |&image| {
            let (tokens, after) = rest.split_at(image.patches * self.dim);
            rest = after;
            (tokens, image)
        })
    }

    /// Returns the tokens of an image, `[patches, dim]`.
    pub(super) fn image(&self, index: usize) -> Array2<f32> {
        let before: usize = self.images[..index].iter().map(|image| image.patches).sum();
        let patches = self.images[index].patches;
        let tokens = &self.tokens[before * self.dim..(before + patches) * self.dim];
        let mut values = vec![0.0; tokens.len()];
        tokens.convert_to_f32_slice(&mut values);
        Array2::from_shape_vec((patches, self.dim), values).expect("a token for each patch")
    }
}
