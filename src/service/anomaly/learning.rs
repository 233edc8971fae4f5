//! From good images to a bank.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ndarray::Array2;

use super::{
    super::{
        extractor::Extractor,
        images::{ImageOptions, Preparation},
        jobs::now_ms,
    },
    options::BankOptions,
    stored::BankInfo,
};
use crate::{
    error::{Error, Kind, Result},
    features::{
        anomaly::{Bank, GoodImages},
        progress::{Progress, Stage, Watch},
    },
    names::plural,
};

/// Number of images that a training has in flight, so that requests come in between.
pub(in crate::service) const CONCURRENT: usize = 2;

/// Minimum number of patches of an image. What is special about a patch is seen by the others.
const MIN_PATCHES: usize = 4;

/// What decides how good images become a bank.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) options: BankOptions,
    pub(super) preparation: Preparation,
    /// Maximum number of patches of all images.
    pub(super) max_patches: usize,
}

impl Extractor {
    /// Makes a bank of good images that never leaves this process. `files` reads them; `about` says
    /// which of them an error is about, and `watch` gets the progress. An even sample of
    /// `max_patches` patches is kept, if there are more.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if `watch` returns false.
    pub async fn learn_bank(
        &self,
        files: Vec<impl Future<Output = Result<Bytes>>>,
        image: &ImageOptions,
        options: BankOptions,
        max_patches: usize,
        about: impl Fn(Error, usize) -> Error,
        watch: impl Fn(Progress) -> bool + Send + Sync + 'static,
    ) -> Result<(Bank, BankInfo)> {
        options.check()?;
        let recipe = Recipe {
            options,
            preparation: self.map_preparation(image),
            max_patches,
        };
        let good = self
            .add_good_images(None, files, &recipe, about, &watch)
            .await?;
        let learn = move || {
            let mut watch = |progress| watch(progress);
            let bank = Bank::learn(good, options.coreset, &mut watch);
            bank.ok_or_else(canceled)
        };
        let bank = self.on_blocking_thread("making a bank", learn).await?;
        let info = recipe.describe(self, &bank);
        Ok((bank, info))
    }

    /// Adds the tokens of images to those of a bank.
    ///
    /// # Errors
    /// That of the first image that cannot be used, as `about` it.
    pub(super) async fn add_good_images(
        &self,
        good: Option<GoodImages>,
        files: Vec<impl Future<Output = Result<Bytes>>>,
        recipe: &Recipe,
        about: impl Fn(Error, usize) -> Error,
        watch: &(dyn Fn(Progress) -> bool + Send + Sync),
    ) -> Result<GoodImages> {
        let options = recipe.options;
        let architecture = &self.engine().spec().architecture;
        let dim = options.dim(architecture.dim, architecture.layers());
        let mut good = good.unwrap_or_else(|| GoodImages::new(dim));
        let count = files.len();
        let images = good.images().len() + count * usize::from(options.copies());
        // Wider tokens take as much memory as more patches.
        let max_patches = recipe.max_patches / (dim / architecture.dim);
        let most = (max_patches / images.max(1)).max(1);
        good.shrink(most);
        let mut read = stream::iter(files.into_iter().enumerate())
            .map(async |(index, file)| (index, self.tokens_of_copies(file, recipe).await))
            .buffered(CONCURRENT);
        let mut done = 0;
        loop {
            if !watch(Progress::new(Stage::Reading, done, Some(count))) {
                return Err(canceled());
            }
            let Some((index, copies)) = read.next().await else {
                return Ok(good);
            };
            let copies = copies.map_err(|error| about(error, index))?;
            let source = good.next_source();
            for tokens in copies {
                if tokens.nrows() < MIN_PATCHES {
                    return Err(about(too_few(tokens.nrows()), index));
                }
                good.add(tokens.view(), source, most);
            }
            done += 1;
        }
    }

    /// Returns the tokens of a photograph and of its turned copies.
    async fn tokens_of_copies(
        &self,
        file: impl Future<Output = Result<Bytes>>,
        recipe: &Recipe,
    ) -> Result<Vec<Array2<f32>>> {
        let file = file.await?;
        let options = recipe.options;
        let mut copies = Vec::new();
        for quarter_turns in 0..options.copies() {
            let preparation = Preparation {
                quarter_turns,
                ..recipe.preparation
            };
            let request = options.request(preparation, false);
            let image = self.extract_patiently(file.clone(), request).await?.value;
            let tokens = move || Ok(options.tokens_of(&image)?.0.into_owned());
            let tokens = self.on_blocking_thread("reading tokens", tokens);
            copies.push(tokens.await?);
        }
        Ok(copies)
    }
}

impl Recipe {
    /// Makes a bank. `None` if `watch` returns false.
    pub(super) fn learn(&self, good: GoodImages, watch: Watch<'_>) -> Option<Bank> {
        Bank::learn(good, self.options.coreset, watch)
    }

    /// Describes a bank.
    pub(super) fn describe(&self, extractor: &Extractor, bank: &Bank) -> BankInfo {
        BankInfo {
            model: extractor.id().clone(),
            preprocessing: self.preparation.preprocessing,
            options: self.options,
            images: bank.good.sources(),
            patches: bank.good.patches(),
            entries: bank.chosen.len(),
            threshold: bank.calibration.threshold,
            trained_ms: now_ms(),
        }
    }
}

fn canceled() -> Error {
    let detail = "the work on the bank was ended before it was ready";
    Error::new(Kind::NotFound, detail)
}

fn too_few(patches: usize) -> Error {
    let detail = format_args!(
        "the image has {} that count, and a bank needs at least {MIN_PATCHES}; use a larger one",
        plural(patches, "patch")
    );
    Error::option("size", detail)
}
