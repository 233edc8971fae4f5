//! Contents of a body apart from options: images, a vector, or items.

use bytes::Bytes;

use crate::{
    error::{Error, Kind, Result},
    gallery::ItemId,
    http::request::options::Options,
    names::plural,
    service::{MaskedImage, QueryInput},
};

/// Hint at the end of error messages about the form of a body.
pub(crate) const ACCEPTED_BODIES: &str = "send an image (Content-Type: image/* or \
     application/octet-stream), multipart/form-data, or application/json";

/// What a body may hold in addition to options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// One or more images.
    Images,
    /// One or more images, or one vector.
    ImagesOrVector,
    /// One or more images, each with a mask.
    MaskedImages,
    /// Several items, each with its own options.
    Items,
    /// One or more images in the JSON member `input`, as OpenAI's clients send them.
    Input,
    /// JSON options only.
    Options,
}

/// Part of a parsed body that an operation works on.
pub(crate) trait Contents: Sized {
    /// What the body may hold.
    const KIND: BodyKind;

    /// Takes the part, or fails if the body lacks it.
    fn from_body(body: ParsedBody) -> Result<Self>;
}

/// At least one image file.
pub(crate) struct Images(pub(crate) Vec<Bytes>);

impl Contents for Images {
    const KIND: BodyKind = BodyKind::Images;

    fn from_body(body: ParsedBody) -> Result<Self> {
        let detail = format!("the request contains no image; {ACCEPTED_BODIES}");
        non_empty(body.images, &detail).map(Self)
    }
}

/// At least one image file, each with its mask.
pub(crate) struct MaskedImages(pub(crate) Vec<MaskedImage>);

impl Contents for MaskedImages {
    const KIND: BodyKind = BodyKind::MaskedImages;

    fn from_body(body: ParsedBody) -> Result<Self> {
        let (images, masks) = (body.images.len(), body.masks.len());
        if images != masks || images == 0 {
            let (images, masks) = (plural(images, "image"), plural(masks, "mask"));
            return Err(Error::malformed(format!(
                "the request has {images} and {masks}; send a mask for each image in the same \
                 order, as files named `image` and `mask` of multipart/form-data, or as lists \
                 `images` and `masks` in JSON"
            )));
        }
        let pairs = body.images.into_iter().zip(body.masks);
        let masked = pairs.map(|(image, mask)| MaskedImage { image, mask });
        Ok(Self(masked.collect()))
    }
}

/// At least one image file, from the member `input` of a JSON body.
pub(crate) struct InputImages(pub(crate) Vec<Bytes>);

impl Contents for InputImages {
    const KIND: BodyKind = BodyKind::Input;

    fn from_body(body: ParsedBody) -> Result<Self> {
        let detail = "`input` contains no image; send a data: URI, base64, or a list of them";
        non_empty(body.images, detail).map(Self)
    }
}

/// At least one image file, or exactly one vector.
pub(crate) struct QueryInputs(pub(crate) Vec<QueryInput>);

impl Contents for QueryInputs {
    const KIND: BodyKind = BodyKind::ImagesOrVector;

    fn from_body(body: ParsedBody) -> Result<Self> {
        let inputs = match (body.images.is_empty(), body.vector) {
            (false, None) => body.images.into_iter().map(QueryInput::Image).collect(),
            (true, Some(vector)) => vec![QueryInput::Vector(vector)],
            (false, Some(_)) => {
                let detail = "the request contains both an image and a `vector`; send one of them";
                return Err(Error::malformed(detail));
            }
            (true, None) => {
                let detail = "the request contains neither an image nor a `vector`";
                return Err(Error::malformed(format!("{detail}; {ACCEPTED_BODIES}")));
            }
        };
        Ok(Self(inputs))
    }
}

impl QueryInputs {
    /// Returns the only input, or fails if there are several.
    pub(crate) fn single(self) -> Result<QueryInput> {
        let [input] = <[_; 1]>::try_from(self.0).map_err(|inputs| {
            Error::malformed(format!("an item has one image, not {}", inputs.len()))
        })?;
        Ok(input)
    }
}

/// At least one item.
pub(crate) struct Batch(pub(crate) Vec<BatchEntry>);

impl Contents for Batch {
    const KIND: BodyKind = BodyKind::Items;

    fn from_body(body: ParsedBody) -> Result<Self> {
        let detail = "the request contains no item; send files as multipart/form-data, or \
            {\"items\": [..]} as JSON";
        non_empty(body.into_entries()?, detail).map(Self)
    }
}

fn non_empty<T>(contents: Vec<T>, detail: &str) -> Result<Vec<T>> {
    if contents.is_empty() {
        return Err(Error::malformed(detail));
    }
    Ok(contents)
}

/// Nothing but options.
impl Contents for () {
    const KIND: BodyKind = BodyKind::Options;

    fn from_body(_: ParsedBody) -> Result<Self> {
        Ok(())
    }
}

/// An item of a batch. An item that cannot be read fails alone.
pub(crate) struct BatchEntry {
    /// Id that the item states, if it can be read even though the rest cannot.
    pub(crate) id: Option<String>,
    /// Name of the item's file.
    pub(crate) file_name: Option<String>,
    /// Image or vector with the item's options, or what is wrong with them.
    pub(crate) content: Result<(QueryInput, Options)>,
}

impl BatchEntry {
    /// Joins a file of a form with its entry of the listing.
    fn from_file(image: Bytes, file_name: Option<String>, listed: ListingEntry) -> Self {
        let options = listed.options;
        Self {
            id: listed.id,
            file_name,
            content: options.map(|options| (QueryInput::Image(image), options)),
        }
    }

    /// Makes the name of the file the id of an item that states none.
    pub(crate) fn take_file_name(&mut self) {
        if !self.states_id() {
            self.id = self.file_name.take();
        }
    }

    /// Makes the SHA-256 of the file the id of an image that states none.
    pub(crate) fn hash_file(&mut self) {
        if let Ok((QueryInput::Image(file), _)) = &self.content
            && !self.states_id()
        {
            self.id = Some(ItemId::of_content(file).into());
        }
    }

    /// Returns whether the item states an id, even one that cannot be read.
    fn states_id(&self) -> bool {
        let listed = self.content.as_ref().ok();
        self.id.is_some() || listed.is_some_and(|(_, options)| options.contains("id"))
    }
}

/// Id and options of a file, from the form part `items`.
pub(crate) struct ListingEntry {
    /// Id, if it can be read.
    pub(crate) id: Option<String>,
    /// Options, or what is wrong with them.
    pub(crate) options: Result<Options>,
}

impl Default for ListingEntry {
    fn default() -> Self {
        let options = Ok(Options::default());
        Self { id: None, options }
    }
}

/// Everything that was read from a body, apart from options.
pub(crate) struct ParsedBody {
    /// What the body may hold.
    pub(crate) kind: BodyKind,
    /// Maximum number of images, and of items.
    max_images: usize,
    images: Vec<Bytes>,
    /// File name of each image.
    names: Vec<Option<String>>,
    /// Masks of the images.
    masks: Vec<Bytes>,
    vector: Option<Vec<f32>>,
    entries: Vec<BatchEntry>,
    /// Ids and options of the images, from the form part `items`.
    listing: Option<Vec<ListingEntry>>,
}

impl ParsedBody {
    /// Creates an empty body that accepts up to `max_images` images or items.
    pub(crate) fn new(kind: BodyKind, max_images: usize) -> Self {
        Self {
            kind,
            max_images,
            images: Vec::new(),
            names: Vec::new(),
            masks: Vec::new(),
            vector: None,
            entries: Vec::new(),
            listing: None,
        }
    }

    /// Returns the number of images.
    pub(crate) fn image_count(&self) -> usize {
        self.images.len()
    }

    /// Adds an image file, with its name if it has one.
    pub(crate) fn add_image(&mut self, image: Bytes, name: Option<String>) -> Result<()> {
        if self.images.len() == self.max_images {
            return Err(self.too_many("images"));
        }
        self.images.push(image);
        self.names.push(name);
        Ok(())
    }

    /// Adds the mask of an image.
    pub(crate) fn add_mask(&mut self, mask: Bytes) -> Result<()> {
        if self.masks.len() == self.max_images {
            return Err(self.too_many("masks"));
        }
        self.masks.push(mask);
        Ok(())
    }

    /// Adds an item. Calls `read` with the maximum number of images, and only if there is room.
    pub(crate) fn add_entry(&mut self, read: impl FnOnce(usize) -> BatchEntry) -> Result<()> {
        if self.entries.len() == self.max_images {
            return Err(self.too_many("items"));
        }
        self.entries.push(read(self.max_images));
        Ok(())
    }

    /// Sets the vector; fails if there is one already.
    pub(crate) fn add_vector(&mut self, vector: Vec<f32>) -> Result<()> {
        match self.vector.replace(vector) {
            None => Ok(()),
            Some(_) => Err(Error::option("vector", "given twice")),
        }
    }

    /// Sets the ids and options of the images.
    pub(crate) fn set_listing(&mut self, listing: Vec<ListingEntry>) {
        self.listing = Some(listing);
    }

    fn too_many(&self, what: &str) -> Error {
        let max = self.max_images;
        let detail = format!(
            "the request contains more than {max} {what}; split it into several requests, or raise \
             the limit"
        );
        Error::new(Kind::TooLarge, detail).with_limit("max_images", max as u64, "--max-images")
    }

    /// Returns the items of a JSON body, or the files of a form as items.
    fn into_entries(self) -> Result<Vec<BatchEntry>> {
        if self.images.is_empty() {
            return Ok(self.entries);
        }
        if let Some(listing) = &self.listing
            && listing.len() != self.images.len()
        {
            let detail = format!(
                "the list has {} entries, but the form has {} files; send one entry per file",
                listing.len(),
                self.images.len()
            );
            return Err(Error::option("items", detail));
        }
        let mut listing = self.listing.unwrap_or_default().into_iter();
        let mut entries = Vec::with_capacity(self.images.len());
        for (image, name) in self.images.into_iter().zip(self.names) {
            let listed = listing.next().unwrap_or_default();
            entries.push(BatchEntry::from_file(image, name, listed));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn form(names: &[&str]) -> ParsedBody {
        let mut body = ParsedBody::new(BodyKind::Items, names.len());
        for name in names {
            body.add_image(Bytes::from_static(b"image"), Some((*name).to_owned()))
                .unwrap();
        }
        body
    }

    fn listed(id: &str) -> ListingEntry {
        let mut options = Options::default();
        options
            .add("id".to_owned(), Value::String(id.to_owned()))
            .unwrap();
        ListingEntry {
            id: Some(id.to_owned()),
            options: Ok(options),
        }
    }

    fn ids(body: ParsedBody) -> Vec<Option<String>> {
        let Batch(mut entries) = Batch::from_body(body).unwrap();
        entries.iter_mut().for_each(BatchEntry::take_file_name);
        entries.into_iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn file_names_are_the_default_ids() {
        let expected = [Some("a.png".to_owned()), Some("b.png".to_owned())];
        assert_eq!(ids(form(&["a.png", "b.png"])), expected);
    }

    #[test]
    fn listed_ids_win_over_file_names() {
        let mut body = form(&["a.png", "b.png"]);
        body.set_listing(vec![listed("first"), ListingEntry::default()]);
        assert_eq!(
            ids(body),
            [Some("first".to_owned()), Some("b.png".to_owned())]
        );
    }

    #[test]
    fn the_hash_of_a_file_is_the_id_of_an_image_that_states_none() {
        let mut body = form(&["a.png", "b.png"]);
        body.set_listing(vec![listed("first"), ListingEntry::default()]);
        let Batch(mut entries) = Batch::from_body(body).unwrap();
        entries.iter_mut().for_each(BatchEntry::hash_file);
        let ids: Vec<_> = entries.into_iter().map(|entry| entry.id.unwrap()).collect();
        // printf image | sha256sum
        let hash = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";
        assert_eq!(ids, ["first", hash]);
    }

    #[test]
    fn a_listing_needs_one_entry_per_file() {
        let mut body = form(&["a.png", "b.png"]);
        body.set_listing(vec![listed("first")]);
        let error = Batch::from_body(body).err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidOption);
        assert!(error.detail().contains("1 entries"), "{error}");
    }

    #[test]
    fn the_number_of_images_is_limited() {
        let mut body = form(&["a.png"]);
        let error = body.add_image(Bytes::new(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }

    #[test]
    fn an_image_and_a_vector_exclude_each_other() {
        let mut body = ParsedBody::new(BodyKind::ImagesOrVector, 1);
        body.add_vector(vec![1.0]).unwrap();
        body.add_image(Bytes::new(), None).unwrap();
        let error = QueryInputs::from_body(body).err().unwrap();
        assert_eq!(error.kind(), Kind::Malformed);
    }
}
