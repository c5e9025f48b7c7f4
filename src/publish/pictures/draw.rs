//! Boxes and words on a picture.

use crate::detection::Detection;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, iso_8859_1};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::Drawable;
use embedded_graphics::primitives::{Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use std::convert::Infallible;

/// Colours of boxes, by class: apart from each other, and light enough for black words.
const PALETTE: [Rgb888; 6] = [
    Rgb888::new(0x3d, 0xe0, 0x6b),
    Rgb888::new(0xff, 0xb0, 0x20),
    Rgb888::new(0x5c, 0xc8, 0xff),
    Rgb888::new(0xff, 0x7a, 0xd9),
    Rgb888::new(0xf4, 0xf1, 0x3c),
    Rgb888::new(0xff, 0x83, 0x6b),
];
/// Free pixels around words.
const MARGIN: i32 = 2;

/// An RGB image that can be drawn on. What falls outside is cut off.
pub struct Canvas<'a> {
    rgb: &'a mut [u8],
    width: u32,
    height: u32,
}

impl<'a> Canvas<'a> {
    /// Draws on packed R, G, B rows.
    pub fn new(rgb: &'a mut [u8], width: u32, height: u32) -> Self {
        Self { rgb, width, height }
    }

    /// Words at the top left.
    pub fn caption(&mut self, text: &str) {
        self.words(text, Point::zero(), Rgb888::WHITE);
    }

    /// A box with its class and score above it, or inside where there is no room above.
    pub fn detection(&mut self, detection: &Detection, label: &str) {
        let color = PALETTE[usize::from(detection.label) % PALETTE.len()];
        // Casts from float saturate; a box far outside is cut off.
        let edge = |value: f32| value.round().clamp(-1e6, 1e6) as i32;
        let corner = Point::new(edge(detection.x), edge(detection.y));
        let size = Size::new(edge(detection.width).max(1) as u32, edge(detection.height).max(1) as u32);
        let thickness = (self.height / 360).max(1) + 1;
        let outline = Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_stroke(color, thickness));
        let Ok(()) = outline.draw(self);
        let above = corner.y - self.line_height();
        let at = Point::new(corner.x, if above < 0 { corner.y } else { above });
        self.words(&format!("{label} {:.2}", detection.score), at, color);
    }

    /// Black words on a coloured ground.
    fn words(&mut self, text: &str, at: Point, ground: Rgb888) {
        let font = self.font();
        let width = text.chars().count() as u32 * (font.character_size.width + font.character_spacing);
        let size = Size::new(width + 2 * MARGIN as u32, self.line_height() as u32);
        let Ok(()) = self.fill_solid(&Rectangle::new(at, size), ground);
        let style = MonoTextStyle::new(font, Rgb888::BLACK);
        let Ok(_) = Text::with_baseline(text, at + Point::new_equal(MARGIN), style, Baseline::Top).draw(self);
    }

    fn line_height(&self) -> i32 {
        self.font().character_size.height as i32 + 2 * MARGIN
    }

    fn font(&self) -> &'static MonoFont<'static> {
        match self.height {
            ..400 => &iso_8859_1::FONT_6X10,
            400..800 => &iso_8859_1::FONT_7X13_BOLD,
            800.. => &iso_8859_1::FONT_10X20,
        }
    }
}

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y)) else { continue };
            if x < self.width && y < self.height {
                let first = (y as usize * self.width as usize + x as usize) * 3;
                self.rgb[first..first + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(detection: &Detection) -> Vec<[u8; 3]> {
        let mut rgb = vec![0; 200 * 100 * 3];
        Canvas::new(&mut rgb, 200, 100).detection(detection, "person");
        rgb.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    }

    #[test]
    fn the_outline_lies_on_the_box() {
        let seen = Detection { label: 0, score: 0.9, x: 50.0, y: 40.0, width: 30.0, height: 20.0 };
        let pixels = drawn(&seen);
        let color = [PALETTE[0].r(), PALETTE[0].g(), PALETTE[0].b()];
        for (x, y) in [(50, 50), (79, 50), (65, 40), (65, 59)] {
            assert_eq!(pixels[y * 200 + x], color, "{x}, {y}");
        }
        assert_eq!(pixels[50 * 200 + 65], [0; 3], "the inside stays free");
        assert_eq!(pixels[30 * 200 + 51], color, "the words' ground is above");
    }

    #[test]
    fn boxes_that_are_outside_or_absurd_are_cut_off() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, -5.0, 1e6] {
            drawn(&Detection { label: 9, score: value, x: value, y: value, width: value, height: value });
        }
    }
}
