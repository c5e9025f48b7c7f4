//! Pixels for people: any format to packed R, G, B.
//!
//! Nearest chroma, a mosaic's pattern as one colour, and plain rounding; the arithmetic that networks see is pre-processing's.

use crate::image::{Colorimetry, ImageLayout, Matrix, Mosaic, PixelFormat, Range};

/// Writes `layout.width * layout.height * 3` bytes into `rgb`, replacing what it held.
pub fn convert(bytes: &[u8], layout: &ImageLayout, rgb: &mut Vec<u8>) {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let color = Coefficients::new(layout.color);
    rgb.clear();
    rgb.reserve(width * height * 3);
    for y in 0..height {
        let row = |plane: usize, line: usize| {
            &bytes[layout.planes[plane].offset + line * layout.planes[plane].stride..]
        };
        let first = row(0, y);
        match layout.format {
            PixelFormat::Rgb => rgb.extend_from_slice(&first[..width * 3]),
            PixelFormat::Bgr => {
                rgb.extend(first[..width * 3].chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]))
            }
            PixelFormat::Gray8 => {
                rgb.extend(first[..width].iter().flat_map(|&luma| color.rgb(luma, 128, 128)))
            }
            PixelFormat::Nv12 => {
                let chroma = row(1, y / 2);
                rgb.extend(
                    (0..width).flat_map(|x| color.rgb(first[x], chroma[x / 2 * 2], chroma[x / 2 * 2 + 1])),
                );
            }
            PixelFormat::I420 => {
                let (cb, cr) = (row(1, y / 2), row(2, y / 2));
                rgb.extend((0..width).flat_map(|x| color.rgb(first[x], cb[x / 2], cr[x / 2])));
            }
            PixelFormat::Yuy2 => rgb.extend((0..width).flat_map(|x| {
                let pair = &first[x / 2 * 4..];
                color.rgb(pair[x % 2 * 2], pair[1], pair[3])
            })),
            PixelFormat::Uyvy => rgb.extend((0..width).flat_map(|x| {
                let pair = &first[x / 2 * 4..];
                color.rgb(pair[x % 2 * 2 + 1], pair[0], pair[2])
            })),
            // The formats that are left are mosaics.
            _ => {
                let Some(mosaic) = layout.format.mosaic() else { return };
                let pattern = [row(0, y / 2 * 2), row(0, y / 2 * 2 + 1)];
                rgb.extend((0..width).flat_map(|x| demosaic(mosaic, pattern, x / 2 * 2)));
            }
        }
    }
}

/// The colour of the pattern that starts at column `x` of two rows.
fn demosaic(mosaic: Mosaic, rows: [&[u8]; 2], x: usize) -> [u8; 3] {
    let Mosaic { red_column, red_row, bytes } = mosaic;
    let at = |column: usize, row: usize| {
        let pixel = &rows[row][(x + column) * bytes..];
        // A quarter of ten bits.
        if bytes == 1 { u16::from(pixel[0]) } else { (u16::from_le_bytes([pixel[0], pixel[1]]) / 4).min(255) }
    };
    let green = (at(1 - red_column, red_row) + at(red_column, 1 - red_row)).div_ceil(2);
    [at(red_column, red_row), green, at(1 - red_column, 1 - red_row)].map(|value| value as u8)
}

/// R' = luma * (Y - black) + cr_r * Cr, and so on (ITU-T H.273, equations for matrix coefficients).
struct Coefficients {
    black: f32,
    luma: f32,
    cr_r: f32,
    cb_g: f32,
    cr_g: f32,
    cb_b: f32,
}

impl Coefficients {
    fn new(color: Colorimetry) -> Self {
        let (kr, kb) = match color.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let (black, luma, chroma) = match color.range {
            Range::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0.0, 1.0, 1.0),
        };
        let kg = 1.0 - kr - kb;
        Self {
            black,
            luma,
            cr_r: 2.0 * (1.0 - kr) * chroma,
            cb_g: -2.0 * kb * (1.0 - kb) / kg * chroma,
            cr_g: -2.0 * kr * (1.0 - kr) / kg * chroma,
            cb_b: 2.0 * (1.0 - kb) * chroma,
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let luma = (f32::from(y) - self.black) * self.luma;
        let (cb, cr) = (f32::from(cb) - 128.0, f32::from(cr) - 128.0);
        // A cast from float to integer clamps to 0..255.
        [luma + self.cr_r * cr, luma + self.cb_g * cb + self.cr_g * cr, luma + self.cb_b * cb]
            .map(|value| value.round() as u8)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A 2x2 image of one colour in every format, its rows padded.
    fn uniform(format: PixelFormat, color: [u8; 3]) -> (Vec<u8>, ImageLayout) {
        let mut layout = ImageLayout::packed(format, 2, 2);
        for (index, plane) in layout.planes.iter_mut().enumerate().take(format.planes()) {
            *plane = crate::image::Plane { offset: index * 64, stride: 16 };
        }
        let mut bytes = vec![0xee; 192];
        let [a, b, c] = color;
        let rows: [&[u8]; 3] = match format {
            PixelFormat::Nv12 => [&[a, a], &[b, c], &[]],
            PixelFormat::I420 => [&[a, a], &[b], &[c]],
            PixelFormat::Yuy2 => [&[a, b, a, c], &[], &[]],
            PixelFormat::Uyvy => [&[b, a, c, a], &[], &[]],
            PixelFormat::Rgb => [&[a, b, c, a, b, c], &[], &[]],
            PixelFormat::Bgr => [&[c, b, a, c, b, a], &[], &[]],
            PixelFormat::Gray8 => [&[a, a], &[], &[]],
            _ => return mosaic(format, color),
        };
        for (plane, row) in rows.iter().enumerate().take(format.planes()) {
            for line in 0..format.plane_extent(plane, 2, 2).1 {
                bytes[plane * 64 + line * 16..][..row.len()].copy_from_slice(row);
            }
        }
        (bytes, layout)
    }

    /// A mosaic's pattern of one colour; its greens are one below and one above.
    fn mosaic(format: PixelFormat, [red, green, blue]: [u8; 3]) -> (Vec<u8>, ImageLayout) {
        let layout = ImageLayout::packed(format, 2, 2);
        let (mut greens, bits) = ([green - 1, green + 1].into_iter(), format.as_str()[4..].parse::<u32>());
        let samples = format.as_str()[..4].chars().map(|color| match color {
            'R' => red,
            'B' => blue,
            _ => greens.next().unwrap(),
        });
        let bytes = samples.flat_map(|sample| match bits {
            Ok(8) => vec![sample],
            // With something in the bits that do not count.
            _ => (u16::from(sample) * 4 + 3).to_le_bytes().to_vec(),
        });
        (bytes.collect(), layout)
    }

    fn converted(format: PixelFormat, color: [u8; 3], colorimetry: Colorimetry) -> [u8; 3] {
        let (bytes, mut layout) = uniform(format, color);
        layout.color = colorimetry;
        let mut rgb = vec![1; 5];
        convert(&bytes, &layout, &mut rgb);
        assert_eq!(rgb.len(), 12);
        for pixel in rgb.chunks_exact(3) {
            assert_eq!(pixel, &rgb[..3], "{format:?}");
        }
        [rgb[0], rgb[1], rgb[2]]
    }

    /// Reference values: the studio-range colour bars of BT.601 and BT.709 (100 % red and 100 % green).
    #[test]
    fn every_format_gives_the_known_colours() {
        let bars = [
            (Matrix::Bt601, [81, 90, 240], [255, 0, 0]),
            (Matrix::Bt601, [145, 54, 34], [0, 255, 0]),
            (Matrix::Bt709, [63, 102, 240], [255, 0, 0]),
            (Matrix::Bt709, [173, 42, 26], [0, 255, 0]),
        ];
        for (matrix, code, expected) in bars {
            for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Yuy2, PixelFormat::Uyvy] {
                let got = converted(format, code, Colorimetry { matrix, range: Range::Limited });
                for (got, expected) in got.into_iter().zip(expected) {
                    assert!(got.abs_diff(expected) <= 2, "{format:?} {matrix:?}: {got} for {expected}");
                }
            }
        }
        let full = Colorimetry { matrix: Matrix::Bt601, range: Range::Full };
        assert_eq!(converted(PixelFormat::Rgb, [1, 2, 3], full), [1, 2, 3]);
        assert_eq!(converted(PixelFormat::Bgr, [1, 2, 3], full), [1, 2, 3]);
        for format in PixelFormat::ALL.into_iter().filter(|format| format.mosaic().is_some()) {
            assert_eq!(converted(format, [201, 102, 3], full), [201, 102, 3], "{format:?}");
        }
        assert_eq!(converted(PixelFormat::Gray8, [77, 0, 0], full), [77, 77, 77]);
        let limited = Colorimetry { range: Range::Limited, ..full };
        assert_eq!(converted(PixelFormat::Gray8, [235, 0, 0], limited), [255, 255, 255]);
    }

    #[test]
    fn odd_sizes_have_all_their_pixels() {
        for format in PixelFormat::ALL {
            let layout = ImageLayout::packed(format, 5, 3);
            let mut rgb = Vec::new();
            convert(&vec![90; layout.extent().unwrap()], &layout, &mut rgb);
            assert_eq!(rgb.len(), 5 * 3 * 3, "{format:?}");
        }
    }
}
