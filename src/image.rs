//! What the bytes of a frame mean.

use serde::{Deserialize, Serialize};

/// Pixel formats that a source may deliver and pre-processing understands. 8 bit but for the Bayer mosaics of
/// 10, whose names begin with the colours of their first two rows, as V4L2's do (SRGGB8, SRGGB10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PixelFormat {
    /// Y plane, then interleaved Cb and Cr at half resolution both ways.
    Nv12,
    /// Y plane, then Cb plane, then Cr plane at half resolution both ways.
    I420,
    /// Packed Y0 Cb Y1 Cr: chroma at half horizontal resolution (V4L2's YUYV).
    Yuy2,
    /// Packed Cb Y0 Cr Y1: chroma at half horizontal resolution.
    Uyvy,
    /// Packed R, G, B.
    Rgb,
    /// Packed B, G, R.
    Bgr,
    /// One plane of luma.
    Gray8,
    /// A sensor's mosaic, rows R G and G B, 8 bit.
    Rggb8,
    /// A sensor's mosaic, rows G R and B G, 8 bit.
    Grbg8,
    /// A sensor's mosaic, rows G B and R G, 8 bit.
    Gbrg8,
    /// A sensor's mosaic, rows B G and G R, 8 bit.
    Bggr8,
    /// A sensor's mosaic, rows R G and G B, 10 bit in the low bits of 16, little-endian.
    Rggb10,
    /// A sensor's mosaic, rows G R and B G, 10 bit in the low bits of 16, little-endian.
    Grbg10,
    /// A sensor's mosaic, rows G B and R G, 10 bit in the low bits of 16, little-endian.
    Gbrg10,
    /// A sensor's mosaic, rows B G and G R, 10 bit in the low bits of 16, little-endian.
    Bggr10,
}

/// Where the colours lie in a sensor's mosaic: a pattern of two by two pixels with red in one corner, blue in the
/// opposite one and green in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mosaic {
    /// Column (0 or 1) of red in the pattern.
    pub red_column: usize,
    /// Row (0 or 1) of red in the pattern.
    pub red_row: usize,
    /// Bytes a pixel: 1, or 2 for 10 bits.
    pub bytes: usize,
}

impl PixelFormat {
    /// All formats.
    pub const ALL: [Self; 15] = [
        Self::Nv12,
        Self::I420,
        Self::Yuy2,
        Self::Uyvy,
        Self::Rgb,
        Self::Bgr,
        Self::Gray8,
        Self::Rggb8,
        Self::Grbg8,
        Self::Gbrg8,
        Self::Bggr8,
        Self::Rggb10,
        Self::Grbg10,
        Self::Gbrg10,
        Self::Bggr10,
    ];

    /// The name used in board files; of all but mosaics also the one in GStreamer's caps for raw video, which has
    /// no mosaics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nv12 => "NV12",
            Self::I420 => "I420",
            Self::Yuy2 => "YUY2",
            Self::Uyvy => "UYVY",
            Self::Rgb => "RGB",
            Self::Bgr => "BGR",
            Self::Gray8 => "GRAY8",
            Self::Rggb8 => "RGGB8",
            Self::Grbg8 => "GRBG8",
            Self::Gbrg8 => "GBRG8",
            Self::Bggr8 => "BGGR8",
            Self::Rggb10 => "RGGB10",
            Self::Grbg10 => "GRBG10",
            Self::Gbrg10 => "GBRG10",
            Self::Bggr10 => "BGGR10",
        }
    }

    /// Number of planes.
    #[must_use]
    pub const fn planes(self) -> usize {
        match self {
            Self::Nv12 => 2,
            Self::I420 => 3,
            _ => 1,
        }
    }

    /// How its pixels' colours are laid out, if it is a sensor's mosaic.
    #[must_use]
    pub const fn mosaic(self) -> Option<Mosaic> {
        let (red_column, red_row, bytes) = match self {
            Self::Rggb8 => (0, 0, 1),
            Self::Grbg8 => (1, 0, 1),
            Self::Gbrg8 => (0, 1, 1),
            Self::Bggr8 => (1, 1, 1),
            Self::Rggb10 => (0, 0, 2),
            Self::Grbg10 => (1, 0, 2),
            Self::Gbrg10 => (0, 1, 2),
            Self::Bggr10 => (1, 1, 2),
            _ => return None,
        };
        Some(Mosaic { red_column, red_row, bytes })
    }

    /// Whether its samples are red, green and blue, so that no coefficients are needed for colour.
    #[must_use]
    pub const fn is_rgb(self) -> bool {
        matches!(self, Self::Rgb | Self::Bgr) || self.mosaic().is_some()
    }

    /// Bytes in a row of `plane` and number of its rows, for an image of `width` by `height` pixels.
    /// Odd sizes round the chroma up, and a mosaic to whole patterns.
    #[must_use]
    pub const fn plane_extent(self, plane: usize, width: u32, height: u32) -> (usize, usize) {
        let (w, h) = (width as usize, height as usize);
        if let Some(mosaic) = self.mosaic() {
            return (w.div_ceil(2) * 2 * mosaic.bytes, h.div_ceil(2) * 2);
        }
        match (self, plane) {
            (Self::Nv12 | Self::I420 | Self::Gray8, 0) => (w, h),
            (Self::Nv12, _) => (w.div_ceil(2) * 2, h.div_ceil(2)),
            (Self::I420, _) => (w.div_ceil(2), h.div_ceil(2)),
            (Self::Yuy2 | Self::Uyvy, _) => (w.div_ceil(2) * 4, h),
            (Self::Rgb | Self::Bgr, _) => (w * 3, h),
            _ => (0, 0),
        }
    }
}

/// Coefficients that turn Y'CbCr into R'G'B'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// ITU-R BT.601 (Kr 0.299, Kb 0.114).
    Bt601,
    /// ITU-R BT.709 (Kr 0.2126, Kb 0.0722).
    Bt709,
}

/// Which code values are black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Range {
    /// Y 16..235, Cb and Cr 16..240 (video).
    Limited,
    /// 0..255 (JPEG, most USB cameras' MJPEG).
    Full,
}

/// Matrix and range of a Y'CbCr or grey image. Of RGB, BGR and mosaics only the matrix counts, where luma is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Colorimetry {
    /// Conversion coefficients.
    pub matrix: Matrix,
    /// Range of the code values.
    pub range: Range,
}

impl Colorimetry {
    /// The usual guess where a source says nothing: BT.709 from 720 lines on, BT.601 below, limited range.
    #[must_use]
    pub const fn default_for(height: u32) -> Self {
        Self { matrix: if height >= 720 { Matrix::Bt709 } else { Matrix::Bt601 }, range: Range::Limited }
    }
}

/// Where one plane lies within a frame's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plane {
    /// First byte of the plane's first row.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Where an image's pixels lie within a frame's bytes, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageLayout {
    /// Format of the pixels.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The planes; entries past `format.planes()` are zero.
    pub planes: [Plane; 3],
    /// How Y'CbCr is to be read.
    pub color: Colorimetry,
}

impl ImageLayout {
    /// Planes one after the other without padding, colorimetry by size.
    #[must_use]
    pub fn packed(format: PixelFormat, width: u32, height: u32) -> Self {
        let mut planes = [Plane::default(); 3];
        let mut offset = 0;
        for (index, plane) in planes.iter_mut().enumerate().take(format.planes()) {
            let (stride, rows) = format.plane_extent(index, width, height);
            *plane = Plane { offset, stride };
            offset += stride * rows;
        }
        Self { format, width, height, planes, color: Colorimetry::default_for(height) }
    }

    /// Bytes from the frame's start to the end of its last pixel; `None` when the layout contradicts itself
    /// (a stride shorter than a row, or an extent that overflows).
    #[must_use]
    pub fn extent(&self) -> Option<usize> {
        let mut end = 0;
        for (index, plane) in self.planes.iter().enumerate().take(self.format.planes()) {
            let (row, rows) = self.format.plane_extent(index, self.width, self.height);
            if plane.stride < row || rows == 0 || row == 0 {
                return None;
            }
            let last = plane.stride.checked_mul(rows - 1)?.checked_add(row)?.checked_add(plane.offset)?;
            end = end.max(last);
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_sizes_match_the_formats() {
        for (format, bytes) in [
            (PixelFormat::Nv12, 640 * 360 * 3 / 2),
            (PixelFormat::I420, 640 * 360 * 3 / 2),
            (PixelFormat::Yuy2, 640 * 360 * 2),
            (PixelFormat::Rgb, 640 * 360 * 3),
            (PixelFormat::Bgr, 640 * 360 * 3),
            (PixelFormat::Uyvy, 640 * 360 * 2),
            (PixelFormat::Gray8, 640 * 360),
            (PixelFormat::Bggr8, 640 * 360),
            (PixelFormat::Gbrg10, 640 * 360 * 2),
        ] {
            assert_eq!(ImageLayout::packed(format, 640, 360).extent(), Some(bytes), "{}", format.as_str());
        }
    }

    #[test]
    fn odd_sizes_round_chroma_and_patterns_up() {
        assert_eq!(ImageLayout::packed(PixelFormat::Nv12, 3, 3).extent(), Some(9 + 4 * 2));
        assert_eq!(ImageLayout::packed(PixelFormat::I420, 3, 3).extent(), Some(9 + 2 * 2 * 2));
        assert_eq!(ImageLayout::packed(PixelFormat::Grbg8, 3, 3).extent(), Some(4 * 4));
        assert_eq!(ImageLayout::packed(PixelFormat::Grbg10, 3, 1).extent(), Some(8 * 2));
    }

    /// The name spells the pattern, row by row.
    #[test]
    fn mosaics_are_as_they_are_called() {
        let mosaics: Vec<_> =
            PixelFormat::ALL.into_iter().filter(|format| format.mosaic().is_some()).collect();
        assert_eq!(mosaics.len(), 8);
        for format in mosaics {
            let (name, mosaic) = (format.as_str(), format.mosaic().unwrap());
            let (pattern, bits) = name.split_at(4);
            let at = |column: usize, row: usize| pattern.as_bytes()[2 * row + column];
            let Mosaic { red_column, red_row, bytes } = mosaic;
            assert_eq!(at(red_column, red_row), b'R', "{name}");
            assert_eq!(at(1 - red_column, 1 - red_row), b'B', "{name}");
            assert_eq!([at(1 - red_column, red_row), at(red_column, 1 - red_row)], [b'G'; 2], "{name}");
            assert_eq!(bytes, if bits == "8" { 1 } else { 2 }, "{name}");
            assert_eq!(serde_json::to_value(format).unwrap(), name);
        }
    }

    #[test]
    fn contradicting_layouts_have_no_extent() {
        let mut layout = ImageLayout::packed(PixelFormat::Rgb, 4, 4);
        layout.planes[0].stride = 11;
        assert_eq!(layout.extent(), None);
        layout.planes[0].stride = usize::MAX;
        assert_eq!(layout.extent(), None);
        assert_eq!(ImageLayout::packed(PixelFormat::Rgb, 0, 4).extent(), None);
    }
}
