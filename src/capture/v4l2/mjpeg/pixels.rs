//! One JPEG image to one frame of the stream's format.
//!
//! libjpeg-turbo decodes into the slot itself where it can make the format: RGB, BGR, GRAY8, and I420 of images with
//! chroma at half resolution. Other Y'CbCr formats are put together from its planes, which is a copy and counted.

use crate::image::{ImageLayout, PixelFormat};
use std::fmt;
use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Error, Image, Subsamp, YuvImage};

/// Most scans of a progressive image: what no camera sends must not keep the thread for seconds.
const SCANS: u32 = 32;
/// Cheap cameras leave a few bytes between the last pixel and the image's end; more of them are a broken image.
const LEFT_OVER: u32 = 32;

/// Why an image did not become a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no JPEG image, or not a whole one.
    Broken(String),
    /// It has another size than the stream.
    Size(usize, usize),
    /// The stream's format can't be made of its colours.
    Color(String),
}

impl Fault {
    /// Kinds of faults.
    pub(super) const KINDS: usize = 3;

    /// Which kind it is, from 0.
    pub(super) const fn kind(&self) -> usize {
        match self {
            Self::Broken(_) => 0,
            Self::Size(..) => 1,
            Self::Color(_) => 2,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => {
                write!(
                    f,
                    "a JPEG image is broken ({why}); look at the cable and at the bandwidth of its USB bus"
                )
            }
            Self::Size(width, height) => {
                write!(
                    f,
                    "its JPEG images are {width}x{height}, not of the stream's size; set size = [{width}, {height}]"
                )
            }
            Self::Color(colors) => {
                write!(
                    f,
                    "its JPEG images are {colors}, of which the stream's format is not made; set format = \"RGB\""
                )
            }
        }
    }
}

/// Turns images of one size into frames of one layout.
pub(super) struct Pixels {
    layout: ImageLayout,
    /// Y, Cb and Cr as they are in the image, one plane after the other.
    planes: Vec<u8>,
    /// A row of Cb and one of Cr for a row of the frame's chroma.
    chroma: [Vec<u8>; 2],
}

/// The planes of an image: samples, bytes in a row, rows.
#[derive(Clone, Copy)]
struct Plane<'a> {
    samples: &'a [u8],
    stride: usize,
    rows: usize,
}

impl<'a> Plane<'a> {
    /// A row; the last one for those below it.
    fn row(&self, y: usize) -> &'a [u8] {
        &self.samples[y.min(self.rows - 1) * self.stride..][..self.stride]
    }
}

impl Pixels {
    /// For frames of `layout`, whose planes are packed.
    pub(super) fn new(layout: ImageLayout) -> Self {
        let (width, height) = (layout.width as usize, layout.height as usize);
        // Planes are as large as the frame at most, up to whole pairs of pixels.
        let planes = vec![0; 3 * (width + 1) * (height + 1)];
        let half = vec![0; width.div_ceil(2)];
        Self { layout, planes, chroma: [half.clone(), half] }
    }

    /// Decodes `image` to `frame`, which has room for it. How many bytes were copied after decoding.
    ///
    /// # Errors
    /// Why there is no frame; the bytes are anything then.
    pub(super) fn decode(&mut self, image: &[u8], frame: &mut [u8]) -> Result<usize, Fault> {
        let (width, height) = (self.layout.width as usize, self.layout.height as usize);
        // A new one for every image: it would keep tables of a broken one for those that have none themselves.
        let mut jpeg = Decompressor::new().map_err(broken)?;
        jpeg.set_scan_limit(SCANS).map_err(broken)?;
        let header = jpeg.read_header(image).map_err(broken)?;
        if (header.width, header.height) != (width, height) {
            return Err(Fault::Size(header.width, header.height));
        }
        let format = match self.layout.format {
            PixelFormat::Rgb => Some(turbojpeg::PixelFormat::RGB),
            PixelFormat::Bgr => Some(turbojpeg::PixelFormat::BGR),
            PixelFormat::Gray8 => Some(turbojpeg::PixelFormat::GRAY),
            _ => None,
        };
        if let Some(format) = format {
            let pitch = self.layout.planes[0].stride;
            let output = Image { pixels: frame, width, pitch, height, format };
            return whole(jpeg.decompress(image, output)).map(|()| 0);
        }
        let sampling = sampling(&header)?;
        let even = width.is_multiple_of(2) && height.is_multiple_of(2);
        let direct = self.layout.format == PixelFormat::I420 && sampling == Some((2, 2)) && even;
        let pixels = if direct { &mut *frame } else { self.planes.as_mut_slice() };
        let output = YuvImage { pixels, width, align: 1, height, subsamp: header.subsamp };
        whole(jpeg.decompress_to_yuv(image, output))?;
        if direct {
            return Ok(0);
        }
        self.put_together(sampling, frame);
        Ok(self.layout.extent().unwrap_or(0))
    }

    /// The frame from the planes, whose chroma is sampled at every so many pixels both ways, or missing.
    fn put_together(&mut self, sampling: Option<(usize, usize)>, frame: &mut [u8]) {
        let ImageLayout { format, planes, .. } = self.layout;
        let (width, height) = (self.layout.width as usize, self.layout.height as usize);
        let (across, down) = sampling.unwrap_or((1, 1));
        let (stride, rows) = (width.next_multiple_of(across), height.next_multiple_of(down));
        let (luma, rest) = self.planes.split_at(stride * rows);
        let luma = Plane { samples: luma, stride, rows };
        let (stride, rows) = (stride / across, rows / down);
        let colors = [0, 1].map(|index| Plane { samples: &rest[index * stride * rows..], stride, rows });
        let row_of = |plane: usize, y: usize| planes[plane].offset + y * planes[plane].stride;
        let half = width.div_ceil(2);

        // Rows of the frame to one row of its chroma.
        let tall = if format == PixelFormat::Yuy2 || format == PixelFormat::Uyvy { 1 } else { 2 };
        for y in 0..height.div_ceil(tall) {
            for (out, plane) in self.chroma.iter_mut().zip(colors) {
                if sampling.is_none() {
                    out.fill(128);
                    continue;
                }
                let (above, below) = (plane.row(y * tall / down), plane.row((y * tall + tall - 1) / down));
                halve(above, below, across == 1, out);
            }
            let [cb, cr] = &self.chroma;
            match format {
                PixelFormat::I420 => {
                    frame[row_of(1, y)..][..half].copy_from_slice(cb);
                    frame[row_of(2, y)..][..half].copy_from_slice(cr);
                }
                PixelFormat::Nv12 => {
                    let pairs = frame[row_of(1, y)..][..2 * half].as_chunks_mut().0;
                    for ((pair, cb), cr) in pairs.iter_mut().zip(cb).zip(cr) {
                        *pair = [*cb, *cr];
                    }
                }
                _ => {
                    let bytes = frame[row_of(0, y)..][..4 * half].as_chunks_mut().0;
                    let luma = luma.row(y);
                    let swapped = format == PixelFormat::Uyvy;
                    for (((group, luma), cb), cr) in bytes.iter_mut().zip(luma.chunks(2)).zip(cb).zip(cr) {
                        let (first, second) = (luma[0], *luma.last().unwrap_or(&luma[0]));
                        *group = if swapped { [*cb, first, *cr, second] } else { [first, *cb, second, *cr] };
                    }
                }
            }
        }
        if tall == 2 {
            for y in 0..height {
                frame[row_of(0, y)..][..width].copy_from_slice(&luma.row(y)[..width]);
            }
        }
    }
}

/// Chroma at half the width between two rows, the mean of what lies there: of two samples, or of four where `full`
/// rows have one at every pixel.
fn halve(above: &[u8], below: &[u8], full: bool, out: &mut [u8]) {
    let mean = |samples: &[u8]| {
        let sum: u32 = samples.iter().map(|sample| u32::from(*sample)).sum();
        ((sum + samples.len() as u32 / 2) / samples.len() as u32) as u8
    };
    if full {
        for (out, (above, below)) in out.iter_mut().zip(above.chunks(2).zip(below.chunks(2))) {
            // The last pixel of an odd row stands alone.
            *out = mean(&[above[0], above[above.len() - 1], below[0], below[below.len() - 1]]);
        }
    } else {
        for (out, (above, below)) in out.iter_mut().zip(above.iter().zip(below)) {
            *out = mean(&[*above, *below]);
        }
    }
}

/// Pixels to one sample of chroma, across and down; `None` where there is no chroma.
fn sampling(header: &DecompressHeader) -> Result<Option<(usize, usize)>, Fault> {
    match (header.colorspace, header.subsamp) {
        (Colorspace::Gray, _) | (_, Subsamp::Gray) => Ok(None),
        (Colorspace::YCbCr, Subsamp::None) => Ok(Some((1, 1))),
        (Colorspace::YCbCr, Subsamp::Sub2x1) => Ok(Some((2, 1))),
        (Colorspace::YCbCr, Subsamp::Sub2x2) => Ok(Some((2, 2))),
        (Colorspace::YCbCr, Subsamp::Sub1x2) => Ok(Some((1, 2))),
        (colors, subsamp) => Err(Fault::Color(format!("{colors:?} with chroma as in {subsamp:?}"))),
    }
}

fn broken(error: Error) -> Fault {
    Fault::Broken(match error {
        Error::TurboJpegError(text) => text,
        other => other.to_string(),
    })
}

/// Whether all of an image was decoded. The library decodes what it can and says with a warning what was missing;
/// only a few bytes too many before the end are none of our business.
fn whole(decoded: Result<(), Error>) -> Result<(), Fault> {
    let Err(error) = decoded else { return Ok(()) };
    let Fault::Broken(text) = broken(error) else { return Ok(()) };
    let left_over = || {
        let (count, _) =
            text.strip_prefix("Corrupt JPEG data: ")?.split_once(" extraneous bytes before marker 0xd9")?;
        count.parse::<u32>().ok()
    };
    if left_over().is_some_and(|count| count <= LEFT_OVER) { Ok(()) } else { Err(Fault::Broken(text)) }
}
