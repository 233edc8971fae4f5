//! Labeled patches, from which a segmenter learns.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};

/// Labeled patches of images.
#[derive(Debug, Clone, Default)]
pub struct LabeledPatches {
    pub(super) images: Vec<Vec<(Vec<f32>, u8)>>,
}

impl LabeledPatches {
    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Returns the classes, sorted.
    pub fn classes(&self) -> Vec<u8> {
        let all = self.images.iter().flatten();
        let classes: BTreeSet<u8> = all.map(|(_, class)| *class).collect();
        classes.into_iter().collect()
    }

    /// Rejects a class of one patch in a single image, whose patches are held out in turn.
    fn check_counts(&self, classes: &[u8]) -> Result<()> {
        let [image] = self.images.as_slice() else {
            return Ok(());
        };
        let count = |class: u8| image.iter().filter(|(_, of)| *of == class).count();
        let Some(class) = classes.iter().find(|&&class| count(class) < 2) else {
            return Ok(());
        };
        let detail = format!("the class {class} is that of one patch only; mark more of it");
        Err(Error::new(Kind::InvalidOption, detail))
    }

    /// Returns the patches of the images that `keep` accepts by their index.
    #[must_use]
    pub fn of_images(&self, keep: impl Fn(usize) -> bool) -> Self {
        let images = self.images.iter().enumerate();
        let kept = images.filter(|&(index, _)| keep(index));
        Self {
            images: kept.map(|(_, image)| image.clone()).collect(),
        }
    }

    /// Rejects patches from which nothing can be learned.
    pub(super) fn check(&self) -> Result<()> {
        let classes = self.classes();
        check_classes(&classes)?;
        self.check_counts(&classes)
    }
}

/// Explains masks from which nothing can be learned.
fn check_classes(classes: &[u8]) -> Result<()> {
    let detail = match classes {
        [] => "the masks name no class: no patch has more than half of its pixels labeled; 255 is \
               ignored, an object is 1 to 254, and what surrounds it 0"
            .to_owned(),
        [0] => {
            "the masks have the class 0 only, and a segmenter tells classes apart; mark objects \
                with 1 to 254 (255 is ignored, so a mask of 0 and 255 has one class)"
                .to_owned()
        }
        [one] => format!(
            "the masks have the class {one} only, and a segmenter tells classes apart; mark what \
             surrounds the objects with 0"
        ),
        _ => return Ok(()),
    };
    Err(Error::new(Kind::InvalidOption, detail))
}
