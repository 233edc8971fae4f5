//! WebDataset: tar files in which the members of a sample share the name up to its first dot.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde_json::Value;
use tar::Archive;

use super::{
    Identity, Listed, Place, Source, SourceImage, blocking_list,
    folder::{has_image_extension, kind_by_name},
    image::Content,
};
use crate::error::{Error, Kind, Result};

/// Maximum size of a member.
const MAX_MEMBER: u64 = 1 << 30;
/// Size of a block of a tar file.
const BLOCK: usize = 512;

/// A tar file.
pub(super) struct Tar(pub(super) Place);

/// The members of a sample. The class is in `.cls`, metadata are in `.json`.
#[derive(Default)]
struct Sample {
    key: String,
    images: Vec<(String, Bytes)>,
    label: Option<String>,
    metadata: Option<Value>,
    failures: Vec<(String, Error)>,
    /// Names of the other members.
    others: Vec<String>,
}

impl Source for Tar {
    fn list(self: Box<Self>) -> BoxStream<'static, Result<Listed>> {
        blocking_list(move |send| {
            let (reader, identity) = self.0.open()?;
            self.read(reader, &identity, send)
        })
    }

    fn is_container(&self) -> bool {
        true
    }
}

impl Tar {
    fn read(
        &self,
        reader: impl Read,
        identity: &Identity,
        send: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<()> {
        let failed = |error: io::Error| {
            let action = format_args!("{}: the tar file is damaged or incomplete", self.0);
            Error::io(action, error)
        };
        let mut tail = Tail {
            reader,
            last: VecDeque::with_capacity(BLOCK),
        };
        let mut archive = Archive::new(&mut tail);
        let mut sample = Sample::default();
        for member in archive.entries().map_err(failed)? {
            let mut member = member.map_err(failed)?;
            if !member.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").to_owned();
            let key = key_of(&name);
            if key != sample.key {
                let done = std::mem::take(&mut sample);
                key.clone_into(&mut sample.key);
                if !self.send_all(done, identity, send) {
                    return Ok(());
                }
            }
            let size = member.size();
            if size > MAX_MEMBER {
                let detail = format!("the file has {size} bytes; at most {MAX_MEMBER} are read");
                sample
                    .failures
                    .push((name, Error::new(Kind::TooLarge, detail)));
                continue;
            }
            let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            member.read_to_end(&mut content).map_err(failed)?;
            sample.add(name, content);
        }
        // A file that was cut between two members has no end.
        if tail.last.iter().any(|&byte| byte != 0) || tail.last.len() < BLOCK {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.send_all(sample, identity, send);
        Ok(())
    }

    /// Sends the images of a sample.
    fn send_all(
        &self,
        sample: Sample,
        identity: &Identity,
        send: &mut dyn FnMut(Listed) -> bool,
    ) -> bool {
        let Sample {
            images,
            label,
            metadata,
            failures,
            others,
            ..
        } = sample;
        let has_images = !images.is_empty();
        let images = images.into_iter().map(|(id, bytes)| {
            Listed::Image(Box::new(SourceImage {
                label: label.clone(),
                metadata: metadata.clone(),
                origin: format!("{}: {id}", self.0),
                id,
                line: None,
                content: Content::Bytes {
                    bytes,
                    identity: identity.clone(),
                },
            }))
        });
        let failures = failures
            .into_iter()
            .map(|(name, error)| Listed::Failed { name, error });
        let others = others
            .into_iter()
            .filter(|_| !has_images)
            .map(|name| Listed::Skipped {
                kind: kind_by_name(&name),
                name,
                advice: None,
            });
        images.chain(failures).chain(others).all(send)
    }
}

impl Sample {
    fn add(&mut self, name: String, content: Vec<u8>) {
        if has_image_extension(name.as_ref()) {
            self.images.push((name, content.into()));
            return;
        }
        match kind_by_name(&name).as_str() {
            ".cls" => {
                let text = String::from_utf8_lossy(&content);
                self.label = Some(text.trim().to_owned());
            }
            ".json" => match serde_json::from_slice::<Value>(&content) {
                Ok(value) => {
                    if self.label.is_none()
                        && let Some(label) = value.get("label")
                    {
                        self.label = match label {
                            Value::String(text) => Some(text.clone()),
                            Value::Number(number) => Some(number.to_string()),
                            _ => None,
                        };
                    }
                    self.metadata = Some(value);
                }
                Err(error) => {
                    let error = Error::malformed(format!("the file is no JSON: {error}"));
                    self.failures.push((name, error));
                }
            },
            _ => self.others.push(name),
        }
    }
}

/// Returns the name up to the first dot of its last part.
fn key_of(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) => &name[..start + dot],
        None => name,
    }
}

/// Remembers the last block that was read.
struct Tail<R> {
    reader: R,
    last: VecDeque<u8>,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let new = &buffer[count.saturating_sub(BLOCK)..count];
        let kept = self.last.len().min(BLOCK - new.len());
        self.last.drain(..self.last.len() - kept);
        self.last.extend(new);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, *content)
                .expect("a member");
        }
        builder.into_inner().expect("an archive")
    }

    fn read(file: &[u8]) -> Result<Vec<Listed>> {
        let tar = Tar(Place::parse("a.tar").expect("a path"));
        let mut found = Vec::new();
        tar.read(file, &Identity::default(), &mut |listed| {
            found.push(listed);
            true
        })?;
        Ok(found)
    }

    const MEMBERS: &[(&str, &[u8])] = &[
        ("x/1.jpg", b"one"),
        ("x/1.cls", b"3\n"),
        ("x/1.txt", b"a caption"),
        ("x/2.left.png", b"two"),
        ("x/2.right.png", b"three"),
        ("x/2.json", b"{\"label\": \"cat\"}"),
        ("notes.txt", b"notes"),
    ];

    #[test]
    fn the_members_of_a_sample_belong_together() {
        let found = read(&archive(MEMBERS)).expect("a list");
        let images: Vec<(&str, Option<&str>)> = found
            .iter()
            .filter_map(|listed| match listed {
                Listed::Image(image) => Some((image.id.as_str(), image.label.as_deref())),
                _ => None,
            })
            .collect();
        let expected = [
            ("x/1.jpg", Some("3")),
            ("x/2.left.png", Some("cat")),
            ("x/2.right.png", Some("cat")),
        ];
        assert_eq!(images, expected);
        assert!(matches!(&found[3..], [Listed::Skipped { kind, .. }] if kind == ".txt"));
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_an_error() {
        let whole = archive(MEMBERS);
        // All but the second block of the end.
        for end in (0..whole.len() - 2 * BLOCK).step_by(BLOCK / 2) {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut damaged = whole;
        damaged[700..740].fill(0xff);
        assert!(read(&damaged).is_err() || read(&damaged).is_ok_and(|found| found.len() == 4));
    }
}
