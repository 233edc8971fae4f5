//! Lists of images: CSV, JSONL, or a path a line.

use std::{
    fmt::Display,
    io::{BufRead, BufReader, Read, stdin},
    path::{Component, Path},
};

use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde_json::Value;

use super::{Listed, Place, Source, SourceImage, blocking_list, store::ObjectPlace};
use crate::error::{Error, Kind, Result};

/// The columns of a CSV file and the members of a line of JSONL. Only `path` is required.
const COLUMNS: [&str; 4] = ["path", "id", "label", "metadata"];

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// With a header.
    Csv,
    Jsonl,
    /// A path a line.
    Text,
    /// Each line is a path or one of JSONL.
    Mixed,
}

/// A list of images.
pub(super) struct List {
    /// `None` for standard input.
    pub(super) place: Option<Place>,
    pub(super) format: Format,
    /// Begins the names of lines, if several sources are read.
    pub(super) prefix: String,
}

/// A row of a list. Metadata are an object in JSONL, and its text in CSV.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<M> {
    path: String,
    id: Option<String>,
    label: Option<String>,
    metadata: Option<M>,
}

impl<M> Row<M> {
    fn of_path(path: String) -> Self {
        Self {
            path,
            id: None,
            label: None,
            metadata: None,
        }
    }
}

impl Source for List {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        blocking_list(move |send| {
            let reader: Box<dyn Read> = match &self.place {
                Some(place) => place.open()?.0,
                None => Box::new(stdin().lock()),
            };
            let mut is_empty = true;
            self.read(BufReader::new(reader), &mut |listed| {
                is_empty = false;
                send(listed)
            })?;
            if is_empty {
                let list = self.name();
                let detail = format!("{list} is empty; give the path of an image on each line");
                return Err(Error::new(Kind::InvalidOption, detail));
            }
            Ok(())
        })
    }

    fn is_quick(&self) -> bool {
        matches!(self.place, Some(Place::Local(_)))
    }
}

impl List {
    fn name(&self) -> String {
        match &self.place {
            Some(place) => format!("the list {place}"),
            None => "the list on standard input".to_owned(),
        }
    }

    fn read(&self, lines: impl BufRead, send: &mut dyn FnMut(Listed) -> bool) -> Result<()> {
        match self.format {
            Format::Csv => self.read_csv(lines, send),
            Format::Jsonl | Format::Text | Format::Mixed => self.read_lines(lines, send),
        }
    }

    fn read_csv(&self, file: impl Read, send: &mut dyn FnMut(Listed) -> bool) -> Result<()> {
        let failed = |error: csv::Error| {
            let detail = format!("cannot read {}: {error}", self.name());
            Error::new(Kind::Io, detail).with_source(error)
        };
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(failed)?;
        let known = header.iter().all(|column| COLUMNS.contains(&column));
        if !known || !header.iter().any(|column| column == "path") {
            let found = header.iter().collect::<Vec<_>>().join(",");
            let detail = format!(
                "{}: the header is invalid: {found:?}; its columns must be among {}, and path is \
                 required",
                self.name(),
                COLUMNS.join(", ")
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        for (index, row) in reader.deserialize::<Row<String>>().enumerate() {
            let row = match row {
                // A failing disk ends the list, not the line.
                Err(error) if error.is_io_error() => return Err(failed(error)),
                row => row,
            };
            let parse = |text: String| {
                serde_json::from_str(&text)
                    .map_err(|error| Error::option("metadata", format_args!("no JSON: {error}")))
            };
            // The header is line 1.
            if !send(self.listed(index + 2, row, parse)) {
                break;
            }
        }
        Ok(())
    }

    fn read_lines(&self, lines: impl BufRead, send: &mut dyn FnMut(Listed) -> bool) -> Result<()> {
        for (index, line) in lines.lines().enumerate() {
            let number = index + 1;
            let line = line.map_err(|error| {
                Error::io(
                    format_args!("reading {}, line {number}", self.name()),
                    error,
                )
            })?;
            if line.trim().is_empty() {
                continue;
            }
            let is_path = match self.format {
                Format::Text => true,
                Format::Mixed => !line.starts_with('{'),
                Format::Csv | Format::Jsonl => false,
            };
            let row = match is_path {
                true => Ok(Row::of_path(line)),
                false => serde_json::from_str(&line),
            };
            if !send(self.listed(number, row, Ok)) {
                break;
            }
        }
        Ok(())
    }

    fn listed<M>(
        &self,
        number: usize,
        row: Result<Row<M>, impl Display>,
        parse: impl FnOnce(M) -> Result<Value>,
    ) -> Listed {
        let line = format!("{}line {number}", self.prefix);
        let row = row.map_err(|error| Error::option("line", error));
        match row.and_then(|row| self.image(row, line.clone(), parse)) {
            Ok(image) => Listed::Image(Box::new(image)),
            Err(error) => Listed::Failed { name: line, error },
        }
    }

    fn image<M>(
        &self,
        row: Row<M>,
        line: String,
        parse: impl FnOnce(M) -> Result<Value>,
    ) -> Result<SourceImage> {
        let metadata = row.metadata.map(parse).transpose()?;
        let place = match &self.place {
            Some(list) => list.with_name(&row.path)?,
            None => Place::parse(&row.path)?,
        };
        let mut image = SourceImage::listed(row.id.unwrap_or(row.path), place, line);
        image.label = row.label;
        image.metadata = metadata;
        Ok(image)
    }
}

/// Reads a line of a JSONL list that others write: its path is an address, or one below `root`.
///
/// # Errors
/// [`Kind::InvalidOption`] for an invalid line, or a path that is not below `root`.
pub fn image_of_line(line: &str, root: Option<&Place>) -> Result<SourceImage> {
    let row: Row<Value> =
        serde_json::from_str(line).map_err(|error| Error::option("line", error))?;
    let place = match root {
        _ if row.path.contains("://") => ObjectPlace::parse(&row.path).map(Place::Object)?,
        Some(root) if is_below(&row.path) => root.join(&row.path)?,
        Some(_) => {
            let detail = format_args!("{:?} is not below the root", row.path);
            return Err(Error::option("path", detail));
        }
        None => {
            let detail = format_args!(
                "{:?} is no address, such as s3://photos/cat.jpg, and there is no root for paths",
                row.path
            );
            return Err(Error::option("path", detail));
        }
    };
    let mut image = SourceImage::listed(row.id.unwrap_or(row.path), place, String::new());
    image.line = None;
    image.label = row.label;
    image.metadata = row.metadata;
    Ok(image)
}

/// Whether a path leads to something below the folder that it is relative to.
fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &str) -> Result<Vec<Listed>> {
        let place = Place::parse("/data/list").expect("a path");
        let list = List {
            place: (format != Format::Mixed).then_some(place),
            format,
            prefix: String::new(),
        };
        let mut found = Vec::new();
        list.read(text.as_bytes(), &mut |listed| {
            found.push(listed);
            true
        })?;
        Ok(found)
    }

    fn image(listed: &Listed) -> &SourceImage {
        match listed {
            Listed::Image(image) => image,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_id_is_the_path_unless_given() {
        let text = "path,id,metadata\na.png,,\nb.png,c,\"{\"\"x\"\": 1}\"\n";
        let found = read(Format::Csv, text).expect("a list");
        assert_eq!(image(&found[0]).id, "a.png");
        assert_eq!(
            image(&found[0]).origin,
            "/data/a.png",
            "relative to the list"
        );
        let second = image(&found[1]);
        assert_eq!(
            (second.id.as_str(), second.line.as_deref()),
            ("c", Some("line 3"))
        );
        assert_eq!(second.metadata, Some(serde_json::json!({"x": 1})));
    }

    #[test]
    fn a_header_needs_a_path_and_no_other_columns() {
        for header in ["id,label", "path,color"] {
            let error = read(Format::Csv, &format!("{header}\na,b\n")).expect_err(header);
            assert!(error.detail().contains("path, id, label, metadata"));
        }
    }

    #[test]
    fn standard_input_mixes_paths_and_objects() {
        let lines = "a/b.png\n{\"path\": \"c.png\", \"label\": \"cup\"}\n{}\n";
        let found = read(Format::Mixed, lines).expect("a list");
        assert_eq!(image(&found[0]).id, "a/b.png");
        assert_eq!(image(&found[1]).label.as_deref(), Some("cup"));
        assert_eq!(found[2].name(), "line 3");
    }

    #[test]
    fn empty_lines_of_jsonl_count_but_are_skipped() {
        let text = "{\"path\": \"a\"}\n\n{}\n";
        let found = read(Format::Jsonl, text).expect("a list");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].name(), "line 3");
    }

    #[test]
    fn a_line_of_text_is_a_path_or_an_address() {
        let found = read(Format::Text, "{a}.png\nhttps://host/b%20c.png\n").expect("a list");
        assert_eq!(image(&found[0]).origin, "/data/{a}.png");
        assert_eq!(image(&found[1]).id, "https://host/b%20c.png");
    }
    #[test]
    fn lines_of_others_stay_below_the_root() {
        let root = Place::parse("/data").expect("a path");
        let line = |path: &str| serde_json::json!({ "path": path }).to_string();
        let image = image_of_line(&line("a/b.png"), Some(&root)).expect("below the root");
        assert_eq!(
            (image.id.as_str(), image.origin.as_str()),
            ("a/b.png", "/data/a/b.png")
        );
        let image = image_of_line(&line("https://host/b.png"), None).expect("an address");
        assert_eq!(image.id, "https://host/b.png");
        for path in [
            "/etc/passwd",
            "../b.png",
            "a/../../b.png",
            "file:///etc/passwd",
            "",
        ] {
            assert!(image_of_line(&line(path), Some(&root)).is_err(), "{path}");
        }
        assert!(image_of_line(&line("b.png"), None).is_err());
    }
}
