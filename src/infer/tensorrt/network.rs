//! A model on the device: its engine, its pre-processing, and how its rows lie in a lane's memory.

use super::cuda::Device;
use super::kernels::Kernels;
use super::library::{Context, Element, Engine, IoTensor, Library};
use super::signature::{self, Tensor};
use super::stream::Stream;
use crate::model::{Element as InputElement, Input, Model};
use std::ops::Range;
use std::sync::Arc;

/// Where things begin in device memory: what TensorRT and the kernels read best.
pub const ALIGNMENT: usize = 256;

/// A plan that was loaded, held against its manifest.
#[derive(Debug)]
pub struct Network {
    /// The model's name on the board.
    pub id: String,
    /// How frames become its input.
    pub input: Input,
    /// Makes its input of frames.
    pub kernels: Kernels,
    engine: Arc<Engine>,
    /// Position of the input among the IO tensors.
    position: usize,
    /// The input's dimensions but the batch.
    dimensions: [i64; 3],
    /// A dimension of the input is open: shapes come from an optimization profile.
    open: bool,
    /// Each of its profiles is for one batch size, from one on, as on a DLA.
    pub a_profile_a_size: bool,
    sizes: Vec<u16>,
    outputs: Vec<Output>,
    /// The outputs that the manifest names, in its order.
    named: Vec<usize>,
}

/// What comes out.
#[derive(Debug)]
struct Output {
    name: String,
    /// Position among the IO tensors.
    position: usize,
    half: bool,
    /// Bytes of an element.
    element: usize,
    /// Elements of one frame's row.
    row: usize,
    /// Where its rows begin among all outputs.
    offset: usize,
}

/// Rows of one output among all of them.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Where they begin, in bytes.
    pub offset: usize,
    /// Elements of a row.
    pub row: usize,
    /// Bytes of an element: 4, or 2 for IEEE halves.
    pub element: usize,
}

impl Rows {
    /// The bytes of so many rows.
    #[must_use]
    pub fn bytes(&self, count: usize) -> Range<usize> {
        self.offset..self.offset + count * self.row * self.element
    }
}

impl Network {
    /// Loads a plan for batches of up to `max_batch`, onto a DLA if it was built for one; `compiled` is what its contexts compiled at an earlier start.
    ///
    /// # Errors
    /// TensorRT does not take it, it is not as the manifest says, or the device has no kernels for its input.
    pub fn load(
        device: &Device,
        library: &Library,
        model: &Model,
        plan: &[u8],
        compiled: &[u8],
        max_batch: u16,
        dla_core: Option<u8>,
    ) -> Result<Self, String> {
        device.bind().map_err(|why| why.to_string())?;
        let mut engine = library.load(plan, dla_core)?;
        if !compiled.is_empty() && engine.restore(compiled).is_err() {
            log::warn!(
                "model {}: the kernels kept from an earlier start are broken, or of another device, driver or TensorRT: \
                 they are compiled anew, which delays this start",
                model.id
            );
        }
        let tensors = engine.tensors()?;
        let described: Vec<Tensor> = tensors.iter().cloned().map(Into::into).collect();
        let fixed = signature::check(&described, model)?;
        let sizes = match fixed {
            None => (1..=max_batch).collect(),
            Some(size) if size <= max_batch => vec![size],
            Some(size) => return Err(format!("its batch size is fixed to {size}, more than {max_batch}")),
        };
        let position = tensors.iter().position(|tensor| tensor.input).unwrap_or_default();
        let kernels = Kernels::load(device, &model.input).map_err(|why| why.to_string())?;
        let outputs: Vec<Output> = (tensors.iter().enumerate())
            .filter(|(_, tensor)| !tensor.input)
            .map(|(position, tensor)| Output::new(position, tensor))
            .collect();
        let of = |name: &str| outputs.iter().position(|output| output.name == name);
        let named = model.decoder.outputs().into_iter().filter_map(of).collect();
        let open = tensors[position].shape.contains(&-1);
        let mut network = Self {
            id: model.id.clone(),
            input: model.input.clone(),
            kernels,
            position,
            dimensions: signature::dimensions(&model.input),
            open,
            a_profile_a_size: dla_core.is_some(),
            sizes,
            outputs,
            named,
            engine: Arc::new(engine),
        };
        if open {
            let profile = if dla_core.is_some() { i32::from(network.largest()) - 1 } else { 0 };
            let context = network.context(
                profile,
                network.largest(),
                &device.stream().map_err(|why| why.to_string())?,
            )?;
            network.lay_out(|position| context.shape(position))?;
        } else {
            network.lay_out(|position| Ok(tensors[position].shape.clone()))?;
        }
        Ok(network)
    }

    /// Says how long rows are, and where they lie, by the IO tensors' shapes for the largest batch.
    fn lay_out(&mut self, shape: impl Fn(usize) -> Result<Vec<i64>, String>) -> Result<(), String> {
        let largest = self.largest();
        let mut offset = 0;
        for output in &mut self.outputs {
            let shape = shape(output.position)?;
            output.row = row(&shape, largest).ok_or_else(|| output.misshapen(&shape, largest))?;
            output.offset = offset;
            offset += (usize::from(largest) * output.row * output.element).next_multiple_of(ALIGNMENT);
        }
        Ok(())
    }

    /// A context for batches of `size`, by the plan's optimization profile `profile`.
    ///
    /// # Errors
    /// TensorRT's, or an output's rows depend on the size.
    pub fn context(&self, profile: i32, size: u16, stream: &Stream) -> Result<Context, String> {
        let mut context = self.engine.context()?;
        if !self.open {
            return Ok(context);
        }
        let said = |what: &str| format!("TensorRT's log says why it refuses {what}");
        let selected = context.select_profile(profile, stream.handle());
        selected.map_err(|_| said(&format!("the optimization profile {profile}")))?;
        stream.synchronize().map_err(|why| why.to_string())?;
        let [a, b, c] = self.dimensions;
        let shaped = context.set_shape(self.position, &[i64::from(size), a, b, c]);
        shaped.map_err(|_| said(&format!("a batch of {size}")))?;
        for output in self.outputs.iter().filter(|output| output.row > 0) {
            let shape = context.shape(output.position)?;
            if row(&shape, size) != Some(output.row) {
                return Err(output.misshapen(&shape, size));
            }
        }
        Ok(context)
    }

    /// The batch sizes that it runs, ascending.
    #[must_use]
    pub fn sizes(&self) -> &[u16] {
        &self.sizes
    }

    /// The largest of them.
    #[must_use]
    pub fn largest(&self) -> u16 {
        self.sizes.last().copied().unwrap_or(1)
    }

    /// Bytes that one of its contexts works in.
    #[must_use]
    pub fn context_memory(&self) -> usize {
        usize::try_from(self.engine.context_memory()).unwrap_or(usize::MAX)
    }

    /// What its contexts have compiled on the device, for later starts; empty where they compile nothing.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn compiled(&self) -> Result<Vec<u8>, String> {
        self.engine.compiled()
    }

    /// Bytes of the largest batch's input.
    #[must_use]
    pub fn input_bytes(&self) -> usize {
        let Input { width, height, channels, element, .. } = self.input;
        let element = match element {
            InputElement::F32 => 4,
            InputElement::F16 => 2,
            InputElement::U8 | InputElement::I8 => 1,
        };
        usize::from(self.largest()) * width as usize * height as usize * channels.count() * element
    }

    /// Bytes of the largest batch's outputs, all of them.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        let end = |output: &Output| output.offset + usize::from(self.largest()) * output.row * output.element;
        self.outputs.iter().map(end).max().unwrap_or(0)
    }

    /// The outputs that the manifest names, in its order.
    pub fn rows(&self) -> impl Iterator<Item = Rows> {
        self.named.iter().map(|&at| {
            let Output { offset, row, half, .. } = self.outputs[at];
            Rows { offset, row, element: if half { 2 } else { 4 } }
        })
    }

    /// Where each IO tensor lies, by position, for an input and outputs at these addresses.
    pub fn addresses(&self, input: u64, outputs: u64) -> impl Iterator<Item = (usize, u64)> {
        let outputs =
            self.outputs.iter().map(move |output| (output.position, outputs + output.offset as u64));
        std::iter::once((self.position, input)).chain(outputs)
    }
}

impl Output {
    fn new(position: usize, tensor: &IoTensor) -> Self {
        let element = match tensor.element {
            Element::F32 | Element::I32 => 4,
            Element::F16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
            // At most.
            _ => 8,
        };
        let half = matches!(tensor.element, Element::F16);
        Self { name: tensor.name.clone(), position, half, element, row: 0, offset: 0 }
    }

    fn misshapen(&self, shape: &[i64], size: u16) -> String {
        format!(
            "its output {:?} has the shape {shape:?} for a batch of {size}; the first dimension must be the batch, and \
             the others must not depend on it",
            self.name
        )
    }
}

/// Elements of one of `size` rows of this shape.
fn row(shape: &[i64], size: u16) -> Option<usize> {
    let (&first, rest) = shape.split_first()?;
    let row = rest.iter().try_fold(1usize, |row, &extent| row.checked_mul(usize::try_from(extent).ok()?))?;
    (first == i64::from(size) && row > 0).then_some(row)
}
