//! ONNX Runtime on the CPU: a shared library that is loaded at run time, one session a thread.
//!
//! What the library itself allocates for a batch (from arenas that are grown before the start) is its own
//! business; our code allocates nothing.

mod library;
mod network;

use super::blocking::{Blocking, Engine};
use super::{Backend, Capabilities, InferError};
use crate::image::PixelFormat;
use crate::job::{Batch, BatchFault, MAX_BATCH};
use crate::model::Model;
use crate::platform::Waker;
use crate::pool::FrameRef;
use crate::time::Instant;
use network::Network;
use std::path::Path;

/// The version of ONNX Runtime's interface that is spoken: the library must be 1.24 or later.
pub const API_VERSION: u32 = ort::MINOR_VERSION;

/// How ONNX Runtime is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    /// Its shared library; `None`: `ORT_DYLIB_PATH`, else the system's.
    pub library: Option<&'a Path>,
    /// Sessions, each with its own thread and a batch of its own.
    pub sessions: u16,
    /// Computing threads of each session.
    pub threads: u16,
    /// Most jobs in a batch.
    pub max_batch: u16,
}

/// Format, width and height of frames.
pub type FrameSize = (PixelFormat, u32, u32);

/// ONNX Runtime as a backend.
#[derive(Debug)]
pub struct OnnxRuntime(Blocking<FrameRef>);

/// All models, on one thread.
struct Session(Vec<Network>);

impl OnnxRuntime {
    /// Loads the library and every model, holds each against its manifest, and runs every batch size before
    /// the first real frame. `frames` names, for each model, the frames that it will be given. `waker` is
    /// woken after every completion.
    ///
    /// # Errors
    /// The library is missing or can't be used, a model is not one or is not as its manifest says, or the
    /// system refused a thread.
    ///
    /// # Panics
    /// When `frames` is not as long as `models`.
    pub fn open(
        settings: &Settings<'_>,
        models: &[Model],
        frames: &[Vec<FrameSize>],
        waker: &Waker,
    ) -> Result<Self, InferError> {
        assert_eq!(models.len(), frames.len(), "frames for every model");
        let environment = library::environment(settings.library)?;
        let max_batch = settings.max_batch.clamp(1, MAX_BATCH as u16);
        let mut sessions = Vec::new();
        for _ in 0..settings.sessions.max(1) {
            let load = |(model, frames): (&Model, &Vec<FrameSize>)| {
                Network::load(&environment, model, frames, settings.threads, max_batch)
            };
            let networks = models.iter().zip(frames).map(load).collect::<Result<Vec<_>, _>>()?;
            sessions.push(Session(networks));
        }
        let networks = &sessions[0].0;
        let capabilities = Capabilities {
            name: library::name(),
            lanes: Vec::new(),
            batch_sizes: networks.iter().map(|network| network.batch_sizes().to_vec()).collect(),
            output_rows: networks.iter().map(Network::output_rows).collect(),
        };
        Blocking::start(sessions, capabilities, waker).map(Self)
    }
}

impl Engine<FrameRef> for Session {
    fn run(&mut self, batch: &mut Batch<FrameRef>) {
        let network = &mut self.0[batch.model.index()];
        if let Err(why) = network.run(&batch.jobs, &mut batch.outputs) {
            batch.fault = Some(BatchFault::new(why.message()));
        }
    }
}

impl Backend<FrameRef> for OnnxRuntime {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn submit(&mut self, now: Instant, batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        self.0.submit(now, batch)
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<FrameRef>>> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> Option<Instant> {
        self.0.poll_at()
    }
}
