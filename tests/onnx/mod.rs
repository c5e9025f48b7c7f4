//! Tiny networks, written as ONNX files byte by byte: what the tests need, and nothing to download.
//!
//! All of them compute, for every image of the batch, the largest value of each channel, looked up in a table
//! of [`TABLE`] entries that holds its own indices. So the outputs name the image that they came from, and an
//! image with a brighter pixel makes the run fail.

use ocelli::model::{Activation, Channels, Decoder, Element, Fit, Input, Model, TensorLayout};
use std::path::Path;

/// Pixels from this value on make a run fail.
pub const TABLE: u8 = 200;
/// Width and height of the networks' input.
pub const EDGE: u32 = 4;

/// A network, and how it departs from what its manifest will say.
#[derive(Clone, Copy)]
pub struct Toy {
    /// Type of the input's elements.
    pub element: Element,
    /// `None`: any batch size.
    pub batch: Option<i64>,
    /// Name of the input.
    pub input: &'static str,
    /// Name of the output.
    pub output: &'static str,
    /// Dimensions of the output: 2, or 3 with a last one of 1.
    pub rank: usize,
    /// A second input that nobody needs.
    pub second_input: bool,
    /// Whether the output is of 16-bit floats.
    pub half_output: bool,
}

/// What [`manifest`] describes.
pub const TOY: Toy = Toy {
    element: Element::F32,
    batch: None,
    input: "image",
    output: "brightest",
    rank: 2,
    second_input: false,
    half_output: false,
};

/// The manifest of [`TOY`], for a file somewhere.
pub fn manifest(file: &Path) -> Model {
    Model {
        id: "toy".into(),
        file: file.into(),
        sha256: String::new(),
        precision: "fp32".into(),
        input: Input {
            tensor: "image".into(),
            layout: TensorLayout::Nhwc,
            element: Element::F32,
            width: EDGE,
            height: EDGE,
            channels: Channels::Rgb,
            fit: Fit::Stretch,
            fill: 0,
            scale: [1.0; 3],
            offset: [0.0; 3],
        },
        decoder: Decoder::Classification {
            output: "brightest".into(),
            activation: Activation::None,
            top: 3,
            score_threshold: 0.0,
        },
        labels: vec!["red".into(), "green".into(), "blue".into()],
    }
}

// Types of elements in ONNX.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;
const INT64: u64 = 7;
const FLOAT16: u64 = 10;

impl Toy {
    /// The network's file.
    pub fn bytes(self) -> Vec<u8> {
        let edge = i64::from(EDGE);
        let element = match self.element {
            Element::F32 => FLOAT,
            Element::F16 => FLOAT16,
            Element::U8 => UINT8,
            Element::I8 => INT8,
        };
        let shape = [self.batch, Some(edge), Some(edge), Some(3)];
        let mut graph = Vec::new();
        let nodes = [
            node("Cast", &[self.input], "floats", Some(("to", Attribute::Int(FLOAT)))),
            node("ReduceMax", &["floats"], "maximum", Some(("axes", Attribute::Ints(&[1, 2])))),
            // Keeps its dimensions: [batch, 1, 1, 3]; the output's shape follows.
            node("Reshape", &["maximum", "shape"], "flat", None),
            node("Cast", &["flat"], "indices", Some(("to", Attribute::Int(INT64)))),
            node("Gather", &["table", "indices"], self.output, None),
        ];
        nodes.iter().for_each(|node| field(&mut graph, 1, node));
        field(&mut graph, 2, b"toy");
        let table: Vec<f32> = (0..TABLE).map(f32::from).collect();
        let table = if self.half_output {
            let halves = table.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes());
            tensor("table", FLOAT16, i64::from(TABLE), &halves.collect::<Vec<_>>())
        } else {
            let floats = table.iter().flat_map(|value| value.to_le_bytes());
            tensor("table", FLOAT, i64::from(TABLE), &floats.collect::<Vec<_>>())
        };
        field(&mut graph, 5, &table);
        let dimensions = [0i64, 3, 1];
        let shape_of_output: Vec<u8> =
            dimensions[..self.rank].iter().flat_map(|dimension| dimension.to_le_bytes()).collect();
        field(&mut graph, 5, &tensor("shape", INT64, self.rank as i64, &shape_of_output));
        field(&mut graph, 11, &value(self.input, element, &shape));
        if self.second_input {
            field(&mut graph, 11, &value("threshold", FLOAT, &[Some(1)]));
        }
        let output = [self.batch, Some(3), Some(1)];
        let type_of_output = if self.half_output { FLOAT16 } else { FLOAT };
        field(&mut graph, 12, &value(self.output, type_of_output, &output[..self.rank]));

        let mut opset = Vec::new();
        number(&mut opset, 2, 17);
        let mut model = Vec::new();
        number(&mut model, 1, 8);
        field(&mut model, 7, &graph);
        field(&mut model, 8, &opset);
        model
    }
}

enum Attribute<'a> {
    Int(u64),
    Ints(&'a [u64]),
}

fn node(kind: &str, inputs: &[&str], output: &str, attribute: Option<(&str, Attribute<'_>)>) -> Vec<u8> {
    let mut node = Vec::new();
    inputs.iter().for_each(|input| field(&mut node, 1, input.as_bytes()));
    field(&mut node, 2, output.as_bytes());
    field(&mut node, 4, kind.as_bytes());
    if let Some((name, value)) = attribute {
        let mut attribute = Vec::new();
        field(&mut attribute, 1, name.as_bytes());
        match value {
            Attribute::Int(value) => {
                number(&mut attribute, 3, value);
                number(&mut attribute, 20, 2);
            }
            Attribute::Ints(values) => {
                values.iter().for_each(|&value| number(&mut attribute, 8, value));
                number(&mut attribute, 20, 7);
            }
        }
        field(&mut node, 5, &attribute);
    }
    node
}

fn tensor(name: &str, element: u64, length: i64, raw: &[u8]) -> Vec<u8> {
    let mut tensor = Vec::new();
    number(&mut tensor, 1, length.cast_unsigned());
    number(&mut tensor, 2, element);
    field(&mut tensor, 8, name.as_bytes());
    field(&mut tensor, 9, raw);
    tensor
}

fn value(name: &str, element: u64, dimensions: &[Option<i64>]) -> Vec<u8> {
    let mut shape = Vec::new();
    for dimension in dimensions {
        let mut encoded = Vec::new();
        match dimension {
            Some(size) => number(&mut encoded, 1, size.cast_unsigned()),
            None => field(&mut encoded, 2, b"N"),
        }
        field(&mut shape, 1, &encoded);
    }
    let (mut typed, mut kind, mut value) = (Vec::new(), Vec::new(), Vec::new());
    number(&mut typed, 1, element);
    field(&mut typed, 2, &shape);
    field(&mut kind, 1, &typed);
    field(&mut value, 1, name.as_bytes());
    field(&mut value, 2, &kind);
    value
}

/// A protobuf field of bytes, text, or a message.
fn field(to: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(to, number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// A protobuf field of an integer.
fn number(to: &mut Vec<u8>, number: u64, value: u64) {
    varint(to, number << 3);
    varint(to, value);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
