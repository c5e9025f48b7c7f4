//! V4L2's pixel formats and ours, and where a frame's pixels lie in the driver's planes.

use crate::image::{Colorimetry, ImageLayout, Matrix, PixelFormat, Plane, Range};
use std::fmt;
use v4l::v4l_sys as sys;

/// Most planes of memory in a frame of ours.
pub const PLANES: usize = 3;

/// V4L2's four letters for a format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fourcc(pub [u8; 4]);

impl Fourcc {
    /// JPEG images one after the other, as USB cameras send them.
    pub const MJPEG: Self = Self(*b"MJPG");
    /// JPEG images, by the name that other drivers use.
    pub const JPEG: Self = Self(*b"JPEG");

    /// As the kernel has it.
    pub const fn from_u32(code: u32) -> Self {
        Self(code.to_le_bytes())
    }

    /// As the kernel has it.
    pub const fn to_u32(self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    /// Written in a board file; shorter ones are filled up with blanks, as V4L2 does.
    pub fn parse(text: &str) -> Self {
        let mut letters = [b' '; 4];
        letters.iter_mut().zip(text.bytes()).for_each(|(letter, byte)| *letter = byte);
        Self(letters)
    }
}

impl fmt::Display for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The highest bit says big endian.
        for byte in self.0.map(|byte| byte & 0x7f) {
            write!(f, "{}", if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })?;
        }
        if self.0[3] & 0x80 == 0 { Ok(()) } else { f.write_str("-BE") }
    }
}

impl fmt::Debug for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// V4L2 formats and what they are to us, best first; the last column says whether each plane of the image is a
/// plane of memory of its own.
const FORMATS: [(Fourcc, PixelFormat, bool); 17] = [
    (Fourcc(*b"NV12"), PixelFormat::Nv12, false),
    (Fourcc(*b"NM12"), PixelFormat::Nv12, true),
    (Fourcc(*b"YU12"), PixelFormat::I420, false),
    (Fourcc(*b"YM12"), PixelFormat::I420, true),
    (Fourcc(*b"YUYV"), PixelFormat::Yuy2, false),
    (Fourcc(*b"UYVY"), PixelFormat::Uyvy, false),
    (Fourcc(*b"RGB3"), PixelFormat::Rgb, false),
    (Fourcc(*b"BGR3"), PixelFormat::Bgr, false),
    (Fourcc(*b"GREY"), PixelFormat::Gray8, false),
    (Fourcc(*b"RGGB"), PixelFormat::Rggb8, false),
    (Fourcc(*b"GRBG"), PixelFormat::Grbg8, false),
    (Fourcc(*b"GBRG"), PixelFormat::Gbrg8, false),
    (Fourcc(*b"BA81"), PixelFormat::Bggr8, false),
    (Fourcc(*b"RG10"), PixelFormat::Rggb10, false),
    (Fourcc(*b"BA10"), PixelFormat::Grbg10, false),
    (Fourcc(*b"GB10"), PixelFormat::Gbrg10, false),
    (Fourcc(*b"BG10"), PixelFormat::Bggr10, false),
];

/// The V4L2 formats that are `format`, best first.
pub fn fourccs(format: PixelFormat) -> impl Iterator<Item = Fourcc> {
    FORMATS.iter().filter(move |(_, ours, _)| *ours == format).map(|(fourcc, ..)| *fourcc)
}

/// What a V4L2 format is to us, where it is something.
pub fn pixel_format(fourcc: Fourcc) -> Option<PixelFormat> {
    FORMATS.iter().find(|(theirs, ..)| *theirs == fourcc).map(|(_, ours, _)| *ours)
}

/// Whether it is JPEG images.
pub fn is_jpeg(fourcc: Fourcc) -> bool {
    fourcc == Fourcc::MJPEG || fourcc == Fourcc::JPEG
}

/// A plane of memory as the driver describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlane {
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes of the whole plane.
    pub bytes: usize,
}

/// What the driver agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The format.
    pub fourcc: Fourcc,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `V4L2_FIELD_...`
    pub field: u32,
    /// Planes of memory in use.
    pub count: usize,
    /// The planes of memory.
    pub planes: [MemoryPlane; PLANES],
    /// How its colours are to be read, where the driver says so.
    pub color: Option<Colorimetry>,
}

impl Agreed {
    /// The planes of memory in use.
    pub fn memory(&self) -> &[MemoryPlane] {
        &self.planes[..self.count]
    }

    /// Where the pixels lie when plane of memory `n` begins at `offsets[n]`, and the bytes that each plane of
    /// memory must hold for that, to the last pixel.
    ///
    /// # Errors
    /// What the driver says and does not fit together.
    pub fn layout(&self, offsets: [usize; PLANES]) -> Result<(ImageLayout, [usize; PLANES]), String> {
        let (_, format, apart) = FORMATS
            .into_iter()
            .find(|(fourcc, ..)| *fourcc == self.fourcc)
            .ok_or_else(|| format!("{} is none of our formats", self.fourcc))?;
        let wanted = if apart { format.planes() } else { 1 };
        if self.count != wanted {
            return Err(format!("{} has {wanted} planes, the driver says {}", self.fourcc, self.count));
        }
        let mut layout = ImageLayout::packed(format, self.width, self.height);
        layout.color = self.color.unwrap_or(layout.color);
        let (mut next, mut needed) = ([0; PLANES], [0; PLANES]);
        for number in 0..format.planes() {
            let (row, rows) = format.plane_extent(number, self.width, self.height);
            let memory = if apart { number } else { 0 };
            let given = self.planes[memory].stride;
            let stride = match (given, format, number) {
                (0, ..) => row,
                (given, PixelFormat::I420, 1..) if !apart => given / 2,
                (given, ..) => given,
            };
            let fault = || {
                let MemoryPlane { stride, bytes } = self.planes[memory];
                format!(
                    "the driver gives plane {memory} {bytes} bytes with {stride} in a row, which is too little for \
                     {}x{} {}",
                    self.width, self.height, self.fourcc
                )
            };
            let begin = next[memory];
            let end =
                stride.checked_mul(rows).and_then(|bytes| bytes.checked_add(begin)).ok_or_else(fault)?;
            // The last row need not be padded.
            needed[memory] =
                stride.checked_sub(row).and_then(|padding| end.checked_sub(padding)).ok_or_else(fault)?;
            if needed[memory] > self.planes[memory].bytes {
                return Err(fault());
            }
            layout.planes[number] = Plane { offset: offsets[memory] + begin, stride };
            next[memory] = end;
        }
        match layout.extent() {
            Some(_) => Ok((layout, needed)),
            None => Err(format!("{}x{} is no size", self.width, self.height)),
        }
    }
}

/// How a driver's colours are to be read, where it says so.
pub fn colorimetry(colorspace: u32, ycbcr_enc: u32, quantization: u32) -> Option<Colorimetry> {
    let matrix = match (ycbcr_enc, colorspace) {
        (sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709 | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709, _) => {
            Matrix::Bt709
        }
        (
            sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601
            | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV601
            | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SYCC,
            _,
        ) => Matrix::Bt601,
        // The kernel's own defaults for what the driver leaves open.
        (sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT, space) => match space {
            sys::v4l2_colorspace_V4L2_COLORSPACE_REC709 | sys::v4l2_colorspace_V4L2_COLORSPACE_DCI_P3 => {
                Matrix::Bt709
            }
            sys::v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M
            | sys::v4l2_colorspace_V4L2_COLORSPACE_470_SYSTEM_M
            | sys::v4l2_colorspace_V4L2_COLORSPACE_470_SYSTEM_BG
            | sys::v4l2_colorspace_V4L2_COLORSPACE_SRGB
            | sys::v4l2_colorspace_V4L2_COLORSPACE_OPRGB
            | sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG => Matrix::Bt601,
            _ => return None,
        },
        _ => return None,
    };
    let range = match (quantization, colorspace) {
        (sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE, _)
        | (sys::v4l2_quantization_V4L2_QUANTIZATION_DEFAULT, sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG) => {
            Range::Full
        }
        _ => Range::Limited,
    };
    Some(Colorimetry { matrix, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(fourcc: &[u8; 4], width: u32, height: u32, planes: &[(usize, usize)]) -> Agreed {
        let mut all = [MemoryPlane::default(); PLANES];
        for (plane, &(stride, bytes)) in all.iter_mut().zip(planes) {
            *plane = MemoryPlane { stride, bytes };
        }
        let count = planes.len();
        Agreed { fourcc: Fourcc(*fourcc), width, height, field: 1, count, planes: all, color: None }
    }

    fn planes(layout: &ImageLayout) -> Vec<(usize, usize)> {
        let planes = layout.planes.iter().take(layout.format.planes());
        planes.map(|plane| (plane.offset, plane.stride)).collect()
    }

    #[test]
    fn every_format_of_ours_has_a_fourcc_and_means_itself() {
        for format in PixelFormat::ALL {
            assert!(fourccs(format).count() > 0, "{}", format.as_str());
        }
        let letters: std::collections::BTreeSet<_> = FORMATS.iter().map(|(fourcc, ..)| *fourcc).collect();
        assert_eq!(letters.len(), FORMATS.len(), "each fourcc means one thing");
        assert!(!FORMATS.iter().any(|(fourcc, ..)| is_jpeg(*fourcc)));
    }

    #[test]
    fn fourccs_are_written_as_the_kernel_has_them() {
        assert_eq!(Fourcc::parse("NV12").to_u32(), u32::from_le_bytes(*b"NV12"));
        assert_eq!(Fourcc::parse("Y8").to_string(), "Y8  ");
        assert_eq!(Fourcc::from_u32(u32::from_le_bytes(*b"RGB3") | 1 << 31).to_string(), "RGB3-BE");
        assert_eq!(Fourcc([0, b'a', 0x1b, b'z']).to_string(), ".a.z");
    }

    #[test]
    fn strides_are_the_drivers() {
        let (layout, used) = agreed(b"NV12", 640, 360, &[(768, 768 * 540)]).layout([0; 3]).expect("fits");
        assert_eq!(planes(&layout), [(0, 768), (768 * 360, 768)]);
        assert_eq!(used, [768 * 540 - 128, 0, 0]);
        let (layout, _) = agreed(b"YU12", 640, 360, &[(704, 704 * 540)]).layout([0; 3]).expect("fits");
        assert_eq!(planes(&layout), [(0, 704), (704 * 360, 352), (704 * 360 + 352 * 180, 352)]);
        let (layout, used) = agreed(b"YUYV", 640, 360, &[(0, 640 * 720)]).layout([64; 3]).expect("fits");
        assert_eq!((planes(&layout), used[0]), (vec![(64, 1280)], 640 * 720));
    }

    #[test]
    fn planes_of_memory_lie_where_they_are_put() {
        let nm12 = agreed(b"NM12", 640, 360, &[(640, 640 * 360), (640, 640 * 180)]);
        let (layout, used) = nm12.layout([0, 233_472, 0]).expect("fits");
        assert_eq!(planes(&layout), [(0, 640), (233_472, 640)]);
        assert_eq!(used, [640 * 360, 640 * 180, 0]);
        let ym12 = agreed(b"YM12", 64, 4, &[(64, 256), (32, 64), (32, 64)]);
        assert_eq!(planes(&ym12.layout([0, 4096, 8192]).expect("fits").0), [(0, 64), (4096, 32), (8192, 32)]);
    }

    #[test]
    fn the_last_row_need_not_be_padded() {
        let bytes = 100 * 3 + 64;
        let (layout, used) = agreed(b"GREY", 64, 4, &[(100, bytes)]).layout([0; 3]).expect("fits");
        assert_eq!((layout.extent(), used[0]), (Some(bytes), bytes));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (wrong, said) in [
            (agreed(b"NV12", 640, 360, &[(640, 640 * 540 - 1)]), "too little"),
            (agreed(b"NV12", 640, 360, &[(639, 640 * 540)]), "too little"),
            (agreed(b"NV12", 640, 360, &[(usize::MAX, 640 * 540)]), "too little"),
            (agreed(b"NM12", 640, 360, &[(640, 640 * 540)]), "2 planes"),
            (agreed(b"NV12", 640, 360, &[(640, 640 * 360), (640, 640 * 180)]), "1 planes"),
            (agreed(b"MJPG", 640, 360, &[(0, 1000)]), "none of our formats"),
            (agreed(b"GREY", 0, 0, &[(0, 1000)]), "no size"),
        ] {
            let refused = wrong.layout([0; 3]).expect_err("must not fit");
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn colours_are_read_as_the_driver_says() {
        let (full, limited) = (Range::Full, Range::Limited);
        for ((space, encoding, quantization), said) in [
            ((3, 0, 0), Some((Matrix::Bt709, limited))),
            ((7, 0, 0), Some((Matrix::Bt601, full))),
            ((8, 0, 0), Some((Matrix::Bt601, limited))),
            ((8, 2, 1), Some((Matrix::Bt709, full))),
            ((0, 0, 0), None),
            ((10, 0, 0), None),
            ((3, 6, 0), None),
        ] {
            let read = colorimetry(space, encoding, quantization).map(|c| (c.matrix, c.range));
            assert_eq!(read, said, "{space} {encoding} {quantization}");
        }
    }
}
