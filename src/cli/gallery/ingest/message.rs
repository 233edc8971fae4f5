//! What a message holds: an image, or a line of JSON with the address of one.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::Value;

use crate::{
    cli::gallery::entry::EntryImage,
    error::{Error, Result},
    gallery::ItemId,
    sources::{Place, SourceImage, image_of_line},
};

/// Header that says why a message was rejected.
pub(super) const ERROR: &str = "Dinoserve-Error";

/// Reads a message. An image without an id gets the SHA-256 of its file; `root` has the relative
/// paths of lines.
pub(super) fn image_of_message(
    payload: &Bytes,
    headers: Option<&HeaderMap>,
    origin: String,
    root: Option<&Place>,
) -> Result<EntryImage> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut image = match first {
        None => return Err(Error::malformed("the message is empty")),
        // No image file begins with it.
        Some(b'{') => {
            let line = std::str::from_utf8(payload);
            let line = line.map_err(|error| Error::malformed(format!("not UTF-8: {error}")))?;
            image_of_line(line, root)?
        }
        Some(_) => {
            let id = ItemId::of_content(payload).into();
            SourceImage::in_memory(id, payload.clone(), origin)
        }
    };
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        let value = values.last().map_or("", |value| value.as_str()).to_owned();
        match name.to_ascii_lowercase().as_str() {
            "dinoserve-id" => image.id = value,
            "dinoserve-label" => image.label = Some(value),
            "dinoserve-metadata" => {
                let parsed: Value = serde_json::from_str(&value)
                    .map_err(|error| Error::option(name, format_args!("no JSON: {error}")))?;
                image.metadata = Some(parsed);
            }
            // Rejected messages may be sent again.
            "dinoserve-error" => {}
            other if other.starts_with("dinoserve-") => {
                let detail = "unknown; known are Dinoserve-Id, Dinoserve-Label, Dinoserve-Metadata";
                return Err(Error::option(name, detail));
            }
            _ => {}
        }
    }
    EntryImage::new(Box::new(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str, headers: &[(&str, &str)]) -> Result<EntryImage> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        image_of_message(&payload, Some(&map), "message 1".to_owned(), None)
    }

    #[test]
    fn an_image_has_the_id_of_its_content_unless_stated() {
        // printf image | sha256sum
        let hash = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";
        assert_eq!(read("image", &[]).expect("valid").id.as_str(), hash);
        let headers = [
            ("dinoserve-id", "cup/1"),
            ("Dinoserve-Label", "cup"),
            ("Dinoserve-Metadata", "{\"year\": 2024}"),
            ("Nats-Msg-Id", "7"),
            ("Dinoserve-Error", "why it was rejected"),
        ];
        let entry = read("image", &headers).expect("valid");
        assert_eq!(entry.id.as_str(), "cup/1");
        assert_eq!(entry.label.expect("a label").as_str(), "cup");
        assert_eq!(entry.metadata.object()["year"], 2024);
    }

    #[test]
    fn a_line_of_json_names_an_image() {
        let line = r#" {"path": "https://host/a.png", "label": "cup"}"#;
        let entry = read(line, &[]).expect("valid");
        assert_eq!(entry.id.as_str(), "https://host/a.png");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (payload, headers, part) in [
            ("", [("Dinoserve-Id", "a")], "empty"),
            ("image", [("Dinoserve-Labels", "cup")], "Dinoserve-Label,"),
            ("image", [("Dinoserve-Metadata", "{")], "no JSON"),
            (
                "image",
                [("Dinoserve-Metadata", "[1]")],
                "must be a JSON object",
            ),
            ("image", [("Dinoserve-Id", "")], "id"),
            (
                r#"{"path": "/etc/passwd"}"#,
                [("Dinoserve-Id", "a")],
                "root",
            ),
            ("{}", [("Dinoserve-Id", "a")], "path"),
        ] {
            let Err(error) = read(payload, &headers) else {
                panic!("{payload} {headers:?}")
            };
            assert!(error.detail().contains(part), "{error}");
        }
    }
}
