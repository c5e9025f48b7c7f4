//! From a GStreamer buffer to a frame: adopted where it lies when that is a slot of ours, else copied into one
//! and counted.

use crate::board::Stream;
use crate::capture::Resources;
use crate::image::{Colorimetry, ImageLayout, Matrix, PixelFormat, Plane, Range};
use crate::job::DropReason;
use crate::pool::{FrameRef, Keeper, Share};
use crate::stats::{Copies, CopyStage};
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::sync::Arc;

/// What arrived in the sink.
#[derive(Debug)]
pub struct Picture {
    /// Its pixels.
    pub buffer: gst::Buffer,
    /// What they mean.
    pub caps: gst::Caps,
    /// When it was captured, counted from the pipeline's base time; `None` without a timestamp.
    pub running_time: Option<gst::ClockTime>,
}

/// The frames of one stream.
#[derive(Debug)]
pub struct Frames {
    share: Share,
    copies: Arc<Copies>,
    wanted: Wanted,
    /// A decoder upstream copies each frame once inside.
    pub decoder_copies: bool,
    agreed: Option<Agreed>,
}

/// What the board says about a stream's frames.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Format, the same as in GStreamer's caps.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How Y'CbCr is to be read, if the board says so.
    pub color: Option<Colorimetry>,
}

impl Wanted {
    /// What the board says about `stream`.
    pub fn by(stream: &Stream) -> Self {
        Self { format: stream.format, width: stream.width, height: stream.height, color: stream.color }
    }

    /// The same in GStreamer's words.
    pub fn caps(&self) -> gst::Caps {
        gst::Caps::builder("video/x-raw")
            .field("format", self.format.as_str())
            .field("width", i32::try_from(self.width).unwrap_or(i32::MAX))
            .field("height", i32::try_from(self.height).unwrap_or(i32::MAX))
            .build()
    }
}

/// Caps, and what they mean.
#[derive(Debug)]
struct Agreed {
    caps: gst::Caps,
    info: gst_video::VideoInfo,
    color: Colorimetry,
    color_by: &'static str,
}

impl Frames {
    /// The frames of a stream, in its share.
    pub fn new(wanted: Wanted, resources: &Resources) -> Self {
        let (share, copies) = (resources.share.clone(), resources.copies.clone());
        Self { share, copies, wanted, decoder_copies: false, agreed: None }
    }

    /// The frame of a picture.
    ///
    /// # Errors
    /// `Corrupt` when the decoder marked it so or it is not what was negotiated, `NoSlot` when it had to be
    /// copied and there was no slot.
    pub fn take(&mut self, picture: Picture) -> Result<FrameRef, DropReason> {
        self.agree(&picture.caps)?;
        let agreed = self.agreed.as_ref().ok_or(DropReason::Corrupt)?;
        let buffer = picture.buffer;
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            return Err(DropReason::Corrupt);
        }
        if self.decoder_copies {
            self.copies.count(CopyStage::DecoderEstimated, self.packed(agreed).extent().unwrap_or(0));
        }
        match self.adopt(agreed, buffer) {
            Ok(frame) => Ok(frame),
            Err(buffer) => self.copy(agreed, &buffer),
        }
    }

    /// The layout of a picture and who said how its colours are to be read.
    pub fn describe(&mut self, picture: &Picture) -> Option<(ImageLayout, &'static str)> {
        self.agree(&picture.caps).ok()?;
        let agreed = self.agreed.as_ref()?;
        let layout = self.layout(agreed, &picture.buffer);
        Some((layout.unwrap_or_else(|| self.packed(agreed)), agreed.color_by))
    }

    /// Takes note of what the pixels mean.
    fn agree(&mut self, caps: &gst::Caps) -> Result<(), DropReason> {
        if self.agreed.as_ref().is_some_and(|agreed| agreed.caps.as_ptr() == caps.as_ptr()) {
            return Ok(());
        }
        self.agreed = None;
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| DropReason::Corrupt)?;
        let Wanted { format, width, height, color } = self.wanted;
        if (info.format().to_str().as_str(), info.width(), info.height()) != (format.as_str(), width, height)
        {
            return Err(DropReason::Corrupt);
        }
        let said = caps.structure(0).is_some_and(|structure| structure.has_field("colorimetry"));
        let (color, color_by) = match color {
            Some(color) => (color, "the board"),
            None if said => (colorimetry(&info.colorimetry(), height), "the source"),
            None => (Colorimetry::default_for(height), "its size, as the source doesn't say"),
        };
        self.agreed = Some(Agreed { caps: caps.to_owned(), info, color, color_by });
        Ok(())
    }

    fn packed(&self, agreed: &Agreed) -> ImageLayout {
        let Wanted { format, width, height, .. } = self.wanted;
        ImageLayout { color: agreed.color, ..ImageLayout::packed(format, width, height) }
    }

    /// Where the planes lie in the buffer; `None` for what a layout can't say (strides that run backwards).
    fn layout(&self, agreed: &Agreed, buffer: &gst::BufferRef) -> Option<ImageLayout> {
        let meta = buffer.meta::<gst_video::VideoMeta>();
        let (offsets, strides) = match &meta {
            Some(meta) => (meta.offset(), meta.stride()),
            None => (agreed.info.offset(), agreed.info.stride()),
        };
        let mut layout = self.packed(agreed);
        for (index, plane) in layout.planes.iter_mut().enumerate().take(layout.format.planes()) {
            let stride = usize::try_from(*strides.get(index)?).ok()?;
            *plane = Plane { offset: *offsets.get(index)?, stride };
        }
        Some(layout)
    }

    /// The frame where it lies, if that is a slot of ours; it then keeps the buffer.
    fn adopt(&self, agreed: &Agreed, buffer: gst::Buffer) -> Result<FrameRef, gst::Buffer> {
        let place = match (buffer.n_memory(), self.layout(agreed, &buffer)) {
            (1, Some(layout)) => buffer.map_readable().ok().map(|map| (map.as_ptr(), map.len(), layout)),
            _ => None,
        };
        let Some((address, length, layout)) = place else { return Err(buffer) };
        if layout.extent().is_none_or(|extent| extent > length) {
            return Err(buffer);
        }
        self.share
            .adopt(address, layout, Keeper(Box::new(buffer)))
            .map_err(|Keeper(kept)| *kept.downcast().expect("the keeper that was just made of a buffer"))
    }

    /// The frame copied into a slot, without padding.
    fn copy(&self, agreed: &Agreed, buffer: &gst::BufferRef) -> Result<FrameRef, DropReason> {
        let layout = self.packed(agreed);
        let bytes = layout.extent().ok_or(DropReason::Corrupt)?;
        let video = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &agreed.info)
            .map_err(|_| DropReason::Corrupt)?;
        let mut slot = self.share.take().ok_or(DropReason::NoSlot)?;
        for (index, plane) in layout.planes.iter().enumerate().take(layout.format.planes()) {
            let (row, rows) = layout.format.plane_extent(index, layout.width, layout.height);
            let from = video.plane_data(index as u32).map_err(|_| DropReason::Corrupt)?;
            let stride = usize::try_from(video.plane_stride()[index]).map_err(|_| DropReason::Corrupt)?;
            let to = slot.bytes_mut().get_mut(plane.offset..).ok_or(DropReason::NoSlot)?;
            for y in 0..rows {
                let source = from.get(y * stride..y * stride + row).ok_or(DropReason::Corrupt)?;
                let target = to.get_mut(y * row..(y + 1) * row).ok_or(DropReason::NoSlot)?;
                target.copy_from_slice(source);
            }
        }
        self.copies.count(CopyStage::Capture, bytes);
        slot.freeze(layout).map_err(|_| DropReason::NoSlot)
    }
}

/// GStreamer's colorimetry in ours: of the matrices that we don't have the nearest.
fn colorimetry(of: &gst_video::VideoColorimetry, height: u32) -> Colorimetry {
    use gst_video::VideoColorMatrix as M;
    let default = Colorimetry::default_for(height);
    Colorimetry {
        matrix: match of.matrix() {
            M::Bt601 | M::Fcc => Matrix::Bt601,
            M::Bt709 | M::Smpte240m | M::Bt2020 => Matrix::Bt709,
            _ => default.matrix,
        },
        range: match of.range() {
            gst_video::VideoColorRange::Range0_255 => Range::Full,
            gst_video::VideoColorRange::Range16_235 => Range::Limited,
            _ => default.range,
        },
    }
}
