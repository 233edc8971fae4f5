//! The objects below a prefix of a store.

use futures_util::{StreamExt, stream, stream::BoxStream};
use glob::Pattern;

use super::{
    Listed, ObjectPlace, Source, SourceImage,
    folder::{has_image_extension, kind_by_name, matches_below},
    image::{Content, label_of},
};
use crate::{
    error::{Error, Kind, Result},
    vision::image_extensions,
};

/// The images below a prefix: objects with an extension of images, and those without an extension.
pub(super) struct Prefix {
    pub(super) place: ObjectPlace,
    /// Begins each id, if several sources are read.
    pub(super) prefix: String,
    /// What keys below the prefix must match.
    pub(super) pattern: Option<Pattern>,
}

impl Source for Prefix {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        let objects = self.place.list();
        let mut has_images = false;
        let none = self.no_images();
        let listed = objects.filter_map(move |object| {
            let listed = match object {
                Err(error) => Some(Err(error)),
                Ok((object, identity)) => {
                    let key = self.place.below(&object);
                    let matches = match &self.pattern {
                        Some(pattern) => matches_below(pattern, &key),
                        None => true,
                    };
                    // An empty object without an extension stands for a folder.
                    let is_folder = identity.bytes == 0 && !kind_by_name(&key).starts_with('.');
                    (matches && !is_folder).then(|| Ok(self.listed(key, object, identity)))
                }
            };
            std::future::ready(listed)
        });
        // An empty listing is an error, after its last object.
        let ended = stream::once(async { None });
        let listed = listed.map(Some).chain(ended);
        listed
            .filter_map(move |listed| {
                has_images |= matches!(listed, Some(Ok(Listed::Image(_)) | Err(_)));
                std::future::ready(match listed {
                    None if !has_images => Some(Err(Error::new(Kind::InvalidOption, none.clone()))),
                    listed => listed,
                })
            })
            .boxed()
    }
}

impl Prefix {
    fn no_images(&self) -> String {
        format!(
            "{}: the prefix has no images; supported extensions: {}",
            self.place,
            image_extensions().join(", ")
        )
    }

    fn listed(&self, key: String, place: ObjectPlace, identity: super::Identity) -> Listed {
        let kind = kind_by_name(&key);
        let name = self.prefix.clone() + &key;
        if has_image_extension(key.as_ref()) || !kind.starts_with('.') {
            return Listed::Image(Box::new(SourceImage {
                label: label_of(&key),
                id: name,
                metadata: None,
                origin: place.to_string(),
                line: None,
                content: Content::Object { place, identity },
            }));
        }
        Listed::Skipped {
            name,
            kind,
            advice: None,
        }
    }
}
