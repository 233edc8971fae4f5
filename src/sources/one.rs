//! A single image as a source.

use futures_util::{StreamExt, stream, stream::BoxStream};

use super::{Listed, Source, SourceImage};
use crate::error::Result;

/// A single image.
pub(super) struct One(pub(super) SourceImage);

impl Source for One {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        let listed = Listed::Image(Box::new(self.0));
        stream::once(async { Ok(listed) }).boxed()
    }

    fn is_quick(&self) -> bool {
        true
    }
}
