//! The segments of a JPEG in front of its first scan.

use std::borrow::Cow;

use image::metadata::Orientation;

use super::exif::orientation_of;

const JFIF: u8 = 0xE0;
const EXIF_OR_XMP: u8 = 0xE1;
const ADOBE: u8 = 0xEE;
const START_OF_SCAN: u8 = 0xDA;

/// Number of segments beyond which a file can only be an attack on memory. A color profile of the
/// largest size has 255.
const MAX_SEGMENTS: usize = 65_536;

/// The head of a file: everything that decides how its scans are decoded.
pub(super) struct Head<'a> {
    segments: Vec<Segment<'a>>,
    /// The rest of the file, from the marker of the first scan on; `None` if the file ends before.
    scans: Option<&'a [u8]>,
}

struct Segment<'a> {
    marker: u8,
    data: &'a [u8],
}

/// What a frame header states.
pub(super) struct Frame {
    /// Bits of a sample.
    pub(super) precision: u8,
    /// Number of components (color channels).
    pub(super) components: usize,
    /// Samples of all components for a pixel, which are fewer than its components if colors are
    /// stored at a lower resolution.
    samples_per_pixel: f64,
    is_progressive: bool,
}

impl<'a> Head<'a> {
    /// Reads the segments. Bytes between them are skipped, as libjpeg and Pillow do.
    ///
    /// # Errors
    /// The reason to reject the file, if there are too many.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = bytes.get(2..).unwrap_or_default();
        let scans = loop {
            let Some(start) = rest.windows(2).position(is_marker) else {
                break None;
            };
            let marker = rest[start + 1];
            let tail = &rest[start + 2..];
            match marker {
                // Restart markers, markers without meaning, and starts inside of the file.
                0x01 | 0xD0..=0xD8 => {
                    rest = tail;
                    continue;
                }
                0xD9 => break None,
                _ => {}
            }
            let Some((length, after)) = tail.split_first_chunk::<2>() else {
                break None;
            };
            let length = usize::from(u16::from_be_bytes(*length)).saturating_sub(2);
            let Some((data, after)) = after.split_at_checked(length) else {
                break None;
            };
            if marker == START_OF_SCAN {
                break Some(&rest[start..]);
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(format!(
                    "more than {MAX_SEGMENTS} segments are in front of its pixels; \
                     save it again without metadata"
                ));
            }
            segments.push(Segment { marker, data });
            rest = after;
        };
        Ok(Self { segments, scans })
    }

    /// Reads the orientation from the EXIF block or from XMP.
    pub(super) fn orientation(&self) -> Orientation {
        let with_prefix = |prefix: &'static [u8]| {
            let segments = self.segments.iter();
            let segments = segments.filter(|segment| segment.marker == EXIF_OR_XMP);
            segments.filter_map(|segment| segment.data.strip_prefix(prefix))
        };
        // A long block continues in further segments.
        let mut blocks = with_prefix(b"Exif\0\0");
        let exif = blocks.next().map(|first| {
            blocks.fold(Cow::Borrowed(first), |mut block, more| {
                block.to_mut().extend_from_slice(more);
                block
            })
        });
        let xmp = with_prefix(b"http://ns.adobe.com/xap/1.0/\0").next_back();
        orientation_of(exif.as_deref(), xmp)
    }

    /// Returns what the frame header states, if there is one.
    pub(super) fn frame(&self) -> Option<Frame> {
        let is_frame = |segment: &&Segment<'_>| {
            matches!(segment.marker, 0xC0..=0xCF) && !matches!(segment.marker, 0xC4 | 0xC8 | 0xCC)
        };
        let segment = self.segments.iter().find(is_frame)?;
        let precision = *segment.data.first()?;
        let components = segment.data.get(6..)?.as_chunks::<3>().0;
        let factors = components
            .iter()
            .map(|[_, factors, _]| [factors >> 4, factors & 15]);
        let factors: Vec<[f64; 2]> = factors.map(|pair| pair.map(f64::from)).collect();
        let largest = |axis: usize| factors.iter().map(|pair| pair[axis]).fold(1.0, f64::max);
        let samples: f64 = factors.iter().map(|[x, y]| x * y).sum();
        Some(Frame {
            precision,
            components: components.len(),
            samples_per_pixel: samples / (largest(0) * largest(1)),
            is_progressive: matches!(segment.marker, 0xC2 | 0xC6 | 0xCA | 0xCE),
        })
    }

    /// Returns the memory that the decoder takes for a pixel in addition to the decoded image, in
    /// bytes. All coefficients are kept if the scans refine each other.
    pub(super) fn coefficient_bytes_per_pixel(&self) -> f64 {
        let (Some(frame), Some(scans)) = (self.frame(), self.scans) else {
            return 0.0;
        };
        let in_first_scan = scans.get(4).copied().map_or(0, usize::from);
        let has_several_scans = frame.is_progressive || in_first_scan < frame.components;
        if has_several_scans {
            2.0 * frame.samples_per_pixel
        } else {
            0.0
        }
    }

    /// Returns the file without what libjpeg warns of in a head and does not need: bytes between
    /// segments, color profiles, and numbers of versions and color transforms that it does not
    /// know. `None` if the file ends before its first scan.
    pub(super) fn without_warnings(&self) -> Option<Vec<u8>> {
        let scans = self.scans?;
        let components = self.frame().map_or(0, |frame| frame.components);
        let mut file = vec![0xFF, 0xD8];
        for Segment { marker, data } in &self.segments {
            let data = match (*marker, *data) {
                (JFIF, [b'J', b'F', b'I', b'F', 0, ..]) if data.len() >= 14 => {
                    Cow::Borrowed(b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0".as_slice())
                }
                (ADOBE, [b'A', b'd', b'o', b'b', b'e', .., _]) if data.len() >= 12 => {
                    // libjpeg takes what it does not know for colors in YCbCr or YCCK.
                    let transform = match (data[11], components) {
                        (0, _) => 0,
                        (_, 4) => 2,
                        _ => 1,
                    };
                    Cow::Owned([&data[..11], &[transform]].concat())
                }
                (0xE0..=0xEF | 0xFE, _) => continue,
                _ => Cow::Borrowed(*data),
            };
            file.extend([0xFF, *marker]);
            file.extend((data.len() as u16 + 2).to_be_bytes());
            file.extend_from_slice(&data);
        }
        file.extend_from_slice(scans);
        Some(file)
    }
}

/// Whether two bytes are a marker, and not a padded or an escaped byte.
fn is_marker(pair: &[u8]) -> bool {
    pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_segments_are_bounded() {
        let file = |count: usize| {
            let comments = b"\xff\xfe\0\x02".repeat(count);
            [b"\xff\xd8", comments.as_slice(), b"\xff\xd9"].concat()
        };
        assert!(Head::read(&file(MAX_SEGMENTS)).is_ok());
        let reason = Head::read(&file(MAX_SEGMENTS + 1)).err();
        assert!(reason.is_some_and(|reason| reason.contains("65536 segments")));
    }
}
