//! Run lengths of masks, as in COCO.

use super::Mask;
use crate::vision::Size;

/// Run lengths of a mask, column by column, in the text form of COCO's tools, which pycocotools and
/// most viewers read. The first run is of pixels that are not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// Size of the mask.
    pub size: Size,
    /// Run lengths as text: each in base 32 with a sign, from the third on as the difference to the
    /// run before the last.
    pub counts: String,
}

impl From<&Mask> for Rle {
    fn from(mask: &Mask) -> Self {
        let Size { width, height } = mask.size;
        let mut runs = Vec::new();
        let mut current = false;
        let mut run = 0_i64;
        for x in 0..width {
            for y in 0..height {
                let pixel = mask.pixels[y * width + x];
                if pixel != current {
                    runs.push(run);
                    current = pixel;
                    run = 0;
                }
                run += 1;
            }
        }
        runs.push(run);
        let mut counts = String::new();
        for (index, &run) in runs.iter().enumerate() {
            let before = if index > 2 { runs[index - 2] } else { 0 };
            write(&mut counts, run - before);
        }
        Self {
            size: mask.size,
            counts,
        }
    }
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
    use super::{super::tests::mask, *};

    #[test]
    fn runs_are_those_of_pycocotools() {
        // By `pycocotools.mask.encode` of the same masks.
        for (lines, counts) in [
            (&["....", "....", "...."][..], "<"),
            (&["####", "####", "####"][..], "0<"),
            (&[".#..", ".##.", "...."][..], "322O2"),
            (&["#.#.#"; 7][..], "077000"),
        ] {
            let rle = Rle::from(&mask(lines));
            assert_eq!(rle.counts, counts, "{lines:?}");
        }
        let disk = (0..3600).map(|index| {
            let (x, y) = (f64::from(index % 60) - 29.5, f64::from(index / 60) - 29.5);
            x.hypot(y) < 25.0
        });
        let disk = Mask::new(Size::new(60, 60), disk.collect());
        assert_eq!(
            Rle::from(&disk).counts,
            "U::^18J4L4M2M4M2N2N2N2O0O2N2O0O2O0O2O00000O2O000000000000000001N1000001N101N101N2N101N\
             2N2N2N3L3N3L4L6Hg8"
        );
    }
}
