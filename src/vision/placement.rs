//! Where the model's input lies in an image.

use super::{ResizePlan, Size, Window};

/// The part of an upright image that the model sees, and how it was scaled.
///
/// Points are continuous, in pixels from the top left corner: the center of the first pixel is
/// (0.5, 0.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Size of the upright image.
    pub image: Size,
    /// Size to which it was resized.
    pub resized: Size,
    /// The model's input within the resized image.
    pub window: Window,
}

impl Placement {
    /// Returns the placement of the input that a plan makes of an upright image of size `image`.
    pub fn new(image: Size, plan: &ResizePlan) -> Self {
        Self {
            image,
            resized: plan.resized,
            window: plan.window,
        }
    }

    /// Returns the pixels of the image for each pixel of the input, across and down.
    pub fn scale(&self) -> [f64; 2] {
        [
            self.image.width as f64 / self.resized.width as f64,
            self.image.height as f64 / self.resized.height as f64,
        ]
    }

    /// Returns the point of the image for a point of the model's input.
    pub fn to_image(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [across, down] = self.scale();
        [
            (x + self.window.x as f64) * across,
            (y + self.window.y as f64) * down,
        ]
    }

    /// Returns the point of the model's input for a point of the image.
    pub fn to_input(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [across, down] = self.scale();
        [
            x / across - self.window.x as f64,
            y / down - self.window.y as f64,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_of_the_input_are_those_of_its_window() {
        let placement = Placement {
            image: Size::new(600, 400),
            resized: Size::new(300, 200),
            window: Window {
                x: 10,
                y: 2,
                width: 280,
                height: 196,
            },
        };
        assert_eq!(placement.to_image([0.0, 0.0]), [20.0, 4.0]);
        assert_eq!(placement.to_image([280.0, 196.0]), [580.0, 396.0]);
        assert_eq!(placement.to_input([580.0, 396.0]), [280.0, 196.0]);
    }
}
