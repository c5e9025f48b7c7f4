//! Whether outputs are what the manifest says: once at start, and for every frame.

use super::error::{DecodeError, DecodeFailed};
use crate::detection::MAX_DETECTIONS;
use crate::model::{Anchors, Input, Model, Suppression, YoloHead};

/// How far above 1 the rounding of an integer engine may carry a probability.
const ROUNDING: f32 = 0.05;
/// Parts of an output that are looked at side by side, so many elements (a cache line) of each in turn.
const PARTS: usize = 8;
const LINE: usize = 16;
/// The bits of infinity: absolute values below it are finite.
const INFINITY: i32 = 0x7f80_0000;
/// Cell sizes that a YOLO head's feature maps may have, in input pixels; a head has consecutive ones.
const STRIDES: [u32; 6] = [4, 8, 16, 32, 64, 128];
/// Most boxes that a cell of an anchor-based head predicts.
const MAX_BOXES: usize = 5;

/// A model and the row lengths that its file was found to have.
pub(super) struct Checks<'a> {
    model: &'a Model,
    names: Vec<&'a str>,
    rows: &'a [usize],
}

impl<'a> Checks<'a> {
    pub(super) fn new(model: &'a Model, rows: &'a [usize]) -> Result<Self, DecodeError> {
        let checks = Self { model, names: model.decoder.outputs(), rows };
        if rows.len() != checks.names.len() {
            let names = checks.names.iter().map(|name| (*name).to_string()).collect();
            return Err(DecodeError::Outputs { model: model.id.clone(), seen: rows.len(), names });
        }
        let labels = checks.labels();
        let most = usize::from(u16::MAX) + 1;
        checks.value("number of labels", labels, (1..=most).contains(&labels), || format!("1 to {most}"))?;
        Ok(checks)
    }

    fn labels(&self) -> usize {
        self.model.labels.len()
    }

    fn value(
        &self,
        key: &'static str,
        seen: impl ToString,
        fits: bool,
        right: impl FnOnce() -> String,
    ) -> Result<(), DecodeError> {
        if fits {
            return Ok(());
        }
        Err(DecodeError::Value { model: self.model.id.clone(), key, seen: seen.to_string(), right: right() })
    }

    fn length(&self, output: usize, fits: bool, right: impl FnOnce() -> String) -> Result<(), DecodeError> {
        if fits {
            return Ok(());
        }
        Err(DecodeError::Length {
            model: self.model.id.clone(),
            tensor: self.names[output].to_string(),
            seen: self.rows[output],
            right: right(),
        })
    }

    fn share(&self, key: &'static str, seen: f32) -> Result<(), DecodeError> {
        self.value(key, seen, (0.0..=1.0).contains(&seen), || "0 to 1".into())
    }

    /// The most candidates that these thresholds let through.
    pub(super) fn suppression(&self, limits: &Suppression) -> Result<usize, DecodeError> {
        self.share("score_threshold", limits.score_threshold)?;
        self.share("iou_threshold", limits.iou_threshold)?;
        self.value("candidates", limits.candidates, limits.candidates > 0, || "at least 1".into())?;
        Ok(limits.candidates)
    }

    /// A classification's one output; the most classes that are kept.
    pub(super) fn classification(&self, top: usize, score_threshold: f32) -> Result<usize, DecodeError> {
        self.share("score_threshold", score_threshold)?;
        self.value("top", top, (1..=MAX_DETECTIONS).contains(&top), || format!("1 to {MAX_DETECTIONS}"))?;
        let labels = self.labels();
        self.length(0, self.rows[0] == labels, || format!("{labels}, one for each label"))?;
        Ok(top)
    }

    /// An SSD head's two outputs.
    pub(super) fn ssd(
        &self,
        anchors: &Anchors,
        background: bool,
        variance: [f32; 4],
    ) -> Result<(), DecodeError> {
        let usable = variance.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0);
        self.value("variance", format!("{variance:?}"), usable, || {
            "four divisors above 0, such as 10, 10, 5, 5".into()
        })?;
        let count = anchors.count();
        self.length(0, Some(self.rows[0]) == count.checked_mul(4), || {
            let fit = if self.rows[0].is_multiple_of(4) {
                format!(" (it fits {} anchors)", self.rows[0] / 4)
            } else {
                String::new()
            };
            format!("4 for each of the manifest's {count} anchors{fit}")
        })?;
        let (labels, first) = (self.labels(), usize::from(background));
        self.length(1, Some(self.rows[1]) == count.checked_mul(first + labels), || {
            let and = if background { "the background and " } else { "" };
            let columns = self.rows[1] / count.max(1);
            let fit = match columns.checked_sub(first) {
                Some(fit) if columns * count == self.rows[1] && fit > 0 => format!(" (it fits {fit} labels)"),
                _ => String::new(),
            };
            format!("{} for each of {count} anchors, {and}{labels} labels{fit}", first + labels)
        })
    }

    /// A YOLO head's one output; its number of rows.
    pub(super) fn yolo(&self, head: YoloHead) -> Result<usize, DecodeError> {
        let (labels, input, seen) = (self.labels(), &self.model.input, self.rows[0]);
        let rows = yolo_rows(head, input, labels, seen);
        self.length(0, rows.is_some(), || {
            let (fields, usual) = (yolo_fields(head, labels), usual_rows(head, input));
            let heads = [(YoloHead::V5, "v5"), (YoloHead::V8, "v8"), (YoloHead::Yolox, "yolox")];
            let heads = heads.into_iter().filter(|other| yolo_rows(other.0, input, labels, seen).is_some());
            let mut fits: Vec<String> = heads.map(|other| format!("head = \"{}\"", other.1)).collect();
            match (seen / usual).checked_sub(yolo_fields(head, 0)) {
                Some(labels) if labels > 0 && seen.is_multiple_of(usual) => {
                    fits.push(format!("{labels} labels"))
                }
                _ => {}
            }
            let fit =
                if fits.is_empty() { String::new() } else { format!(" (it fits {})", fits.join(" or ")) };
            format!(
                "{} for {labels} labels on {}x{} pixels: {usual} rows of {fields}{fit}",
                usual * fields,
                input.width,
                input.height
            )
        })?;
        Ok(rows.unwrap_or(0))
    }
}

/// Elements of one row: the box, objectness where the head has it, and the classes.
pub(super) const fn yolo_fields(head: YoloHead, labels: usize) -> usize {
    match head {
        YoloHead::V5 | YoloHead::Yolox => 5 + labels,
        YoloHead::V8 => 4 + labels,
    }
}

/// Cells of feature maps whose cells are this large.
fn cells(input: &Input, strides: &[u32]) -> usize {
    strides
        .iter()
        .map(|stride| (input.width.div_ceil(*stride) as usize) * (input.height.div_ceil(*stride) as usize))
        .sum()
}

/// Rows of the head's common form: strides 8, 16 and 32, three boxes a cell where there are anchors.
pub(super) fn usual_rows(head: YoloHead, input: &Input) -> usize {
    cells(input, &[8, 16, 32]) * if head == YoloHead::V5 { 3 } else { 1 }
}

/// Rows of an output of `seen` elements; `None` when no feature maps of this input could have made it. That
/// it divides is not enough: a wrong number of labels often divides too, and then shifts every row.
fn yolo_rows(head: YoloHead, input: &Input, labels: usize, seen: usize) -> Option<usize> {
    let fields = yolo_fields(head, labels);
    let rows = seen / fields;
    if rows * fields != seen || rows == 0 {
        return None;
    }
    let pyramids =
        || (0..STRIDES.len()).flat_map(|from| (from..STRIDES.len()).map(move |to| &STRIDES[from..=to]));
    let possible = match head {
        YoloHead::Yolox => rows == usual_rows(head, input),
        YoloHead::V8 => pyramids().any(|strides| rows == cells(input, strides)),
        YoloHead::V5 => {
            pyramids().any(|strides| (1..=MAX_BOXES).any(|boxes| rows == boxes * cells(input, strides)))
        }
    };
    possible.then_some(rows)
}

/// That a frame's outputs are those agreed on, and numbers throughout.
pub(super) fn outputs(expected: &[usize], outputs: &[&[f32]]) -> Result<(), DecodeFailed> {
    if outputs.len() != expected.len() {
        return Err(DecodeFailed::Outputs { seen: outputs.len(), expected: expected.len() });
    }
    for (output, (data, &expected)) in outputs.iter().zip(expected).enumerate() {
        if data.len() != expected {
            return Err(DecodeFailed::Length { output, seen: data.len(), expected });
        }
        if let Some((element, &value)) = first_not_finite(data) {
            return Err(DecodeFailed::NotFinite { output, element, value });
        }
    }
    Ok(())
}

/// In integers, which becomes SIMD, and all of it before anybody asks where: a search that may end anywhere does not.
fn first_not_finite(data: &[f32]) -> Option<(usize, &f32)> {
    let bad = |value: &f32| (value.to_bits() & 0x7fff_ffff) as i32 >= INFINITY;
    let any = |values: &[f32]| values.iter().fold(false, |any, value| any | bad(value));
    // Side by side: what an accelerator has written is in nobody's cache, and one sequence of loads waits for each page.
    let part = data.len() / (PARTS * LINE) * LINE;
    let (parts, rest) = data.split_at(PARTS * part);
    let mut found = any(rest);
    for at in (0..part).step_by(LINE) {
        found |= (0..PARTS).fold(false, |found, index| found | any(&parts[index * part + at..][..LINE]));
    }
    if found { data.iter().enumerate().find(|(_, value)| bad(value)) } else { None }
}

/// That the best score is a probability, but for rounding.
pub(super) fn probability(output: usize, score: f32) -> Result<(), DecodeFailed> {
    if score > 1.0 + ROUNDING {
        return Err(DecodeFailed::NotProbability { output, score });
    }
    Ok(())
}
