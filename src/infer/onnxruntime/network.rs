//! One model in one session: held against its manifest, warmed up, run.

use super::FrameSize;
use crate::infer::InferError;
use crate::infer::preprocess::{Preprocessor, Row};
use crate::job::{BatchJob, Tensor};
use crate::model::{Decoder, Element, Input, Model, TensorLayout};
use crate::pool::FrameRef;
use half::f16;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};
use std::ops::RangeInclusive;

/// A model, ready to run.
pub struct Network {
    session: Session,
    preprocessor: Preprocessor,
    /// The largest batch's input rows. Each run looks at as many of them as it has jobs.
    rows: Rows,
    /// Elements of one input row.
    input_row: usize,
    /// Dimensions of the input but the first.
    dimensions: [i64; 3],
    outputs: Vec<Output>,
    batch_sizes: Vec<u16>,
}

/// Input rows, one after the other.
enum Rows {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

/// One of the outputs that the manifest names.
struct Output {
    /// Its position among the session's outputs.
    position: usize,
    /// Elements of one job's row; known after the first run.
    row: usize,
}

impl Network {
    /// Loads `model`, holds it against its manifest, and runs each batch size twice: the first run grows the
    /// arenas, the second finds them as every later one will.
    pub fn load(
        environment: &Environment,
        model: &Model,
        frames: &[FrameSize],
        threads: u16,
        max_batch: u16,
    ) -> Result<Self, InferError> {
        let bad =
            |what: String| InferError::Model { model: model.id.clone(), file: model.file.clone(), what };
        let session = open(environment, model, threads).map_err(&bad)?;
        let fixed = check_input(&session, &model.input).map_err(&bad)?;
        let batch_sizes: Vec<u16> = match fixed {
            None => (1..=max_batch).collect(),
            Some(size) if size <= max_batch => vec![size],
            Some(size) => {
                return Err(bad(format!(
                    "its batch size is fixed to {size}, more than the board's max_batch {max_batch}; raise \
                     max_batch or export the model with a dynamic first dimension"
                )));
            }
        };
        let outputs = find_outputs(&session, &model.decoder).map_err(&bad)?;
        let mut preprocessor = Preprocessor::new(&model.input);
        for &(format, width, height) in frames {
            preprocessor.prepare(format, width, height);
        }
        let Input { width, height, channels, layout, .. } = model.input;
        let [w, h, c] = [i64::from(width), i64::from(height), channels.count() as i64];
        let input_row = width as usize * height as usize * channels.count();
        let elements = input_row * usize::from(batch_sizes.last().copied().unwrap_or(0));
        let mut network = Self {
            session,
            preprocessor,
            rows: match model.input.element {
                Element::F32 => Rows::F32(vec![0.0; elements]),
                Element::F16 => Rows::F16(vec![f16::ZERO; elements]),
                Element::U8 => Rows::U8(vec![0; elements]),
                Element::I8 => Rows::I8(vec![0; elements]),
            },
            input_row,
            dimensions: match layout {
                TensorLayout::Nhwc => [h, w, c],
                TensorLayout::Nchw => [c, h, w],
            },
            outputs,
            batch_sizes: batch_sizes.clone(),
        };
        for size in batch_sizes {
            for _ in 0..2 {
                network.warm_up(usize::from(size), &model.decoder).map_err(&bad)?;
            }
        }
        Ok(network)
    }

    /// The batch sizes it can run, ascending.
    pub fn batch_sizes(&self) -> &[u16] {
        &self.batch_sizes
    }

    /// Elements of one job's row in each output, in the manifest's order.
    pub fn output_rows(&self) -> Vec<usize> {
        self.outputs.iter().map(|output| output.row).collect()
    }

    /// Pre-processes the jobs' frames, runs the model and copies its outputs out.
    ///
    /// A frame that can't be pre-processed costs its neighbours nothing: its own outputs become NaN, which
    /// decoding reports as that one frame's failure.
    pub fn run(&mut self, jobs: &[BatchJob<FrameRef>], tensors: &mut [Tensor]) -> ort::Result<()> {
        let mut unusable = 0u64;
        for (index, job) in jobs.iter().enumerate() {
            let row = self.rows.row(index, self.input_row);
            if self.preprocessor.run(job.payload.bytes(), job.payload.layout(), row).is_err() {
                unusable |= 1 << index;
            }
        }
        let Self { session, rows, outputs, dimensions, input_row, .. } = self;
        let results = session.run([rows.tensor(jobs.len(), *input_row, *dimensions)?])?;
        for (output, tensor) in outputs.iter().zip(tensors) {
            tensor.row = output.row;
            let rows = &mut tensor.data[..jobs.len() * output.row];
            copy(&results[output.position], rows)?;
            for (index, row) in rows.chunks_exact_mut(output.row).enumerate() {
                if unusable >> index & 1 == 1 {
                    row.fill(f32::NAN);
                }
            }
        }
        Ok(())
    }

    /// Runs a batch of black frames and looks at the shapes that come out.
    fn warm_up(&mut self, size: usize, decoder: &Decoder) -> Result<(), String> {
        let input = self.rows.tensor(size, self.input_row, self.dimensions);
        let results = input
            .and_then(|input| self.session.run([input]))
            .map_err(|why| format!("it can't run a batch of {size}: {}", why.message()))?;
        for (output, name) in self.outputs.iter_mut().zip(decoder.outputs()) {
            let ValueType::Tensor { shape, .. } = results[output.position].dtype() else {
                return Err(format!("its output {name:?} is not a tensor"));
            };
            let row = shape.num_elements() / size;
            let first = shape.first().copied().unwrap_or(0);
            if first != size as i64 || row == 0 || (output.row != 0 && output.row != row) {
                return Err(format!(
                    "its output {name:?} has the shape {shape} for a batch of {size}; the first dimension \
                     must be the batch, and the others must not depend on it"
                ));
            }
            output.row = row;
        }
        Ok(())
    }
}

impl Rows {
    /// The input row of one job.
    fn row(&mut self, index: usize, length: usize) -> Row<'_> {
        let range = index * length..(index + 1) * length;
        match self {
            Self::F32(rows) => Row::F32(&mut rows[range]),
            Self::F16(rows) => Row::F16(&mut rows[range]),
            Self::U8(rows) => Row::U8(&mut rows[range]),
            Self::I8(rows) => Row::I8(&mut rows[range]),
        }
    }

    /// The first `jobs` rows as ONNX Runtime sees them, without copying.
    fn tensor(&self, jobs: usize, row: usize, [a, b, c]: [i64; 3]) -> ort::Result<SessionInputValue<'_>> {
        let shape = [jobs as i64, a, b, c];
        Ok(match self {
            Self::F32(rows) => TensorRef::from_array_view((shape, &rows[..jobs * row]))?.into(),
            Self::F16(rows) => TensorRef::from_array_view((shape, &rows[..jobs * row]))?.into(),
            Self::U8(rows) => TensorRef::from_array_view((shape, &rows[..jobs * row]))?.into(),
            Self::I8(rows) => TensorRef::from_array_view((shape, &rows[..jobs * row]))?.into(),
        })
    }
}

/// Copies an output's elements. Type and shape were checked at start; a model may still break its word.
fn copy(from: &DynValue, to: &mut [f32]) -> ort::Result<()> {
    let reshaped = || ort::Error::new("an output's shape is not the one that it had at start");
    if let Ok((_, values)) = from.try_extract_tensor::<f32>() {
        if values.len() != to.len() {
            return Err(reshaped());
        }
        to.copy_from_slice(values);
        return Ok(());
    }
    let (_, values) = from.try_extract_tensor::<f16>()?;
    if values.len() != to.len() {
        return Err(reshaped());
    }
    for (to, value) in to.iter_mut().zip(values) {
        *to = value.to_f32();
    }
    Ok(())
}

fn open(environment: &Environment, model: &Model, threads: u16) -> Result<Session, String> {
    match std::fs::metadata(&model.file) {
        Err(why) => return Err(format!("can't read the file: {why}")),
        Ok(file) if file.len() == 0 => return Err("the file is empty (0 bytes); fetch it again".into()),
        Ok(_) => {}
    }
    let built = || {
        Session::builder(environment)?
            .with_intra_threads(usize::from(threads.max(1)))?
            .with_inter_threads(1)?
            // A spinning thread takes the processor from the cameras' decoders.
            .with_intra_op_spinning(false)?
            .with_log_level(LogLevel::Fatal)?
            .commit_from_file(&model.file)
    };
    built().map_err(|why: ort::Error| {
        format!("ONNX Runtime can't load it: {}; is it an ONNX file, and whole?", why.message())
    })
}

/// Holds the session's one input against the manifest; gives the batch size where it is fixed.
fn check_input(session: &Session, input: &Input) -> Result<Option<u16>, String> {
    let [found] = session.inputs() else {
        let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
        return Err(format!("it has the inputs {names:?}; a detector has one, {:?}", input.tensor));
    };
    if found.name() != input.tensor {
        return Err(format!("its input is {:?}, the manifest says {:?}", found.name(), input.tensor));
    }
    let ValueType::Tensor { ty, shape, .. } = found.dtype() else {
        return Err(format!("its input {:?} is not a tensor", input.tensor));
    };
    let wanted = match input.element {
        Element::F32 => TensorElementType::Float32,
        Element::F16 => TensorElementType::Float16,
        Element::U8 => TensorElementType::Uint8,
        Element::I8 => TensorElementType::Int8,
    };
    if *ty != wanted {
        return Err(format!("its input {:?} holds {ty}, the manifest says {wanted}", input.tensor));
    }
    let [h, w, c] = [i64::from(input.height), i64::from(input.width), input.channels.count() as i64];
    let expected = match input.layout {
        TensorLayout::Nhwc => [h, w, c],
        TensorLayout::Nchw => [c, h, w],
    };
    let agrees = |(&found, &expected): (&i64, &i64)| found < 0 || found == expected;
    let rest = shape.get(1..).unwrap_or_default();
    if rest.len() != 3 || !rest.iter().zip(&expected).all(agrees) {
        return Err(format!(
            "its input {:?} has the shape {shape} (-1: any), the manifest's layout and size make it \
             [batch, {}, {}, {}]",
            input.tensor, expected[0], expected[1], expected[2]
        ));
    }
    match shape[0] {
        ..0 => Ok(None),
        batch => match u16::try_from(batch) {
            Ok(batch @ 1..) => Ok(Some(batch)),
            _ => Err(format!("its batch size is fixed to {batch}")),
        },
    }
}

/// Finds the outputs that the manifest names, and checks what is known of them before a run.
fn find_outputs(session: &Session, decoder: &Decoder) -> Result<Vec<Output>, String> {
    let find = |(name, ranks): (&str, RangeInclusive<usize>)| {
        let Some(position) = session.outputs().iter().position(|output| output.name() == name) else {
            let names: Vec<&str> = session.outputs().iter().map(|output| output.name()).collect();
            return Err(format!("it has no output {name:?}, which the manifest names; it has {names:?}"));
        };
        let ValueType::Tensor { ty, shape, .. } = session.outputs()[position].dtype() else {
            return Err(format!("its output {name:?} is not a tensor"));
        };
        if !matches!(ty, TensorElementType::Float32 | TensorElementType::Float16) {
            return Err(format!("its output {name:?} holds {ty}; a decoder reads f32 or f16"));
        }
        if !ranks.contains(&shape.len()) {
            return Err(format!(
                "its output {name:?} has {} dimensions {shape}; the manifest's decoder reads {}",
                shape.len(),
                ranks.start()
            ));
        }
        Ok(Output { position, row: 0 })
    };
    decoder.outputs().into_iter().zip(decoder.ranks()).map(find).collect()
}
