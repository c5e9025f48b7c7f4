//! A model is described by its manifest, `models/*.toml`: a network of a known kind needs a manifest, not code.

mod manifest;
mod verify;

pub(crate) use manifest::read;
pub use manifest::schema;
pub use verify::ModelError;

use crate::config::{Fingerprint, Problems, System};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A network as its manifest describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name on the board.
    pub id: String,
    /// The network's file.
    pub file: PathBuf,
    /// SHA-256 of that file in hex; checked before it is loaded.
    pub sha256: String,
    /// What it was computed with: "fp32", "fp16", "int8".
    pub precision: String,
    /// Its one image input.
    pub input: Input,
    /// What its outputs mean.
    pub decoder: Decoder,
    /// Names of its classes.
    pub labels: Vec<String>,
}

/// A network's image input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The tensor's name.
    pub tensor: String,
    /// Order of its dimensions.
    pub layout: TensorLayout,
    /// Type of its elements.
    pub element: Element,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of its channels.
    pub channels: Channels,
    /// How a frame of another shape is made to fit.
    pub fit: Fit,
    /// What fills the border of a letterbox, as a pixel value 0 to 255.
    pub fill: u8,
    /// Per channel: element = pixel * scale + offset, one fused multiply-add in f32. Pixel 0 to 255.
    pub scale: [f32; 3],
    /// Per channel, see `scale`.
    pub offset: [f32; 3],
}

/// Order of a tensor's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TensorLayout {
    /// Batch, height, width, channels.
    Nhwc,
    /// Batch, channels, height, width.
    Nchw,
}

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE half).
    F16,
    /// Unsigned byte: the rounded value, clamped to 0..255.
    U8,
    /// Signed byte: the rounded value, clamped to -128..127; `scale` and `offset` are the quantization's.
    I8,
}

/// Order of an image's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luma alone (one channel).
    Gray,
}

impl Channels {
    /// How many.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// How a frame of another shape is made to fit the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Both axes scaled on their own.
    Stretch,
    /// Scaled by the smaller factor, centred, the border filled.
    Letterbox,
    /// Scaled by the smaller factor, at the top left, the rest filled (YOLOX).
    Topleft,
}

/// What a network's outputs mean, with the names of the output tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoder {
    /// Boxes against anchors and a score a class (TensorFlow's SSD).
    Ssd {
        /// Encodings (ty, tx, th, tw), `[N, anchors, 4]` or `[N, anchors, 1, 4]`.
        boxes: String,
        /// Scores, `[N, anchors, classes]`.
        scores: String,
        /// Whether column 0 of the scores is the background.
        background: bool,
        /// How scores become probabilities.
        activation: Activation,
        /// The anchors.
        anchors: Anchors,
        /// Divisors of (y, x, h, w) encodings.
        variance: [f32; 4],
        /// Thresholds.
        suppression: Suppression,
    },
    /// A YOLO head, one row a candidate.
    Yolo {
        /// The output tensor.
        output: String,
        /// What its rows hold.
        head: YoloHead,
        /// Thresholds.
        suppression: Suppression,
    },
    /// One score a class for the whole frame.
    Classification {
        /// The output tensor, `[N, classes]`.
        output: String,
        /// How scores become probabilities.
        activation: Activation,
        /// How many of the best are kept.
        top: usize,
        /// Those below are not kept.
        score_threshold: f32,
    },
}

impl Decoder {
    /// Names of the output tensors, in the order in which a batch carries them.
    #[must_use]
    pub fn outputs(&self) -> Vec<&str> {
        match self {
            Self::Ssd { boxes, scores, .. } => vec![boxes, scores],
            Self::Yolo { output, .. } | Self::Classification { output, .. } => vec![output],
        }
    }

    /// How many dimensions each of these may have.
    #[must_use]
    pub fn ranks(&self) -> Vec<RangeInclusive<usize>> {
        match self {
            Self::Ssd { .. } => vec![3..=4, 3..=3],
            Self::Yolo { .. } => vec![3..=3],
            Self::Classification { .. } => vec![2..=2],
        }
    }
}

/// How raw scores become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// They are probabilities already.
    None,
    /// Each on its own.
    Sigmoid,
    /// All classes of a row together.
    Softmax,
}

/// Rows of a YOLO output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum YoloHead {
    /// `[N, rows, 5 + classes]`: cx, cy, w, h in input pixels, objectness, class probabilities.
    V5,
    /// `[N, 4 + classes, rows]`: cx, cy, w, h in input pixels, class probabilities; rows run fastest.
    V8,
    /// `[N, rows, 5 + classes]`: offsets to grid cells of strides 8, 16 and 32, log sizes, objectness, classes.
    Yolox,
}

/// Which candidates survive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suppression {
    /// Candidates below this score are ignored.
    pub score_threshold: f32,
    /// Of two boxes of one class that overlap by more than this, the lower score goes.
    pub iou_threshold: f32,
    /// Most candidates looked at, best first; most detections kept is [`crate::detection::MAX_DETECTIONS`].
    pub candidates: usize,
}

/// Anchors of an SSD head (TensorFlow object detection's "multiple grid anchors").
#[derive(Clone, Debug, PartialEq)]
pub struct Anchors {
    /// Edge of each (square) feature map, in the order of the rows.
    pub maps: Vec<u32>,
    /// Scale on the first map, as a share of the input's edge.
    pub min_scale: f32,
    /// Scale on the last map; those between are evenly spaced.
    pub max_scale: f32,
    /// Ratios (width / height) on every map but the first.
    pub ratios: Vec<f32>,
    /// Whether each map but the first has one more square anchor of scale sqrt(s_k * s_{k+1}).
    pub interpolated: bool,
    /// Scale and ratio of the anchors on the first map, where they are special.
    pub first: Vec<(f32, f32)>,
}

/// The part of a network's input that a frame fills, in whole input pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

impl Model {
    /// Reads the manifest at `path`; `id` is the model's name on the board.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load(path: &Path, id: &str) -> Result<Self, Problems> {
        read(&System, path, id, &mut Fingerprint::default())
    }
}

impl Input {
    /// Where a frame of `width` by `height` pixels lies in the input. Pre-processing scales to it, decoding
    /// scales back from it. A letterbox rounds the shorter edge to the nearest pixel (half up) and puts an
    /// odd border's extra pixel at the right and bottom.
    #[must_use]
    pub fn placement(&self, width: u32, height: u32) -> Placement {
        let whole = Placement { x: 0, y: 0, width: self.width, height: self.height };
        if self.fit == Fit::Stretch || width == 0 || height == 0 {
            return whole;
        }
        // Compared crosswise in integers: which edge is the limiting one is exact.
        let (w, h) = (u64::from(width), u64::from(height));
        let (iw, ih) = (u64::from(self.width), u64::from(self.height));
        let (fit_w, fit_h) = if iw * h <= ih * w {
            (iw, ((2 * h * iw + w) / (2 * w)).clamp(1, ih))
        } else {
            (((2 * w * ih + h) / (2 * h)).clamp(1, iw), ih)
        };
        let (fit_w, fit_h) = (fit_w as u32, fit_h as u32);
        let (x, y) = match self.fit {
            Fit::Letterbox => ((self.width - fit_w) / 2, (self.height - fit_h) / 2),
            Fit::Stretch | Fit::Topleft => (0, 0),
        };
        Placement { x, y, width: fit_w, height: fit_h }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(fit: Fit) -> Input {
        Input {
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
        }
    }

    #[test]
    fn placements() {
        let at = |x, y, width, height| Placement { x, y, width, height };
        assert_eq!(input(Fit::Stretch).placement(1280, 720), at(0, 0, 640, 640));
        assert_eq!(input(Fit::Letterbox).placement(1280, 720), at(0, 140, 640, 360));
        assert_eq!(input(Fit::Topleft).placement(720, 1280), at(0, 0, 360, 640));
        assert_eq!(input(Fit::Letterbox).placement(100_000, 1), at(0, 319, 640, 1));
    }
}
