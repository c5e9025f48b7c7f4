//! From the network's input back to the frame.

use crate::detection::Detection;
use crate::model::Input;

/// A box in pixels of the network's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub(super) centre: [f32; 2],
    pub(super) size: [f32; 2],
}

/// How a frame lies in the network's input, seen from the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Left and top edge of the frame, in input pixels.
    origin: [f32; 2],
    /// Frame pixels in an input pixel, across and down.
    scale: [f32; 2],
    /// The frame's width and height.
    frame: [f32; 2],
}

impl View {
    pub(super) fn new(input: &Input, (width, height): (u32, u32)) -> Self {
        let at = input.placement(width, height);
        let frame = [width as f32, height as f32];
        Self {
            origin: [at.x as f32, at.y as f32],
            scale: [frame[0] / at.width as f32, frame[1] / at.height as f32],
            frame,
        }
    }

    /// The part of a box that lies in the frame; `None` where there is none, or where the box has no size or
    /// no end.
    pub(super) fn place(&self, label: u16, score: f32, extent: Extent) -> Option<Detection> {
        let [(x, width), (y, height)] = [self.span(0, extent)?, self.span(1, extent)?];
        Some(Detection { label, score, x, y, width, height })
    }

    /// Start and length of a box along one axis.
    fn span(&self, axis: usize, extent: Extent) -> Option<(f32, f32)> {
        let size = extent.size[axis] * self.scale[axis];
        let start = (extent.centre[axis] - self.origin[axis]) * self.scale[axis] - size / 2.0;
        let end = start + size;
        if !(size > 0.0 && start.is_finite() && end.is_finite()) {
            return None;
        }
        let start = start.max(0.0);
        let length = end.min(self.frame[axis]) - start;
        (length > 0.0).then_some((start, length))
    }

    /// The frame itself as a box.
    pub(super) const fn whole(&self, label: u16, score: f32) -> Detection {
        Detection { label, score, x: 0.0, y: 0.0, width: self.frame[0], height: self.frame[1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Channels, Element, Fit, TensorLayout};

    fn view(fit: Fit, frame: (u32, u32)) -> View {
        let input = Input {
            tensor: "images".into(),
            layout: TensorLayout::Nchw,
            element: Element::F32,
            width: 640,
            height: 640,
            channels: Channels::Rgb,
            fit,
            fill: 114,
            scale: [1.0; 3],
            offset: [0.0; 3],
        };
        View::new(&input, frame)
    }

    fn place(view: &View, centre: [f32; 2], size: [f32; 2]) -> Option<[f32; 4]> {
        view.place(0, 1.0, Extent { centre, size }).map(|d| [d.x, d.y, d.width, d.height])
    }

    #[test]
    fn boxes_go_back_the_way_the_frame_came() {
        let box_in = ([320.0, 320.0], [64.0, 32.0]);
        let back = |fit| place(&view(fit, (1280, 720)), box_in.0, box_in.1);
        assert_eq!(back(Fit::Stretch), Some([576.0, 342.0, 128.0, 36.0]));
        assert_eq!(back(Fit::Letterbox), Some([576.0, 328.0, 128.0, 64.0]));
        assert_eq!(back(Fit::Topleft), Some([576.0, 608.0, 128.0, 64.0]));
    }

    #[test]
    fn boxes_end_where_the_frame_ends() {
        let view = view(Fit::Letterbox, (1280, 720));
        assert_eq!(place(&view, [0.0, 140.0], [20.0, 20.0]), Some([0.0, 0.0, 20.0, 20.0]));
        assert_eq!(place(&view, [640.0, 500.0], [20.0, 20.0]), Some([1260.0, 700.0, 20.0, 20.0]));
        assert_eq!(place(&view, [320.0, 70.0], [100.0, 100.0]), None, "wholly in the border");
    }

    #[test]
    fn boxes_without_size_or_end_are_dropped() {
        let view = view(Fit::Stretch, (640, 640));
        for size in [0.0, -1.0, f32::INFINITY, f32::NAN] {
            assert_eq!(place(&view, [320.0, 320.0], [size, 10.0]), None, "width {size}");
            assert_eq!(place(&view, [320.0, 320.0], [10.0, size]), None, "height {size}");
        }
        assert_eq!(place(&view, [-f32::MAX, 320.0], [10.0, 10.0]), None);
        assert_eq!(place(&view, [320.0, f32::INFINITY], [10.0, 10.0]), None);
    }
}
