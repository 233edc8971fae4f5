//! Reference features of one image size: the input and the expected outputs.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use image::Rgb;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::{
    artifacts::map_file,
    hex,
    onnx::weights::{TensorMap, read_safetensors},
    vision::{PatchSize, RgbImage},
};

/// Maximum side of an image, in pixels.
const MAX_SIDE: usize = 4096;

/// The references of one size.
pub(super) struct Reference {
    /// Size as text, `HEIGHTxWIDTH`.
    pub(super) size: String,
    pub(super) pixels: RgbImage,
    pub(super) expected: TensorMap,
}

/// Returns the files in `folder` that are called `{prefix}{HEIGHT}x{WIDTH}.safetensors`, sorted.
pub(super) fn files(folder: &Path, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| size_of(path, prefix).is_some())
        .collect();
    files.sort();
    Ok(files)
}

/// Returns height and width in the name of a file of references.
fn size_of(path: &Path, prefix: &str) -> Option<(usize, usize)> {
    let name = path.file_name()?.to_str()?;
    let size = name.strip_prefix(prefix)?.strip_suffix(".safetensors")?;
    let (height, width) = size.split_once('x')?;
    Some((height.parse().ok()?, width.parse().ok()?))
}

impl Reference {
    /// Reads a file of references. Its input is the tensor `pixels` `[height, width, 3]`, else the
    /// image formula; the hash in its metadata is checked if there is one.
    pub(super) fn read(path: &Path, prefix: &str, patch: PatchSize) -> anyhow::Result<Self> {
        let context = || path.display().to_string();
        let (height, width) = size_of(path, prefix).with_context(context)?;
        let is_whole = |side: usize| side > 0 && side.is_multiple_of(patch.pixels());
        ensure!(
            is_whole(height) && is_whole(width) && height.max(width) <= MAX_SIDE,
            "{}: both sides must be multiples of the patch size {}, up to {MAX_SIDE}",
            path.display(),
            patch.pixels()
        );
        let file = map_file(path)?;
        let (_, header) = SafeTensors::read_metadata(&file).with_context(context)?;
        let tensors = SafeTensors::deserialize(&file).with_context(context)?;
        let pixels = match tensors.tensor("pixels") {
            Ok(stored) => {
                let is_image = stored.dtype() == Dtype::U8 && stored.shape() == [height, width, 3];
                ensure!(
                    is_image,
                    "{}: `pixels` is not [{height}, {width}, 3] of bytes",
                    path.display()
                );
                RgbImage::from_raw(width as u32, height as u32, stored.data().to_vec())
                    .with_context(context)?
            }
            Err(_) => formula(height, width),
        };
        let said = header.metadata().as_ref();
        if let Some(hash) = said.and_then(|metadata| metadata.get("pixels_sha256")) {
            let found = hex::encode(&Sha256::digest(pixels.as_raw()));
            ensure!(
                *hash == found,
                "{}: the references are of another image (SHA-256 {hash}, not {found})",
                path.display()
            );
        }
        Ok(Self {
            size: format!("{height}x{width}"),
            pixels,
            expected: read_safetensors(&[file])?,
        })
    }
}

/// Computes the image from which references without `pixels` were made.
fn formula(height: usize, width: usize) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        Rgb([0, 1, 2].map(|channel: u32| {
            let blocks = (x / 14) * (y / 14) * 31 % 61;
            ((7 * x + 13 * y + 29 * channel + (x * y) % 97 + blocks) % 256) as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_that_of_the_references() {
        let hash = hex::encode(&Sha256::digest(formula(96, 96).as_raw()));
        assert_eq!(
            hash,
            "f3fc676d25b203ddcfc169a8eef0995ede3ada2edd41dc886408476976cd7a6d"
        );
    }

    #[test]
    fn names_say_the_size() {
        let size = |name: &str| size_of(Path::new(name), "expected_");
        assert_eq!(size("x/expected_112x448.safetensors"), Some((112, 448)));
        assert_eq!(size("hf_expected_112x448.safetensors"), None);
        assert_eq!(size("expected_112.safetensors"), None);
    }
}
