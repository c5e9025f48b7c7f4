//! What the bytes of a frame mean.

use serde::{Deserialize, Serialize};

/// Pixel formats that a source may deliver and pre-processing understands (all 8 bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PixelFormat {
    /// Y plane, then interleaved Cb and Cr at half resolution both ways.
    Nv12,
    /// Y plane, then Cb plane, then Cr plane at half resolution both ways.
    I420,
    /// Packed Y0 Cb Y1 Cr: chroma at half horizontal resolution (V4L2's YUYV).
    Yuy2,
    /// Packed R, G, B.
    Rgb,
    /// Packed B, G, R.
    Bgr,
    /// One plane of luma.
    Gray8,
}

impl PixelFormat {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Nv12, Self::I420, Self::Yuy2, Self::Rgb, Self::Bgr, Self::Gray8];

    /// The name used in board files and GStreamer caps.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nv12 => "NV12",
            Self::I420 => "I420",
            Self::Yuy2 => "YUY2",
            Self::Rgb => "RGB",
            Self::Bgr => "BGR",
            Self::Gray8 => "GRAY8",
        }
    }

    /// Number of planes.
    #[must_use]
    pub const fn planes(self) -> usize {
        match self {
            Self::Nv12 => 2,
            Self::I420 => 3,
            Self::Yuy2 | Self::Rgb | Self::Bgr | Self::Gray8 => 1,
        }
    }

    /// Bytes in a row of `plane` and number of its rows, for an image of `width` by `height` pixels.
    /// Odd sizes round the chroma up.
    #[must_use]
    pub const fn plane_extent(self, plane: usize, width: u32, height: u32) -> (usize, usize) {
        let (w, h) = (width as usize, height as usize);
        match (self, plane) {
            (Self::Nv12 | Self::I420 | Self::Gray8, 0) => (w, h),
            (Self::Nv12, _) => (w.div_ceil(2) * 2, h.div_ceil(2)),
            (Self::I420, _) => (w.div_ceil(2), h.div_ceil(2)),
            (Self::Yuy2, _) => (w.div_ceil(2) * 4, h),
            (Self::Rgb | Self::Bgr, _) => (w * 3, h),
            (Self::Gray8, _) => (0, 0),
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

/// Matrix and range of a Y'CbCr or grey image. Of RGB and BGR only the matrix counts, where luma is made.
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
            (PixelFormat::Gray8, 640 * 360),
        ] {
            assert_eq!(ImageLayout::packed(format, 640, 360).extent(), Some(bytes), "{}", format.as_str());
        }
    }

    #[test]
    fn odd_sizes_round_chroma_up() {
        assert_eq!(ImageLayout::packed(PixelFormat::Nv12, 3, 3).extent(), Some(9 + 4 * 2));
        assert_eq!(ImageLayout::packed(PixelFormat::I420, 3, 3).extent(), Some(9 + 2 * 2 * 2));
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
