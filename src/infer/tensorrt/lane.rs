//! A lane: one batch at a time from frames to answers, on a stream and in memory of its own.
//!
//! Everything is set up at start. For every model and batch size there is an execution context with its addresses, and
//! its whole work (pre-processing, network, copying the answers to the host) is recorded as a graph, so that a batch
//! costs one launch.
//!
//! Architecture invariant: between [`Lane::start`] and the batch's end nobody touches the lane's memory or drops the
//! batch's frames; dropping a lane waits for its streams first.
#![allow(unsafe_code, reason = "the device works in memory that is lent to it")]

use super::cuda::{CudaError, Device, Pinned};
use super::kernels::{FRAME_BYTES, Frame};
use super::library::Context;
use super::memory::{DeviceMemory, Staging};
use super::network::{Network, Rows};
use super::stream::{Graph, Signal, Stream};
use super::upload::Upload;
use crate::infer::fault;
use crate::job::{Batch, BatchFault, Tensor};
use crate::platform::Waker;
use crate::pool::FrameRef;
use crate::stats::{Copies, CopyStage};
use crate::time::Instant;
use half::f16;
use std::sync::{Arc, Mutex, PoisonError};

/// What all lanes are like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device.
    pub device: Device,
    /// Most jobs in a batch.
    pub max_batch: u16,
    /// How it sees frames.
    pub staging: Arc<Staging>,
    /// Contexts of one engine can share its optimization profile.
    pub shares_profiles: bool,
    /// Counts what is copied.
    pub copies: Arc<Copies>,
}

/// Which of the lanes one is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Its number among all of them.
    pub number: u16,
    /// Its number among those that run the same plans.
    pub context: u16,
}

/// Signals that the driver may still give: the stream that they wait for has failed.
static KEPT: Mutex<Vec<Arc<Signal>>> = Mutex::new(Vec::new());

/// See the module.
#[derive(Debug)]
pub struct Lane {
    /// Per model, per batch size.
    programs: Vec<Vec<Program>>,
    memory: Memory,
    stream: Stream,
    /// Discrete devices: frames go to them first.
    upload: Option<Upload>,
    staging: Arc<Staging>,
    /// The first of its places there.
    first: usize,
    copies: Arc<Copies>,
    signal: Arc<Signal>,
    batch: Option<Box<Batch<FrameRef>>>,
    /// Jobs of it whose frames can't be pre-processed.
    unusable: u64,
    /// Why only a part of its work could be put into the stream; the signal is not given then.
    broken: Option<BatchFault>,
}

/// What the work of every batch is done in.
#[derive(Debug)]
struct Memory {
    frames: Pinned,
    input: DeviceMemory,
    outputs: DeviceMemory,
    answers: Pinned,
    /// Shared by all contexts: one works at a time.
    scratch: DeviceMemory,
}

/// The work of one batch size.
#[derive(Debug)]
struct Program {
    size: u16,
    graph: Option<Graph>,
    context: Context,
}

impl Lane {
    /// A lane, with everything run twice.
    ///
    /// # Errors
    /// There is no memory, or a model can't be run: its index, and why.
    pub fn new(
        plan: &Plan,
        networks: &[Network],
        place: Place,
        waker: &Waker,
    ) -> Result<Self, (Option<usize>, String)> {
        let Plan { device, max_batch, staging, .. } = plan;
        let said = |why: CudaError| (None, format!("no lane on the device: {why}"));
        let most = |bytes: fn(&Network) -> usize| networks.iter().map(bytes).max().unwrap_or(0);
        let batch = usize::from(*max_batch);
        let stream = device.stream().map_err(said)?;
        let upload = (!device.integrated).then(|| Upload::new(device, batch, staging.pitch()));
        let upload = upload.transpose().map_err(said)?;
        let memory = Memory {
            frames: device.pinned(batch * FRAME_BYTES).map_err(said)?,
            input: device.memory(most(Network::input_bytes)).map_err(said)?,
            outputs: device.memory(most(Network::output_bytes)).map_err(said)?,
            answers: device.pinned(most(Network::output_bytes)).map_err(said)?,
            scratch: device.memory(most(Network::context_memory)).map_err(said)?,
        };
        let mut lane = Self {
            programs: Vec::new(),
            memory,
            stream,
            upload,
            staging: staging.clone(),
            first: usize::from(place.number) * batch,
            copies: plan.copies.clone(),
            signal: Signal::new(waker.clone()),
            batch: None,
            unusable: 0,
            broken: None,
        };
        for (index, network) in networks.iter().enumerate() {
            let shares = plan.shares_profiles && !network.a_profile_a_size;
            let first = (!shares).then(|| i32::from(place.context) * i32::from(*max_batch));
            let (programs, unrecorded) = lane.program(network, first).map_err(|why| (Some(index), why))?;
            lane.programs.push(programs);
            // Lanes with the same plans are alike.
            if let Some(why) = unrecorded.filter(|_| place.context == 0) {
                log::warn!(
                    "model {}: its work can't be recorded as a graph ({why}): it is put together for every batch, which \
                     costs the exec thread time",
                    network.id
                );
            }
        }
        Ok(lane)
    }

    /// Makes and warms up a model's programs; and why one can't be recorded, if so. `first` is the profile of batches of
    /// one, where each context has its own.
    fn program(
        &mut self,
        network: &Network,
        first: Option<i32>,
    ) -> Result<(Vec<Program>, Option<String>), String> {
        let mut unrecorded = None;
        let mut programs = Vec::new();
        for &size in network.sizes() {
            let profile = first.map_or(0, |first| first + i32::from(size) - 1);
            let mut program = Program::new(network, profile, size, &self.memory, &self.stream)?;
            let said = |why: String| format!("it can't run a batch of {size}: {why}");
            // What a context has put off until its first batch must not be recorded.
            self.rehearse(network, &mut program).map_err(said)?;
            if let Err(why) = program.record(network, &self.memory, &self.stream) {
                unrecorded.get_or_insert(why);
            }
            self.rehearse(network, &mut program).map_err(said)?;
            programs.push(program);
        }
        Ok((programs, unrecorded))
    }

    /// Runs a program as batches are, from the upload to the signal: what the driver puts off until it is asked for the
    /// first time is then not put off until a frame waits for it.
    fn rehearse(&mut self, network: &Network, program: &mut Program) -> Result<(), String> {
        if let Some(upload) = &mut self.upload {
            let bytes = self.memory.frames.bytes();
            let some = &bytes[..bytes.len().min(self.staging.pitch())];
            for index in (0..usize::from(program.size)).filter(|_| !some.is_empty()) {
                // SAFETY: the lane keeps them, and waits for its streams.
                unsafe { upload.add(index, some) };
            }
        }
        let put = program.start(network, &self.memory, self.upload.as_mut(), &self.stream, &self.signal);
        self.stream.synchronize().map_err(|why| why.to_string())?;
        put?;
        match self.signal.given() {
            Some((_, ended)) => ended.map_err(|why| why.to_string()),
            None => Err("the driver does not tell its end".to_owned()),
        }
    }

    /// Whether it has no batch.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.batch.is_none()
    }

    /// Whether its batch's end has to be asked for: nobody wakes for it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Starts with a batch that its model's network can run. The lane is idle.
    pub fn start(&mut self, network: &Network, batch: Box<Batch<FrameRef>>) {
        let put = self.put(network, &batch);
        self.broken = put.err().map(|why| fault(format_args!("{why}")));
        self.batch = Some(batch);
    }

    fn put(&mut self, network: &Network, batch: &Batch<FrameRef>) -> Result<(), String> {
        self.unusable = 0;
        for (index, job) in batch.jobs.iter().enumerate() {
            let seen = self.show(network, index, &job.payload);
            if seen.is_none() {
                self.unusable |= 1 << index;
            }
            self.describe(index, &seen.unwrap_or_default());
        }
        let programs = &mut self.programs[batch.model.index()];
        let program = programs.iter_mut().find(|program| usize::from(program.size) == batch.jobs.len());
        let program = program.ok_or("there is no program for it")?;
        program.start(network, &self.memory, self.upload.as_mut(), &self.stream, &self.signal)
    }

    /// A frame, as the kernels read it; `None` where they can't.
    fn show(&mut self, network: &Network, index: usize, frame: &FrameRef) -> Option<Frame> {
        let (layout, seen) = (frame.layout(), frame.device_address());
        let at = |address: u64| Frame::new(layout, address, &network.input);
        let bytes = layout.extent().unwrap_or(usize::MAX);
        if bytes > self.staging.pitch() || (seen.is_some() && self.upload.is_none()) {
            // In place; over the bus, where it is larger than what was expected.
            return seen.and_then(at);
        }
        let pixels = &frame.bytes()[..bytes];
        let (pixels, address) = match seen {
            Some(address) => (pixels, address),
            None => {
                // SAFETY: the place is this lane's, and its batch before is done.
                let copied = unsafe { self.staging.copy(self.first + index, pixels) }?;
                self.copies.count(CopyStage::Accelerator, bytes);
                copied
            }
        };
        // SAFETY: the batch keeps the frame, and the lane its copy, until the stream is done with them.
        let uploaded = self.upload.as_mut().map(|upload| unsafe { upload.add(index, pixels) });
        at(uploaded.unwrap_or(address))
    }

    fn describe(&mut self, index: usize, frame: &Frame) {
        self.memory.frames.bytes_mut()[index * FRAME_BYTES..][..FRAME_BYTES].copy_from_slice(&frame.bytes());
    }

    /// Its batch with its end, if that was by `now`, and what the device failed with. `gone`: it has failed already, so
    /// that no signal may come.
    pub fn end(
        &mut self,
        now: Instant,
        gone: bool,
        networks: &[Network],
    ) -> Option<(Box<Batch<FrameRef>>, Option<CudaError>)> {
        let given = if self.is_broken() { None } else { self.signal.given() };
        let (at, ended) = match given {
            // What came after the caller read the clock is left for the next call.
            Some((at, _)) if at > now => return None,
            Some(given) => given,
            None if gone || self.is_broken() => match self.is_at_rest() {
                Ok(false) => return None,
                Ok(true) => (now, Ok(())),
                Err(why) => (now, Err(why)),
            },
            None => return None,
        };
        let mut batch = self.batch.take()?;
        (batch.completed, batch.service) = (at, at.since(batch.submitted));
        batch.fault = self.broken.take();
        match ended {
            Ok(()) if batch.fault.is_none() => self.read(&networks[batch.model.index()], &mut batch),
            Ok(()) => {}
            Err(why) => batch.fault = Some(fault(format_args!("the device failed: {why}"))),
        }
        Some((batch, ended.err()))
    }

    /// Whether nothing that was put into its streams is still to be done.
    fn is_at_rest(&self) -> Result<bool, CudaError> {
        let uploaded = self.upload.as_ref().map_or(Ok(true), Upload::is_idle)?;
        Ok(self.stream.is_idle()? && uploaded)
    }

    fn read(&self, network: &Network, batch: &mut Batch<FrameRef>) {
        let jobs = batch.jobs.len();
        for (rows, tensor) in network.rows().zip(&mut batch.outputs) {
            let Tensor { row, data } = tensor;
            *row = rows.row;
            let data = &mut data[..jobs * rows.row];
            floats(&self.memory.answers.bytes()[rows.bytes(jobs)], rows.element, data);
            for (index, row) in data.chunks_exact_mut(rows.row).enumerate() {
                if self.unusable >> index & 1 == 1 {
                    row.fill(f32::NAN);
                }
            }
        }
    }

    /// Runs a batch of these frames and waits for it: the answers by output, in the manifest's order. The frames' memory
    /// is the caller's. The lane is idle.
    ///
    /// # Safety
    /// The device may read all that the frames name.
    ///
    /// # Errors
    /// There is no such batch size, or the device's reason.
    pub unsafe fn answer(
        &mut self,
        model: usize,
        network: &Network,
        frames: &[Frame],
    ) -> Result<Vec<Vec<f32>>, String> {
        let said = |why: CudaError| why.to_string();
        frames.iter().enumerate().for_each(|(index, frame)| self.describe(index, frame));
        let program =
            self.programs[model].iter_mut().find(|program| usize::from(program.size) == frames.len());
        let program = program.ok_or_else(|| format!("it can't run {} frames at once", frames.len()))?;
        let run = program.run(network, &self.memory, &self.stream);
        self.stream.synchronize().map_err(said)?;
        run?;
        let answer = |rows: Rows| {
            let mut data = vec![0.0; frames.len() * rows.row];
            floats(&self.memory.answers.bytes()[rows.bytes(frames.len())], rows.element, &mut data);
            data
        };
        Ok(network.rows().map(answer).collect())
    }
}

/// Waits for what its streams are at; only then is anything let go of.
impl Drop for Lane {
    fn drop(&mut self) {
        let waited = self.stream.synchronize();
        let uploaded = self.upload.as_ref().map_or(Ok(()), Upload::synchronize);
        if waited.and(uploaded).is_err() {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(self.signal.clone());
        }
    }
}

impl Program {
    fn new(
        network: &Network,
        profile: i32,
        size: u16,
        memory: &Memory,
        stream: &Stream,
    ) -> Result<Self, String> {
        let mut context = network.context(profile, size, stream)?;
        let scratch = &memory.scratch;
        // SAFETY: the lane keeps the memory for as long as its programs, and runs one of them at a time.
        unsafe { context.set_memory(scratch.address(), scratch.bytes() as u64) };
        for (position, address) in network.addresses(memory.input.address(), memory.outputs.address()) {
            // SAFETY: as above, and there is room for the largest batch.
            let set = unsafe { context.set_address(position, address) };
            set.map_err(|_| {
                format!("TensorRT's log says why it refuses an address for IO tensor {position}")
            })?;
        }
        Ok(Self { size, graph: None, context })
    }

    /// Puts all of a batch into the stream: its work behind what was noted for upload, and the signal behind that.
    fn start(
        &mut self,
        network: &Network,
        memory: &Memory,
        upload: Option<&mut Upload>,
        stream: &Stream,
        signal: &Arc<Signal>,
    ) -> Result<(), String> {
        let said = |why: CudaError| why.to_string();
        upload.map_or(Ok(()), |upload| upload.send(stream)).map_err(said)?;
        self.run(network, memory, stream)?;
        // SAFETY: the signal is kept until the lane's end, which waits for the stream.
        unsafe { stream.signal(signal) }.map_err(said)
    }

    /// Puts its work into the stream.
    fn run(&mut self, network: &Network, memory: &Memory, stream: &Stream) -> Result<(), String> {
        match &mut self.graph {
            // SAFETY: the lane keeps all memory for as long as its programs.
            Some(graph) => unsafe { graph.launch(stream) }.map_err(|why| why.to_string()),
            None => put(network, &mut self.context, self.size, memory, stream),
        }
    }

    /// Records its work.
    fn record(&mut self, network: &Network, memory: &Memory, stream: &Stream) -> Result<(), String> {
        let Self { size, context, .. } = self;
        if !context.is_capturable(stream.handle()) {
            return Err("TensorRT says that it can't be".to_owned());
        }
        self.graph = Some(stream.record(|| put(network, context, *size, memory, stream))?);
        Ok(())
    }
}

/// Puts a batch's work into the stream, call by call.
fn put(
    network: &Network,
    context: &mut Context,
    size: u16,
    memory: &Memory,
    stream: &Stream,
) -> Result<(), String> {
    let said = |why: CudaError| why.to_string();
    let Memory { frames, input, outputs, answers, .. } = memory;
    // SAFETY: descriptions and rows are the lane's, and the batch keeps what they name.
    unsafe { network.kernels.launch(stream, frames.address(), u32::from(size), input.address()) }
        .map_err(said)?;
    context
        .enqueue(stream.handle())
        .map_err(|_| "TensorRT refuses the batch; its log says why".to_owned())?;
    for rows in network.rows() {
        let bytes = rows.bytes(usize::from(size));
        // SAFETY: both are the lane's, and as long as the largest batch needs.
        unsafe {
            stream.copy_out(outputs.address() + bytes.start as u64, answers.at(bytes.start), bytes.len())
        }
        .map_err(said)?;
    }
    Ok(())
}

/// Floats of 4 bytes or halves of 2, as they lie in memory.
fn floats(bytes: &[u8], element: usize, to: &mut [f32]) {
    if element == 2 {
        for (to, from) in to.iter_mut().zip(bytes.as_chunks().0) {
            *to = f16::from_ne_bytes(*from).to_f32();
        }
    } else {
        for (to, from) in to.iter_mut().zip(bytes.as_chunks().0) {
            *to = f32::from_ne_bytes(*from);
        }
    }
}
