//! A manifest as text: its keys, and what they mean together.

use super::{
    Activation, Anchors, Channels, Decoder, Element, Fit, Input, Model, Suppression, TensorLayout, YoloHead,
};
use crate::config::{
    Document, Fingerprint, KeyPath, Kind, Problems, RelativePath, Sha256, Surroundings, schema_of,
};
use crate::detection::MAX_DETECTIONS;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::Path;
use std::sync::LazyLock;

static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema_of::<RawManifest>);

/// The JSON Schema of manifests.
#[must_use]
pub fn schema() -> serde_json::Value {
    SCHEMA.clone()
}

/// Most anchors of an SSD head.
const MAX_ANCHORS: u64 = 100_000;
/// Coarsest grid of a YOLOX head: its input's edges are multiples of it.
const YOLOX_STRIDE: u32 = 32;

/// A model's manifest: which file the network is in, what goes in and what comes out.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "Ocelli model manifest", extend("oneOf" = [{"required": ["labels"]}, {"required": ["labels_file"]}]))]
#[serde(deny_unknown_fields)]
struct RawManifest {
    /// Version of this format: 1.
    #[schemars(extend("const" = 1, "examples" = [1]))]
    #[serde(rename = "manifest_version")]
    _manifest_version: u32,
    /// Manifests to which this one adds, relative to this file. A key may be set in one place only.
    #[serde(default, rename = "inherit")]
    _inherit: Vec<RelativePath>,
    /// The network's name, for people.
    #[serde(rename = "name")]
    _name: Line,
    /// Where the network comes from, for people.
    #[serde(rename = "source")]
    _source: Line,
    /// The network's licence, as an SPDX expression where there is one.
    #[serde(rename = "licence")]
    _licence: Line,
    /// The network's ONNX file, relative to this file.
    file: RelativePath,
    /// SHA-256 of the network's file.
    sha256: Sha256,
    /// What the network computes with.
    precision: Precision,
    /// Names of the classes, in the network's order, without the background. Without it: `labels_file`.
    #[schemars(length(min = 1, max = 10000))]
    labels: Option<Vec<Line>>,
    /// A text file with one class a line, relative to this file. Without it: `labels`.
    labels_file: Option<RelativePath>,
    /// The network's one image input.
    input: RawInput,
    /// What the network's outputs mean.
    decoder: RawDecoder,
}

/// Text on one line.
#[derive(Deserialize, JsonSchema)]
struct Line(#[schemars(length(min = 1, max = 500))] String);

/// What a network computes with.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Precision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats.
    Fp16,
    /// 8-bit integers, with quantization in the file (Q/DQ).
    Int8,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawInput {
    /// Name of the input tensor.
    tensor: Line,
    /// Order of its dimensions.
    layout: TensorLayout,
    /// Type of its elements.
    #[serde(rename = "type")]
    element: Element,
    /// Width and height in pixels.
    #[schemars(inner(range(min = 1, max = 8192)), extend("examples" = [[640, 640]]))]
    size: [u32; 2],
    /// Order of its channels.
    channels: Channels,
    /// How a frame of another shape is made to fit.
    fit: Fit,
    /// Pixel value 0 to 255 that fills what a letterbox leaves free.
    #[serde(default)]
    fill: u8,
    /// element = pixel * scale + offset, pixel 0 to 255: one number for all channels, or one for each.
    /// Without it: from `std`, or 1.
    #[schemars(length(min = 1, max = 3), inner(range(min = -1e6, max = 1e6)), extend("examples" = [[0.00392156862745098]]))]
    scale: Option<Vec<f64>>,
    /// See `scale`. Without it: from `mean`, or 0.
    #[schemars(length(min = 1, max = 3), inner(range(min = -1e6, max = 1e6)), extend("examples" = [[-1.0]]))]
    offset: Option<Vec<f64>>,
    /// With `std`, the other way to say `scale` and `offset`: element = (pixel / 255 - mean) / std.
    /// Without both: `scale` and `offset`.
    #[schemars(length(min = 1, max = 3), inner(range(min = -1e6, max = 1e6)), extend("examples" = [[0.485, 0.456, 0.406]]))]
    mean: Option<Vec<f64>>,
    /// See `mean`. Without both: `scale` and `offset`.
    #[schemars(length(min = 1, max = 3), inner(range(min = 1e-6, max = 1e6)), extend("examples" = [[0.229, 0.224, 0.225]]))]
    std: Option<Vec<f64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
enum RawDecoder {
    /// Boxes against anchors and a score a class (TensorFlow's SSD).
    Ssd {
        /// Output of encodings (ty, tx, th, tw), `[N, anchors, 4]` or `[N, anchors, 1, 4]`.
        boxes: Line,
        /// Output of scores, `[N, anchors, classes]`.
        scores: Line,
        /// Whether column 0 of the scores is the background.
        background: bool,
        /// How scores become probabilities.
        activation: Activation,
        /// The anchors, as TensorFlow object detection's "multiple grid anchors".
        anchors: RawAnchors,
        /// Divisors of the encodings, in the order y, x, h, w.
        #[schemars(inner(range(min = 1e-3, max = 1e3)), extend("examples" = [[10.0, 10.0, 5.0, 5.0]]))]
        variance: [f32; 4],
        /// Candidates below this score are ignored.
        #[schemars(range(min = 0.0, max = 1.0))]
        score_threshold: f32,
        /// Of two boxes of one class that overlap by more than this, the lower score goes.
        #[schemars(range(min = 0.0, max = 1.0))]
        iou_threshold: f32,
        /// Most candidates looked at, best first. A guarantee keeps free the time to decode as many.
        #[serde(default = "candidates")]
        #[schemars(range(min = 1, max = 4096))]
        candidates: u32,
    },
    /// A YOLO head.
    Yolo {
        /// The output tensor.
        output: Line,
        /// What its rows hold.
        head: YoloHead,
        /// Candidates below this score are ignored.
        #[schemars(range(min = 0.0, max = 1.0))]
        score_threshold: f32,
        /// Of two boxes of one class that overlap by more than this, the lower score goes.
        #[schemars(range(min = 0.0, max = 1.0))]
        iou_threshold: f32,
        /// Most candidates looked at, best first. A guarantee keeps free the time to decode as many.
        #[serde(default = "candidates")]
        #[schemars(range(min = 1, max = 4096))]
        candidates: u32,
    },
    /// One score a class for the whole frame.
    Classification {
        /// The output tensor, `[N, classes]`.
        output: Line,
        /// How scores become probabilities.
        activation: Activation,
        /// How many of the best classes are kept.
        #[schemars(range(min = 1, max = MAX_DETECTIONS))]
        top: u32,
        /// Classes below this score are not kept.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 1.0))]
        score_threshold: f32,
    },
}

fn candidates() -> u32 {
    200
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawAnchors {
    /// Edge of each (square) feature map, in the order of the rows.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 1024)), extend("examples" = [[19, 10, 5, 3, 2, 1]]))]
    maps: Vec<u32>,
    /// Scale on the first map, as a share of the input's edge.
    #[schemars(range(min = 0.001, max = 10.0))]
    min_scale: f32,
    /// Scale on the last map; those between are evenly spaced.
    #[schemars(range(min = 0.001, max = 10.0))]
    max_scale: f32,
    /// Ratios (width / height) of a map's anchors, in the order of the rows.
    #[schemars(length(min = 1, max = 16), inner(range(min = 0.01, max = 100.0)))]
    ratios: Vec<f32>,
    /// Whether each map but the first has one more square anchor, last in the order of the rows, of scale
    /// sqrt(s_k * s_k+1), where the scale after the last map's is 1.
    interpolated: bool,
    /// Scale and ratio of the anchors on the first map, where they are special; empty where the first map is
    /// like the others.
    #[serde(default)]
    #[schemars(length(max = 16), inner(inner(range(min = 0.001, max = 100.0))), extend("examples" = [[[0.1, 1.0], [0.2, 2.0], [0.2, 0.5]]]))]
    first: Vec<[f32; 2]>,
}

/// Reads a manifest, and takes all its texts into `fingerprint`.
pub(crate) fn read(
    surroundings: &dyn Surroundings,
    path: &Path,
    id: &str,
    fingerprint: &mut Fingerprint,
) -> Result<Model, Problems> {
    let mut document = Document::read(surroundings, path, Kind::Model)?;
    let raw: RawManifest = document.check(&SCHEMA)?;
    document.texts().for_each(|text| fingerprint.add(text));
    let root = KeyPath::default();
    let labels = labels(&mut document, &raw, fingerprint);
    let input = input(&mut document, &raw.input, &root.key("input"));
    let decoder = decoder(&mut document, raw.decoder, &input, &root.key("decoder"));
    let precision = match raw.precision {
        Precision::Fp32 => "fp32",
        Precision::Fp16 => "fp16",
        Precision::Int8 => "int8",
    };
    document.finish(Some(Model {
        id: id.to_owned(),
        file: raw.file.0,
        sha256: raw.sha256.0,
        precision: precision.to_owned(),
        input,
        decoder,
        labels,
    }))
}

fn labels(document: &mut Document<'_>, raw: &RawManifest, fingerprint: &mut Fingerprint) -> Vec<String> {
    let key = KeyPath::default().key("labels_file");
    let Some(RelativePath(file)) = &raw.labels_file else {
        return raw.labels.iter().flatten().map(|label| label.0.clone()).collect();
    };
    let Some(text) = document.read_beside(&key, file) else { return Vec::new() };
    fingerprint.add(&text);
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    let count = labels.iter().rposition(|label| !label.is_empty()).map_or(0, |last| last + 1);
    if count == 0 || count > 10_000 {
        document.report(&key, format!("{count} labels in this file; 1 to 10000 are needed, one a line"));
    }
    labels.into_iter().take(count).collect()
}

fn input(document: &mut Document<'_>, raw: &RawInput, at: &KeyPath) -> Input {
    let direct = [("scale", &raw.scale), ("offset", &raw.offset)];
    let normal = [("mean", &raw.mean), ("std", &raw.std)];
    let channels = raw.channels.count();
    for (key, numbers) in direct.iter().chain(&normal) {
        if let Some(numbers) = numbers
            && numbers.len() != 1
            && numbers.len() != channels
        {
            let allowed = if channels == 1 { "1 number" } else { "1 or 3 numbers" };
            let message = format!("{} numbers; {allowed} needed for these channels", numbers.len());
            document.report_both(&at.key(key), &at.key("channels"), &message);
        }
    }
    for (key, _) in direct.iter().filter(|(_, numbers)| numbers.is_some()) {
        for (other, _) in normal.iter().filter(|(_, numbers)| numbers.is_some()) {
            let message = format!("{other} is given too; either scale and offset, or mean and std");
            document.report_both(&at.key(key), &at.key(other), &message);
        }
    }
    if raw.mean.is_some() != raw.std.is_some() {
        let (given, missing) = if raw.mean.is_some() { ("mean", "std") } else { ("std", "mean") };
        document.report(&at.key(given), format!("{missing} is missing; mean and std go together"));
    }
    if raw.scale.iter().flatten().any(|scale| *scale == 0.0) {
        document.report(&at.key("scale"), "must not be 0, or every pixel is alike");
    }
    let of = |numbers: &Option<Vec<f64>>, channel: usize, default: f64| match numbers.as_deref() {
        Some(numbers) => numbers.get(channel).or(numbers.first()).copied().unwrap_or(default),
        None => default,
    };
    let per_channel = |channel: usize| match (&raw.mean, &raw.std) {
        (Some(_), Some(_)) => {
            let (mean, std) = (of(&raw.mean, channel, 0.0), of(&raw.std, channel, 1.0));
            (1.0 / (255.0 * std), -mean / std)
        }
        _ => (of(&raw.scale, channel, 1.0), of(&raw.offset, channel, 0.0)),
    };
    let [width, height] = raw.size;
    Input {
        tensor: raw.tensor.0.clone(),
        layout: raw.layout,
        element: raw.element,
        width,
        height,
        channels: raw.channels,
        fit: raw.fit,
        fill: raw.fill,
        scale: [0, 1, 2].map(|channel| per_channel(channel).0 as f32),
        offset: [0, 1, 2].map(|channel| per_channel(channel).1 as f32),
    }
}

fn decoder(document: &mut Document<'_>, raw: RawDecoder, input: &Input, at: &KeyPath) -> Decoder {
    let suppression = |score_threshold, iou_threshold, candidates| Suppression {
        score_threshold,
        iou_threshold,
        candidates: candidates as usize,
    };
    match raw {
        RawDecoder::Ssd {
            boxes,
            scores,
            background,
            activation,
            anchors,
            variance,
            score_threshold,
            iou_threshold,
            candidates,
        } => {
            if boxes.0 == scores.0 {
                document.report_both(&at.key("scores"), &at.key("boxes"), "the same tensor as boxes");
            }
            Decoder::Ssd {
                boxes: boxes.0,
                scores: scores.0,
                background,
                activation,
                anchors: self::anchors(document, anchors, &at.key("anchors")),
                variance,
                suppression: suppression(score_threshold, iou_threshold, candidates),
            }
        }
        RawDecoder::Yolo { output, head, score_threshold, iou_threshold, candidates } => {
            let whole = [input.width, input.height].iter().all(|edge| edge.is_multiple_of(YOLOX_STRIDE));
            if head == YoloHead::Yolox && !whole {
                let size = KeyPath::default().key("input").key("size");
                let message = format!("a yolox head needs multiples of {YOLOX_STRIDE}");
                document.report_both(&size, &at.key("head"), &message);
            }
            Decoder::Yolo {
                output: output.0,
                head,
                suppression: suppression(score_threshold, iou_threshold, candidates),
            }
        }
        RawDecoder::Classification { output, activation, top, score_threshold } => {
            Decoder::Classification { output: output.0, activation, top: top as usize, score_threshold }
        }
    }
}

fn anchors(document: &mut Document<'_>, raw: RawAnchors, at: &KeyPath) -> Anchors {
    if raw.min_scale > raw.max_scale {
        document.report_both(&at.key("min_scale"), &at.key("max_scale"), "larger than max_scale");
    }
    let like_others = raw.ratios.len() + usize::from(raw.interpolated);
    let first = if raw.first.is_empty() { like_others } else { raw.first.len() };
    let cell = |index: usize| (if index == 0 { first } else { like_others }) as u64;
    let squares = raw.maps.iter().map(|edge| u64::from(*edge).pow(2));
    let count: u64 = squares.enumerate().map(|(index, cells)| cells * cell(index)).sum();
    if count > MAX_ANCHORS {
        document.report(&at.key("maps"), format!("{count} anchors; at most {MAX_ANCHORS}"));
    }
    Anchors {
        maps: raw.maps,
        min_scale: raw.min_scale,
        max_scale: raw.max_scale,
        ratios: raw.ratios,
        interpolated: raw.interpolated,
        first: raw.first.into_iter().map(|[scale, ratio]| (scale, ratio)).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_says_what_the_check_does() {
        crate::config::says_what_the_check_does(&super::schema());
    }
}
