//! How a board would use a camera: the mode that serves a detector best.

use super::{Format, Fourcc, Interval, Size};
use crate::image::PixelFormat;
use std::time::Duration;

/// Sizes to choose from where a camera has a range of them.
const USUAL: [(u32, u32); 6] = [(1280, 720), (960, 540), (640, 480), (640, 360), (320, 240), (1920, 1080)];
/// Detectors see no more than this.
const ENOUGH: u32 = 1280 * 720;
/// Fewer frames a second are few.
const FEW: f64 = 24.0;
/// More frames a second are not asked for.
const MANY: f64 = 30.01;
/// What is supposed of a camera that does not tell its rates.
const USUAL_RATE: f64 = 30.0;
/// The largest side of a frame that a board may have.
const LARGEST: u32 = 8192;

/// A camera's mode, as a board would ask for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// What the camera sends.
    pub fourcc: Fourcc,
    /// What the stream's frames are.
    pub format: PixelFormat,
    /// The camera sends JPEG images.
    pub is_jpeg: bool,
    /// Width of its frames in pixels.
    pub width: u32,
    /// Height of its frames in pixels.
    pub height: u32,
    /// Frames a second.
    pub fps: f64,
    /// The camera does not tell its rates; the one here is a guess.
    pub is_guess: bool,
}

impl Proposal {
    /// Mbit/s of pixels; `None` for JPEG images, whose size depends on what is seen.
    #[must_use]
    pub fn megabits(&self) -> Option<f64> {
        let bytes: usize = (0..self.format.planes())
            .map(|plane| self.format.plane_extent(plane, self.width, self.height))
            .map(|(row, rows)| row * rows)
            .sum();
        (!self.is_jpeg).then(|| bytes as f64 * 8.0 * self.fps / 1e6)
    }

    /// What makes a mode the better one; more is better, what comes first counts first.
    fn merit(&self) -> [f64; 7] {
        let area = self.width * self.height;
        let rank = match self.format {
            PixelFormat::Nv12 => 5.0,
            PixelFormat::I420 => 4.0,
            PixelFormat::Yuy2 | PixelFormat::Uyvy => 3.0,
            PixelFormat::Rgb | PixelFormat::Bgr => 2.0,
            _ => 1.0,
        };
        let is = |what: bool| f64::from(u8::from(what));
        [
            is(self.format.mosaic().is_none() && self.format != PixelFormat::Gray8),
            is(self.fps >= FEW),
            is(self.width >= 640),
            // Decoding takes a core's time; a smaller picture does not.
            is(!self.is_jpeg),
            if area <= ENOUGH { f64::from(area) } else { -f64::from(area) },
            self.fps,
            rank,
        ]
    }
}

/// The best mode of `formats`, if a board can use any. `intervals` tells those of a size within a range.
pub(super) fn propose(
    formats: &[Format],
    intervals: impl Fn(Fourcc, u32, u32) -> Vec<Interval>,
) -> Option<Proposal> {
    let mut best: Option<Proposal> = None;
    for Format { fourcc, format, is_jpeg, sizes, .. } in formats {
        let Some(format) = format.or(is_jpeg.then_some(PixelFormat::Nv12)) else { continue };
        for (size, told) in sizes {
            for (width, height) in choices(*size) {
                let told = match size {
                    Size::Exactly(..) => told.clone(),
                    Size::Range { .. } => intervals(*fourcc, width, height),
                };
                let (fps, is_guess) = match rate(&told) {
                    Some(fps) => (fps, false),
                    None => (USUAL_RATE, true),
                };
                let mode =
                    Proposal { fourcc: *fourcc, format, is_jpeg: *is_jpeg, width, height, fps, is_guess };
                if best.is_none_or(|best| mode.merit() > best.merit()) {
                    best = Some(mode);
                }
            }
        }
    }
    best
}

/// Sizes that a board can have.
fn choices(size: Size) -> Vec<(u32, u32)> {
    let mut sizes = match size {
        Size::Exactly(width, height) => vec![(width, height)],
        Size::Range { least, most, step } => {
            let within = |side: u32, least: u32, most: u32, step: u32| {
                (least..=most).contains(&side) && (side - least).is_multiple_of(step.max(1))
            };
            let fits = |&(width, height): &(u32, u32)| {
                within(width, least.0, most.0, step.0) && within(height, least.1, most.1, step.1)
            };
            USUAL.into_iter().filter(fits).chain([most]).collect()
        }
    };
    sizes.retain(|&(width, height)| {
        let is_side = |side: u32| side.is_multiple_of(2) && (1..=LARGEST).contains(&side);
        is_side(width) && is_side(height)
    });
    sizes
}

/// The most frames a second, up to 30; else the fewest.
fn rate(intervals: &[Interval]) -> Option<f64> {
    let rate = |interval: Duration| 1.0 / interval.as_secs_f64().max(1e-9);
    let rates: Vec<f64> = intervals
        .iter()
        .map(|interval| match *interval {
            Interval::Exactly(interval) => rate(interval),
            Interval::Range(shortest, longest) => USUAL_RATE.min(rate(shortest)).max(rate(longest)),
        })
        .collect();
    let most = rates.iter().copied().filter(|rate| *rate <= MANY).reduce(f64::max);
    most.or_else(|| rates.into_iter().reduce(f64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(fourcc: &[u8; 4], width: u32, height: u32, rates: &[u64]) -> Format {
        let fourcc = Fourcc(*fourcc);
        let intervals =
            rates.iter().map(|rate| Interval::Exactly(Duration::from_nanos(1_000_000_000 / rate))).collect();
        Format {
            fourcc,
            description: String::new(),
            format: super::super::format::pixel_format(fourcc),
            is_jpeg: super::super::is_jpeg(fourcc),
            sizes: vec![(Size::Exactly(width, height), intervals)],
        }
    }

    fn chosen(formats: &[Format]) -> Option<(String, u32, u32, f64)> {
        let best = propose(formats, |_, _, _| Vec::new())?;
        Some((best.fourcc.to_string(), best.width, best.height, best.fps.round()))
    }

    #[test]
    fn pixels_at_a_good_rate_come_before_larger_pictures() {
        let webcam = [
            mode(b"YUYV", 320, 240, &[30]),
            mode(b"YUYV", 640, 480, &[30, 15]),
            mode(b"YUYV", 1280, 720, &[10]),
            mode(b"MJPG", 1280, 720, &[60, 30]),
            mode(b"H264", 1920, 1080, &[30]),
        ];
        assert_eq!(chosen(&webcam), Some(("YUYV".to_owned(), 640, 480, 30.0)));
        assert_eq!(chosen(&webcam[2..]), Some(("MJPG".to_owned(), 1280, 720, 30.0)));
        assert_eq!(chosen(&webcam[4..]), None);
        let csi = [mode(b"RG10", 1920, 1080, &[30]), mode(b"NV12", 3840, 2160, &[15])];
        assert_eq!(chosen(&csi), Some(("NV12".to_owned(), 3840, 2160, 15.0)));
        assert_eq!(chosen(&csi[..1]), Some(("RG10".to_owned(), 1920, 1080, 30.0)));
        let fast = [mode(b"YUYV", 640, 480, &[120, 90])];
        assert_eq!(chosen(&fast), Some(("YUYV".to_owned(), 640, 480, 90.0)));
        let two = [mode(b"YUYV", 640, 480, &[30]), mode(b"NV12", 640, 480, &[30])];
        assert_eq!(chosen(&two), Some(("NV12".to_owned(), 640, 480, 30.0)));
    }

    #[test]
    fn what_a_board_can_not_have_is_not_proposed() {
        assert_eq!(chosen(&[mode(b"GREY", 641, 480, &[30])]), None);
        assert_eq!(chosen(&[mode(b"GREY", 0, 0, &[30])]), None);
        assert_eq!(chosen(&[mode(b"GREY", 9000, 480, &[30])]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn of_a_range_a_usual_size_is_taken() {
        let mut range = mode(b"NV12", 0, 0, &[]);
        range.sizes = vec![(Size::Range { least: (16, 16), most: (4096, 2160), step: (8, 2) }, Vec::new())];
        let twenty = |_, _, _| vec![Interval::Range(Duration::from_millis(10), Duration::from_secs(1))];
        let best = propose(&[range], twenty).expect("a mode");
        assert_eq!((best.width, best.height, best.fps, best.is_guess), (1280, 720, 30.0, false));
        assert!((best.megabits().expect("pixels") - 331.776).abs() < 1e-6, "{:?}", best.megabits());
        let odd = Size::Range { least: (100, 100), most: (200, 150), step: (100, 50) };
        assert_eq!(choices(odd), [(200, 150)]);
        assert_eq!(choices(Size::Range { least: (0, 0), most: (u32::MAX, u32::MAX), step: (0, 0) }), USUAL);
    }

    #[test]
    fn a_rate_that_is_not_told_is_a_guess() {
        let best = propose(&[mode(b"NV12", 1280, 720, &[])], |_, _, _| Vec::new()).expect("a mode");
        assert_eq!((best.fps, best.is_guess), (30.0, true));
    }
}
