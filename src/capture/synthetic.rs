//! A camera made of arithmetic: a bright rectangle that moves over a gradient, on an exact grid.
//!
//! The frames are rendered when it is opened; a release copies one of them into a slot, as a driver would fill
//! it, and allocates nothing.

use crate::board::Stream;
use crate::capture::grid::{Grid, Release, Turn};
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError, lost};
use crate::image::{ImageLayout, PixelFormat};
use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::stats::CopyStage;
use crate::time::Instant;
use std::time::Duration;

/// Different frames before they repeat.
const FRAMES: usize = 8;

/// The synthetic source.
#[derive(Debug)]
pub struct Synthetic {
    id: String,
    period: Duration,
    phase: Duration,
    jitter: Duration,
    seed: u64,
    layout: ImageLayout,
    frames: Vec<Vec<u8>>,
    /// Number of the first release that is to be dealt with.
    first: u64,
    grid: Option<Grid>,
    resources: Option<Resources>,
}

impl Synthetic {
    /// A source of `stream`'s frames, released `phase` after the start with up to `jitter` of delay.
    #[must_use]
    pub fn new(stream: &Stream, phase: Duration, jitter: Duration, seed: u64) -> Self {
        let mut layout = ImageLayout::packed(stream.format, stream.width, stream.height);
        layout.color = stream.color.unwrap_or(layout.color);
        Self {
            id: stream.id.clone(),
            period: stream.period,
            phase,
            jitter,
            seed,
            layout,
            frames: Vec::new(),
            first: 0,
            grid: None,
            resources: None,
        }
    }

    /// Fills a slot for `release`.
    fn fill(&self, release: Release) -> Result<Captured, DropReason> {
        let resources = self.resources.as_ref().ok_or(DropReason::SourceDown)?;
        let mut slot = resources.share.take().ok_or(DropReason::NoSlot)?;
        let picture = &self.frames[(release.sequence % FRAMES as u64) as usize];
        slot.bytes_mut()[..picture.len()].copy_from_slice(picture);
        resources.copies.count(CopyStage::SyntheticFill, picture.len());
        let frame = slot.freeze(self.layout).map_err(|_| DropReason::NoSlot)?;
        Ok(Captured { sequence: release.sequence, captured: release.at, frame })
    }
}

impl Source for Synthetic {
    fn resume(&mut self, next: u64) {
        self.first = next;
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        let Self { period, phase, jitter, seed, layout, first, .. } = *self;
        self.grid.get_or_insert_with(|| Grid::new(resources.start + phase, period, jitter, seed).from(first));
        let bytes = layout.extent().ok_or_else(|| {
            SourceError::new(
                format!("stream `{}`: {} by {} is no size", self.id, layout.width, layout.height),
                "give it at least one pixel",
            )
        })?;
        if bytes > resources.share.slot_bytes() {
            return Err(SourceError::new(
                format!(
                    "stream `{}`: a frame of {bytes} bytes does not fit its slots of {} bytes",
                    self.id,
                    resources.share.slot_bytes()
                ),
                "make the share of the pool for this stream's size",
            ));
        }
        if self.frames.is_empty() {
            self.frames = (0..FRAMES).map(|index| picture(&layout, bytes, index)).collect();
        }
        self.resources = Some(resources.clone());
        Ok(Opened { layout, notes: vec![format!("{FRAMES} synthetic frames, {bytes} bytes each")] })
    }

    fn next(&mut self, until: Instant) -> Next {
        loop {
            let now = clock::now();
            let Some(grid) = &mut self.grid else { return Next::Failed(SourceError::closed(&self.id)) };
            let wake = match grid.turn(now) {
                Turn::Late(late) => return Next::Lost(late),
                Turn::Due(release) => {
                    grid.settle();
                    return match self.fill(release) {
                        Ok(captured) => Next::Frame(captured),
                        Err(reason) => Next::Lost(lost(release.sequence, release.at, reason)),
                    };
                }
                Turn::Wait(at) => at.min(until),
            };
            if now >= until {
                return Next::Nothing;
            }
            clock::sleep_until(wake);
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        // It cannot fail; whoever asks is about to stop it.
        self.grid.as_mut()?.missed(now, DropReason::Shutdown)
    }

    fn close(&mut self) {
        self.resources = None;
    }
}

/// Frame number `index` of [`FRAMES`]: the rectangle crosses the image once in a cycle.
fn picture(layout: &ImageLayout, bytes: usize, index: usize) -> Vec<u8> {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let (left, top) = (width * index / FRAMES, height / 3);
    let inside = |x: usize, y: usize| {
        (left..left + (width / 6).max(1)).contains(&x) && (top..top + (height / 3).max(1)).contains(&y)
    };
    // Luma, or a colour's intensity, at a pixel: 16..=144 on the gradient, 235 on the rectangle.
    let light =
        |x: usize, y: usize| if inside(x, y) { 235 } else { (16 + 64 * x / width + 64 * y / height) as u8 };
    let chroma = |x: usize, y: usize, along: usize| {
        if inside(x, y) { 128 } else { (96 + 64 * if along == 0 { x } else { y } / width.max(height)) as u8 }
    };
    let mut out = vec![0; bytes];
    for (number, plane) in layout.planes.iter().enumerate().take(layout.format.planes()) {
        let (row, rows) = layout.format.plane_extent(number, layout.width, layout.height);
        for y in 0..rows {
            let line = &mut out[plane.offset + y * plane.stride..][..row];
            for (byte, value) in line.iter_mut().enumerate() {
                *value = match (layout.format, number) {
                    (PixelFormat::Gray8, _) | (PixelFormat::Nv12 | PixelFormat::I420, 0) => light(byte, y),
                    (PixelFormat::Nv12, _) => chroma(byte / 2 * 2, 2 * y, byte % 2),
                    (PixelFormat::I420, _) => chroma(2 * byte, 2 * y, number - 1),
                    (PixelFormat::Yuy2, _) if byte % 2 == 0 => light(byte / 2, y),
                    (PixelFormat::Uyvy, _) if byte % 2 == 1 => light(byte / 2, y),
                    (PixelFormat::Yuy2 | PixelFormat::Uyvy, _) => chroma(byte / 4 * 2, y, byte / 2 % 2),
                    (PixelFormat::Rgb | PixelFormat::Bgr, _) => light(byte / 3, y),
                    // A mosaic, of the same grey; ten bits are four times the light, low byte first.
                    _ if row == layout.width.next_multiple_of(2) as usize => light(byte, y),
                    _ => (u16::from(light(byte / 2, y)) << 2).to_le_bytes()[byte % 2],
                };
            }
        }
    }
    out
}
