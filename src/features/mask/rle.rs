//! Run lengths of masks, as in COCO.

use super::LabelImage;
use crate::vision::Size;

/// Run lengths of the pixels of a label, column by column, in the text form of COCO's tools, which
/// pycocotools and most viewers read. The first run is of other pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// Size of the image.
    pub size: Size,
    /// Run lengths as text: each in base 32 with a sign, from the fourth on as the difference to
    /// the run two before.
    pub counts: String,
}

impl Rle {
    /// Encodes the labels 1 to `count` of an image.
    pub fn of_labels(image: &LabelImage, count: usize) -> Vec<Self> {
        let Size { width, height } = image.size;
        // Of each label its runs so far, and where the last one ended.
        let mut runs: Vec<Vec<i64>> = vec![Vec::new(); count];
        let mut ends = vec![0; count];
        let mut close = |label: u8, start: usize, end: usize| {
            let index = usize::from(label);
            if (1..=count).contains(&index) {
                let (runs, last) = (&mut runs[index - 1], &mut ends[index - 1]);
                runs.extend([start - *last, end - start].map(|run| run as i64));
                *last = end;
            }
        };
        let (mut current, mut start) = (0, 0);
        for x in 0..width {
            for y in 0..height {
                let label = image.labels[y * width + x];
                if label != current {
                    let here = x * height + y;
                    close(current, start, here);
                    (current, start) = (label, here);
                }
            }
        }
        let all = width * height;
        close(current, start, all);
        let finished = runs.into_iter().zip(ends).map(|(mut runs, end)| {
            if end < all {
                runs.push((all - end) as i64);
            }
            Self {
                size: image.size,
                counts: text_of(&runs),
            }
        });
        finished.collect()
    }
}

fn text_of(runs: &[i64]) -> String {
    let mut text = String::new();
    for (index, &run) in runs.iter().enumerate() {
        let before = if index > 2 { runs[index - 2] } else { 0 };
        write(&mut text, run - before);
    }
    text
}

/// Appends a number: five bits a character, the lowest first, and a sixth bit if more follow.
fn write(text: &mut String, mut number: i64) {
    loop {
        let bits = (number & 0x1f) as u8;
        number >>= 5;
        let is_negative = bits & 0x10 != 0;
        let is_last = number == if is_negative { -1 } else { 0 };
        let more = if is_last { 0 } else { 0x20 };
        text.push(char::from((bits | more) + b'0'));
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::image, *};

    #[test]
    fn runs_are_those_of_pycocotools() {
        // By `pycocotools.mask.encode` of the same masks.
        for (lines, counts) in [
            (&["....", "....", "...."][..], "<"),
            (&["####", "####", "####"][..], "0<"),
            (&[".#..", ".##.", "...."][..], "322O2"),
            (&["#.#.#"; 7][..], "077000"),
        ] {
            let rle = Rle::of_labels(&image(lines), 1);
            assert_eq!(rle[0].counts, counts, "{lines:?}");
        }
        let disk = (0..3600).map(|index| {
            let (x, y) = (f64::from(index % 60) - 29.5, f64::from(index / 60) - 29.5);
            x.hypot(y) < 25.0
        });
        let disk = LabelImage::new(Size::new(60, 60), disk.map(u8::from).collect());
        assert_eq!(
            Rle::of_labels(&disk, 1)[0].counts,
            "U::^18J4L4M2M4M2N2N2N2O0O2N2O0O2O0O2O00000O2O000000000000000001N1000001N101N101N2N101N\
             2N2N2N3L3N3L4L6Hg8"
        );
    }
}
