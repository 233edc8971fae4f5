//! From images with masks to a segmenter.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ndarray::{Axis, CowArray, Ix2, concatenate, s};

use super::{
    super::{
        anomaly::CONCURRENT,
        cached_features::CachedFeatures,
        extractor::{ExtractRequest, Extractor},
        images::{ImageOptions, Preparation},
        jobs::now_ms,
    },
    labeled::LabeledPatches,
    stored::{Segmenter, SegmenterInfo, class_name},
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Kind, Result, ResultExt},
    features::{
        mask::{LabelImage, class_mask, class_mask_size},
        probe::{Examples, TrainingOptions, train},
        progress::{Progress, Stage, Watch},
        segmentation::patch_classes,
    },
    vision::Size,
};

/// An image, and the mask with the class of each of its pixels.
#[derive(Debug, Clone)]
pub struct MaskedImage {
    /// The image file.
    pub image: Bytes,
    /// A PNG file, as [`class_mask`] reads it.
    pub mask: Bytes,
}

/// How a segmenter is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmenterOptions {
    /// Number of last blocks whose patch tokens are joined.
    pub layers: usize,
    /// Options of the training. Folds hold out whole images.
    pub training: TrainingOptions,
}

impl Default for SegmenterOptions {
    fn default() -> Self {
        Self {
            layers: 1,
            training: TrainingOptions {
                candidates: &CANDIDATES,
                ..TrainingOptions::default()
            },
        }
    }
}

/// What decides how images become a segmenter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) options: SegmenterOptions,
    pub(super) preparation: Preparation,
    /// Maximum number of patches of all images.
    pub(super) max_patches: usize,
    /// Maximum number of classes.
    pub(super) max_classes: usize,
}

/// Strengths of the penalty to choose from.
const CANDIDATES: [f64; 3] = [1e3, 1e2, 1e1];
/// Number of images from which on the strength is chosen. With fewer, one odd image decides, and
/// the choice is worse than [`USUAL`] (`docs/segments.md`).
const FEW: usize = 10;
/// Strength of the penalty for few images.
const USUAL: f64 = 1e2;
/// Seed of the choice of patches, so that the same images give the same segmenter.
const SEED: u64 = 22;

impl Extractor {
    /// Reads the labeled patches of images. `files` reads them; `about` says which of them an error
    /// is about, and `watch` gets the progress. An even sample of `max_patches` patches is kept, if
    /// there are more.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for a mask that has another size than its image.
    pub async fn labeled_patches(
        &self,
        files: Vec<impl Future<Output = Result<MaskedImage>>>,
        image: &ImageOptions,
        options: SegmenterOptions,
        max_patches: usize,
        about: impl Fn(Error, usize) -> Error,
        watch: impl Fn(Progress) -> bool + Send + Sync,
    ) -> Result<LabeledPatches> {
        self.check_options(&options)?;
        let recipe = Recipe {
            options,
            preparation: self.map_preparation(image),
            max_patches,
            max_classes: usize::MAX,
        };
        self.read_labeled(files, &recipe, about, &watch).await
    }

    /// Trains a segmenter that never leaves this process.
    ///
    /// # Errors
    /// As [`train`].
    pub async fn learn_segmenter(
        &self,
        patches: LabeledPatches,
        image: &ImageOptions,
        options: SegmenterOptions,
        watch: impl Fn(Progress) -> bool + Send + 'static,
    ) -> Result<Segmenter> {
        let recipe = Recipe {
            options,
            preparation: self.map_preparation(image),
            max_patches: usize::MAX,
            max_classes: usize::MAX,
        };
        let extractor = self.clone();
        let fit = move || {
            let segmenter = recipe.train(&extractor, patches, &mut |progress| watch(progress))?;
            segmenter.ok_or_else(|| Error::internal("the training was canceled"))
        };
        self.on_blocking_thread("training a segmenter", fit).await
    }

    /// Rejects options out of range.
    pub(super) fn check_options(&self, options: &SegmenterOptions) -> Result<()> {
        options.training.check()?;
        let most = self.engine().spec().architecture.layers();
        if (1..=most).contains(&options.layers) {
            return Ok(());
        }
        let range = format_args!("1 to {most}");
        Err(Error::out_of_range("layers", options.layers, range))
    }

    pub(super) async fn read_labeled(
        &self,
        files: Vec<impl Future<Output = Result<MaskedImage>>>,
        recipe: &Recipe,
        about: impl Fn(Error, usize) -> Error,
        watch: &(dyn Fn(Progress) -> bool + Send + Sync),
    ) -> Result<LabeledPatches> {
        let count = files.len();
        let most = (recipe.max_patches / count.max(1)).max(1);
        let mut read = stream::iter(files.into_iter().enumerate())
            .map(async |(index, file)| (index, self.patches_of(file, recipe, most).await))
            .buffered(CONCURRENT);
        let mut patches = LabeledPatches::default();
        loop {
            let done = patches.images.len();
            if !watch(Progress::new(Stage::Reading, done, Some(count))) {
                let detail = "the training was ended before it was ready";
                return Err(Error::new(Kind::NotFound, detail));
            }
            match read.next().await {
                Some((index, of_image)) => {
                    let of_image = of_image.map_err(|error| about(error, index))?;
                    patches.images.push(of_image);
                }
                None => return Ok(patches),
            }
        }
    }

    async fn patches_of(
        &self,
        file: impl Future<Output = Result<MaskedImage>>,
        recipe: &Recipe,
        most: usize,
    ) -> Result<Vec<(Vec<f32>, u8)>> {
        let MaskedImage { image, mask } = file.await?;
        let layers = recipe.options.layers;
        let request = request(layers, recipe.preparation, false);
        let image = self.extract_patiently(image, request).await?.value;
        let mask = self.read_mask(mask, image.placement.image).await?;
        let label = move || label_patches(&image, &mask, layers, most);
        self.on_blocking_thread("labeling patches", label).await
    }

    /// Reads a mask of a photograph, as soon as there is memory.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for a mask of another size.
    pub async fn read_mask(&self, mask: Bytes, photograph: Size) -> Result<LabelImage> {
        let limits = self.limits().decode;
        let header = mask.clone();
        let read = move || class_mask_size(&header, limits);
        let read = self.on_blocking_thread("reading the header of a mask", read);
        let (size, bytes) = read.await?;
        check_mask_size(size, photograph)?;
        let share = self.take_memory(bytes).await?;
        let read = move || {
            let _share = share;
            class_mask(&mask, limits)
        };
        self.on_blocking_thread("reading a mask", read).await
    }
}

/// Rejects a mask that has another size than its photograph.
pub(super) fn check_mask_size(mask: Size, photograph: Size) -> Result<()> {
    if mask == photograph {
        return Ok(());
    }
    let detail = format!(
        "the mask has {}×{} pixels, and its upright photograph {}×{}; they must be equal",
        mask.width, mask.height, photograph.width, photograph.height
    );
    Err(Error::new(Kind::InvalidOption, detail))
}

/// Returns what to extract of an image.
pub(super) fn request(layers: usize, preparation: Preparation, with_image: bool) -> ExtractRequest {
    let outputs = RequestedOutputs {
        patch_tokens: layers == 1,
        layers_patch: layers > 1,
        ..RequestedOutputs::default()
    };
    ExtractRequest {
        preparation,
        outputs,
        with_image,
    }
}

/// Returns the tokens of the last blocks, joined: `[patches, layers · dim]`.
pub(super) fn tokens_of(image: &CachedFeatures, layers: usize) -> Result<CowArray<'_, f32, Ix2>> {
    if layers == 1 {
        return Ok(image.patch_tokens().into());
    }
    let all = image.layers();
    let first = all.len_of(Axis(0)).saturating_sub(layers);
    let last = all.slice(s![first.., .., ..]);
    let last: Vec<_> = last.outer_iter().collect();
    let joined = concatenate(Axis(1), &last);
    Ok(joined.internal("joining the tokens of blocks")?.into())
}

fn label_patches(
    image: &Arc<CachedFeatures>,
    mask: &LabelImage,
    layers: usize,
    most: usize,
) -> Result<Vec<(Vec<f32>, u8)>> {
    let tokens = tokens_of(image, layers)?;
    let classes = patch_classes(mask, &image.placement, image.grid());
    let labeled = classes.iter().zip(tokens.rows());
    let mut patches: Vec<(Vec<f32>, u8)> = labeled
        .filter_map(|(class, token)| Some((token.to_vec(), (*class)?)))
        .collect();
    if patches.len() > most {
        fastrand::Rng::with_seed(SEED).shuffle(&mut patches);
        patches.truncate(most);
    }
    Ok(patches)
}

impl Recipe {
    /// Trains a segmenter. `None` if `watch` returns false.
    pub(super) fn train(
        &self,
        extractor: &Extractor,
        patches: LabeledPatches,
        watch: Watch<'_>,
    ) -> Result<Option<Segmenter>> {
        patches.check()?;
        let images = patches.len();
        let architecture = &extractor.engine().spec().architecture;
        let width = self.options.layers * architecture.dim;
        let mut examples = Examples::new(width, self.max_classes);
        for image in patches.images {
            examples.begin_group();
            for (token, class) in image {
                examples.add(token, &class_name(class))?;
            }
        }
        let mut options = self.options.training;
        if images < FEW {
            options.l2 = options.l2.or(Some(USUAL));
        }
        let Some(probe) = train(&examples, &options, watch)? else {
            return Ok(None);
        };
        let info = SegmenterInfo {
            model: extractor.id().clone(),
            preprocessing: self.preparation.preprocessing,
            layers: self.options.layers,
            images,
            trained_ms: now_ms(),
        };
        Segmenter::new(probe, info).map(Some)
    }
}
