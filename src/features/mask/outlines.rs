//! Outlines of masks.

use super::{LabelImage, PixelBox};

/// A closed outline: its corners in order, in pixels from the top left corner of the image.
pub type Ring = Vec<[f64; 2]>;

/// Returns the outlines of the pixels of a label within `bounds`, along their edges: one around
/// each connected part, and one around each hole. A point is inside if an odd number of outlines
/// surround it. Pixels that touch at a corner only are not connected. Corners that lie within
/// `tolerance` pixels of the line between others are left out.
pub fn outlines(image: &LabelImage, label: u8, bounds: PixelBox, tolerance: f64) -> Vec<Ring> {
    let [left, top, right, bottom] = bounds;
    let width = right - left;
    let mut tracing = Tracing {
        image,
        label,
        bounds,
        visited: vec![false; width * (bottom - top)],
    };
    let mut rings = Vec::new();
    for y in top..bottom {
        for x in left..right {
            // Every outline has an edge above a pixel of the label, under one that has another.
            let (column, row) = (x as isize, y as isize);
            if image.has(label, column, row)
                && !image.has(label, column, row - 1)
                && !*tracing.visited([column, row])
            {
                rings.push(simplified(&tracing.outline([column, row]), tolerance));
            }
        }
    }
    rings
}

struct Tracing<'a> {
    image: &'a LabelImage,
    label: u8,
    bounds: PixelBox,
    /// Whether the edge above a pixel of the bounds is part of an outline that was followed.
    visited: Vec<bool>,
}

impl Tracing<'_> {
    fn visited(&mut self, [x, y]: [isize; 2]) -> &mut bool {
        let [left, top, right, _] = self.bounds;
        let index = (y as usize - top) * (right - left) + x as usize - left;
        &mut self.visited[index]
    }

    /// Follows an outline from the left end of an edge above a pixel, with the pixels of the label
    /// at its right.
    fn outline(&mut self, start: [isize; 2]) -> Ring {
        let mut ring = Ring::new();
        let mut at = start;
        let mut step = [1, 0];
        loop {
            if step == [1, 0] {
                *self.visited(at) = true;
            }
            at = [at[0] + step[0], at[1] + step[1]];
            // The two pixels in front of the corner, at the right and at the left of the way.
            let [dx, dy] = step;
            let pixel = |side: [isize; 2]| {
                let [sx, sy] = [dx + side[0], dy + side[1]];
                let (x, y) = (at[0] + (sx - 1) / 2, at[1] + (sy - 1) / 2);
                self.image.has(self.label, x, y)
            };
            let next = match (pixel([-dy, dx]), pixel([dy, -dx])) {
                (false, _) => [-dy, dx],
                (true, true) => [dy, -dx],
                (true, false) => step,
            };
            if next != step {
                ring.push(at.map(|value| value as f64));
            }
            step = next;
            if at == start && step == [1, 0] {
                return ring;
            }
        }
    }
}

/// Leaves out corners by Douglas and Peucker's rule, between the two corners that are farthest
/// apart of the first.
fn simplified(ring: &[[f64; 2]], tolerance: f64) -> Ring {
    let far = (0..ring.len()).max_by(|&one, &other| {
        let distance = |index: usize| squared_distance(ring[0], ring[index]);
        distance(one).total_cmp(&distance(other))
    });
    let Some(far) = far.filter(|_| ring.len() > 4) else {
        return ring.to_vec();
    };
    let mut kept = vec![false; ring.len()];
    kept[0] = true;
    kept[far] = true;
    let closed: Ring = ring.iter().chain(&ring[..1]).copied().collect();
    let mut spans = vec![(0, far), (far, ring.len())];
    while let Some((first, last)) = spans.pop() {
        let distance = |index: usize| to_segment(closed[index], closed[first], closed[last]);
        let between = first + 1..last;
        let farthest = between.max_by(|&one, &other| distance(one).total_cmp(&distance(other)));
        if let Some(index) = farthest.filter(|&index| distance(index) > tolerance) {
            kept[index] = true;
            spans.extend([(first, index), (index, last)]);
        }
    }
    let corners: Ring = ring
        .iter()
        .zip(&kept)
        .filter_map(|(&corner, &kept)| kept.then_some(corner))
        .collect();
    match corners.len() {
        // A thin part would vanish.
        ..3 => ring.to_vec(),
        _ => corners,
    }
}

fn squared_distance([ax, ay]: [f64; 2], [bx, by]: [f64; 2]) -> f64 {
    (ax - bx).powi(2) + (ay - by).powi(2)
}

/// Distance of a point from a segment.
fn to_segment(point: [f64; 2], from: [f64; 2], to: [f64; 2]) -> f64 {
    let length = squared_distance(from, to);
    let along = [0, 1].map(|axis| to[axis] - from[axis]);
    let dot = (point[0] - from[0]) * along[0] + (point[1] - from[1]) * along[1];
    let share = if length > 0.0 {
        (dot / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let nearest = [from[0] + share * along[0], from[1] + share * along[1]];
    squared_distance(point, nearest).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::image, *};
    use crate::vision::Size;

    fn traced(image: &LabelImage, tolerance: f64) -> Vec<Ring> {
        let extent = image.extents(1)[0].expect("a pixel has label 1");
        outlines(image, 1, extent.bounds, tolerance)
    }

    /// Area by the shoelace formula; holes are negative.
    fn area(ring: &[[f64; 2]]) -> f64 {
        let next = ring.iter().cycle().skip(1);
        let twice: f64 = ring
            .iter()
            .zip(next)
            .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
            .sum();
        twice / 2.0
    }

    #[test]
    fn outlines_follow_the_edges_of_pixels() {
        let rings = traced(&image(&["....", ".##.", ".#..", "...."]), 0.0);
        let corners = [[3, 1], [3, 2], [2, 2], [2, 3], [1, 3], [1, 1]];
        let corners = corners.map(|corner| corner.map(f64::from)).to_vec();
        assert_eq!(rings, [corners]);
    }

    #[test]
    fn holes_and_parts_have_outlines_of_their_own() {
        let image = image(&["#####...", "#...#.#.", "#.#.##..", "#...#...", "#####..#"]);
        let rings = traced(&image, 0.0);
        let areas: Vec<f64> = rings.iter().map(|ring| area(ring)).collect();
        // The frame with its nose, the hole, its center, and two pixels.
        assert_eq!(areas, [26.0, 1.0, 1.0, -9.0, 1.0]);
        assert_eq!(areas.iter().sum::<f64>(), 20.0);
    }

    #[test]
    fn corners_within_the_tolerance_are_left_out() {
        let size = Size::new(60, 60);
        let disk = (0..3600).map(|index| {
            let (x, y) = (f64::from(index % 60) - 29.5, f64::from(index / 60) - 29.5);
            x.hypot(y) < 25.0
        });
        let disk = LabelImage::new(size, disk.map(u8::from).collect());
        let disk_area = disk.extents(1)[0].expect("a disk").area as f64;
        let exact = traced(&disk, 0.0);
        let rough = traced(&disk, 1.0);
        assert_eq!(area(&exact[0]), disk_area);
        assert!(rough[0].len() * 3 < exact[0].len(), "{}", rough[0].len());
        let change = area(&rough[0]) / area(&exact[0]);
        assert!((0.97..1.03).contains(&change), "{change}");
        let line = traced(&image(&["....", ".##.", "...."]), 5.0);
        assert_eq!(line[0].len(), 4);
    }
}
