//! How a bank is made.

use ndarray::{Axis, CowArray, Ix2, concatenate};
use serde::{Deserialize, Serialize};

use crate::{
    engine::RequestedOutputs,
    error::{Error, Result, ResultExt},
    features::{
        anomaly::BankTokens,
        attention,
        pca::{Foreground, foreground_of},
    },
    names::option_enum,
    service::{cached_features::CachedFeatures, extractor::ExtractRequest, images::Preparation},
};

option_enum! {
    /// Copies of good images that a bank learns, too.
    #[derive(Default)]
    pub enum Augment {
        /// No copies.
        #[default]
        None,
        /// Copies turned by a quarter, a half and three quarters, for things that lie any way.
        Rotate,
    }
}

/// Tokens of an image that take part, `[patches, dim]`, and which patches these are; `None` for
/// all.
pub(super) type ChosenTokens<'a> = (CowArray<'a, f32, Ix2>, Option<Vec<bool>>);

/// How a bank is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BankOptions {
    /// Tokens that are compared.
    pub tokens: BankTokens,
    /// Share of the patches that are kept, above 0 and up to 1.
    pub coreset: f32,
    /// Patches that take part. The foreground is determined on each image.
    pub foreground: Foreground,
    /// Copies of the images.
    pub augment: Augment,
}

impl Default for BankOptions {
    fn default() -> Self {
        Self {
            tokens: BankTokens::default(),
            coreset: 0.25,
            foreground: Foreground::default(),
            augment: Augment::default(),
        }
    }
}

impl BankOptions {
    /// Rejects values out of range.
    pub(super) fn check(&self) -> Result<()> {
        if self.coreset > 0.0 && self.coreset <= 1.0 {
            return Ok(());
        }
        let range = "above 0, and at most 1";
        Err(Error::out_of_range("coreset", self.coreset, range))
    }

    /// Returns the number of images that are made of each photograph.
    pub(super) fn copies(&self) -> u8 {
        match self.augment {
            Augment::None => 1,
            Augment::Rotate => 4,
        }
    }

    /// Returns the width of the tokens, of a model with tokens of width `dim` and this many output
    /// `layers`.
    pub(super) fn dim(&self, dim: usize, layers: usize) -> usize {
        match self.tokens {
            BankTokens::Early | BankTokens::Last => dim,
            BankTokens::All => dim * layers,
        }
    }

    /// Returns what to extract of an image.
    pub(super) fn request(&self, preparation: Preparation, with_image: bool) -> ExtractRequest {
        let auto = self.foreground == Foreground::Auto;
        let is_last = self.tokens == BankTokens::Last;
        let outputs = RequestedOutputs {
            patch_tokens: is_last || auto,
            attention: auto,
            layers_patch: !is_last,
            ..RequestedOutputs::default()
        };
        ExtractRequest {
            preparation,
            outputs,
            with_image,
        }
    }

    /// Returns the tokens of an image that take part.
    pub(super) fn tokens_of<'a>(&self, image: &'a CachedFeatures) -> Result<ChosenTokens<'a>> {
        let tokens = match self.tokens {
            BankTokens::Early => image.first_layer().into(),
            BankTokens::Last => image.patch_tokens().into(),
            BankTokens::All => {
                let layers = image.layers();
                let layers: Vec<_> = layers.outer_iter().collect();
                let joined = concatenate(Axis(1), &layers);
                joined.internal("joining the tokens of blocks")?.into()
            }
        };
        if self.foreground == Foreground::None {
            return Ok((tokens, None));
        }
        let cls_attention = attention::mean(image.cls_attention()).to_vec();
        if cls_attention.len() < 2 {
            // Of one patch there is no component.
            return Ok((tokens, None));
        }
        let chosen = foreground_of(image.patch_tokens(), &cls_attention)?;
        let indices = chosen.iter().enumerate().filter(|&(_, &chosen)| chosen);
        let indices: Vec<usize> = indices.map(|(index, _)| index).collect();
        Ok((tokens.select(Axis(0), &indices).into(), Some(chosen)))
    }
}
