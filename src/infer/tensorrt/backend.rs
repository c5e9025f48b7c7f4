//! TensorRT as a backend: models on a device, and lanes that batches go through.

use super::Progress;
use super::builder::{self, Request, Target};
use super::compiled::Compiled;
use super::cuda::{CudaError, Device};
use super::golden::Pictures;
use super::lane::{Lane, Place, Plan};
use super::library::Library;
use super::memory::Staging;
use super::network::Network;
use super::passport::Passport;
use crate::infer::{Backend, Capabilities, InferError, fault};
use crate::job::{Batch, BatchFault, MAX_BATCH};
use crate::model::Model;
use crate::platform::Waker;
use crate::pool::{FrameRef, Reader};
use crate::stats::Copies;
use crate::time::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long until a batch is looked at again that nobody wakes for.
const GLANCE: Duration = Duration::from_micros(500);

/// How TensorRT is to be run.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// CUDA device number.
    pub device: u16,
    /// Lanes on the GPU: batches in flight.
    pub lanes: u16,
    /// DLAs that have a lane each beside them.
    pub dla: &'a [u8],
    /// Most jobs in a batch.
    pub max_batch: u16,
    /// Where plans are kept.
    pub cache: &'a Path,
    /// Bytes of the largest frame.
    pub frame_bytes: usize,
    /// Plans that are missing may be built.
    pub build: Option<Building<'a>>,
}

/// How missing plans are built.
#[derive(Clone, Copy)]
pub struct Building<'a> {
    /// Who tells how far a model of this name is.
    pub progress: &'a dyn Fn(&str) -> Progress,
    /// The program that builds, for the passport.
    pub by: &'a str,
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("device", &self.device)
            .field("lanes", &self.lanes)
            .field("dla", &self.dla)
            .finish_non_exhaustive()
    }
}

/// TensorRT as a backend.
#[derive(Debug)]
pub struct TensorRt {
    capabilities: Capabilities,
    // Before what their work uses.
    lanes: Vec<Placed>,
    units: Vec<Unit>,
    /// Per model: why its batches are refused.
    stopped: Vec<Option<BatchFault>>,
    /// Which lane has each batch in flight, in order of submission; capacity fixed at start.
    order: VecDeque<usize>,
    device: Device,
    staging: Arc<Staging>,
    /// The device has failed: nothing works any more in this process.
    gone: Option<BatchFault>,
    /// When a batch that nobody wakes for was looked at.
    looked: Instant,
}

impl TensorRt {
    /// Opens the device, loads every model's plan, runs every batch size twice on every lane, and holds each model's
    /// answers against its golden ones. `copies` counts frames that have to be copied for the device; `waker` is woken
    /// after every completion.
    ///
    /// # Errors
    /// There is no TensorRT or device; a plan is missing, not for this, or can't be run; or no model answers as it did.
    pub fn open(
        settings: &Settings<'_>,
        models: &[Model],
        copies: &Arc<Copies>,
        waker: &Waker,
    ) -> Result<Self, InferError> {
        let library = Library::open()?;
        let found = library.device(settings.device)?;
        let device = Device::open(settings.device)?;
        let max_batch = settings.max_batch.clamp(1, MAX_BATCH as u16);
        let target = Target::Here { device: found.name.clone(), capability: found.capability };
        let request = Request::of_board(target, max_batch, settings.lanes);
        let requests = request.with_dlas(settings.dla);
        let units = requests.iter().map(|request| Unit::load(settings, &library, &device, models, request));
        let units = units.collect::<Result<Vec<_>, _>>()?;
        // Those of the GPU, and one for each DLA.
        let on_gpu = (0..settings.lanes.max(1)).map(|context| (0, context));
        let places: Vec<_> = on_gpu.chain((1..units.len()).map(|unit| (unit, 0))).collect();
        let named = |&(unit, _): &(usize, u16)| match requests[unit].dla_core {
            None => "gpu".to_owned(),
            Some(core) => format!("dla {core}"),
        };
        let names = places.iter().map(named).collect();
        let staging = Staging::new(&device, places.len() * usize::from(max_batch), settings.frame_bytes);
        let plan = Plan {
            device: device.clone(),
            max_batch,
            staging: staging.clone(),
            shares_profiles: library.version().shares_profiles(),
            copies: copies.clone(),
        };
        let lanes = (0..).zip(places).map(|(number, (unit, context))| {
            let lane = Lane::new(&plan, &units[unit].networks, Place { number, context }, waker)?;
            Ok(Placed { lane, unit })
        });
        let mut lanes = lanes.collect::<Result<Vec<_>, _>>().map_err(|(model, what)| match model {
            Some(index) => bad(&models[index], what),
            None => InferError::System(what),
        })?;
        let stopped = check(&device, models, &units, &mut lanes)?;
        units.iter().for_each(Unit::keep);
        let networks = &units[0].networks;
        let capabilities = Capabilities {
            name: format!("{} on {}", library.version(), found.name),
            lanes: names,
            batch_sizes: networks.iter().map(|network| network.sizes().to_vec()).collect(),
            output_rows: networks
                .iter()
                .map(|network| network.rows().map(|rows| rows.row).collect())
                .collect(),
        };
        Ok(Self {
            capabilities,
            order: VecDeque::with_capacity(lanes.len()),
            lanes,
            units,
            stopped,
            device,
            staging,
            gone: None,
            looked: Instant::default(),
        })
    }

    fn lose(&mut self, why: CudaError) {
        let lost = || fault(format_args!("the device failed, and needs a new process: {why}"));
        self.gone.get_or_insert_with(lost);
    }
}

/// A lane, and what it works on.
#[derive(Debug)]
struct Placed {
    lane: Lane,
    unit: usize,
}

/// What lanes work on, the GPU or a DLA: every model's plan there.
#[derive(Debug)]
struct Unit {
    networks: Vec<Network>,
    passports: Vec<Passport>,
    compiled: Vec<Compiled>,
}

impl Unit {
    fn load(
        settings: &Settings<'_>,
        library: &Library,
        device: &Device,
        models: &[Model],
        request: &Request,
    ) -> Result<Self, InferError> {
        let mut unit = Self { networks: Vec::new(), passports: Vec::new(), compiled: Vec::new() };
        for model in models {
            let (plan, passport) = plan(settings, library, device, model, request)?;
            let compiled = Compiled::of(&settings.cache.join(request.key(library, model).file()));
            let Request { max_batch, dla_core, .. } = *request;
            unit.networks.push(
                Network::load(device, library, model, &plan, compiled.bytes(), max_batch, dla_core)
                    .map_err(|what| bad(model, what))?,
            );
            unit.passports.push(passport);
            unit.compiled.push(compiled);
        }
        Ok(unit)
    }

    /// Keeps what was compiled on it.
    fn keep(&self) {
        for (network, compiled) in self.networks.iter().zip(&self.compiled) {
            compiled.renew(network);
        }
    }
}

fn bad(model: &Model, what: String) -> InferError {
    InferError::Model { model: model.id.clone(), file: model.file.clone(), what }
}

/// A model's plan, found or, where that is allowed, built.
fn plan(
    settings: &Settings<'_>,
    library: &Library,
    device: &Device,
    model: &Model,
    request: &Request,
) -> Result<(Vec<u8>, Passport), InferError> {
    let found = builder::find(library, model, request, settings.cache)
        .and_then(|(path, passport)| Ok((passport.plan(&path)?, passport)));
    match (found, settings.build) {
        (Ok(found), _) => Ok(found),
        (Err(why), None) => Err(bad(
            model,
            format!(
                "{why}; \"ocelli engine build\" with this board builds it, or its start does where \
                 accelerator.build_plans is true"
            ),
        )),
        (Err(why), Some(Building { progress, by })) => {
            log::info!("{}: {why}; building it", model.id);
            let progress = progress(&model.id);
            let (path, passport) =
                builder::build(library, Some(device), model, request, settings.cache, by, &progress)?;
            let plan = passport.plan(&path).map_err(InferError::System)?;
            Ok((plan, passport))
        }
    }
}

/// Asks every model for its golden answers, on every lane. Gives why models are stopped.
fn check(
    device: &Device,
    models: &[Model],
    units: &[Unit],
    lanes: &mut [Placed],
) -> Result<Vec<Option<BatchFault>>, InferError> {
    let pictures = Pictures::new(device).map_err(InferError::System)?;
    let mut stopped = Vec::new();
    let mut reasons = Vec::new();
    for (index, Model { id, .. }) in models.iter().enumerate() {
        let mut wrong = None;
        for (number, unit) in units.iter().enumerate() {
            let Some(golden) = &unit.passports[index].golden else {
                log::warn!(
                    "model {id}: its plan was built elsewhere and has no golden answers: what it answers here is not \
                     checked; \"ocelli engine build --rebuild\" on this device keeps them"
                );
                continue;
            };
            let mut on_it = lanes.iter_mut().filter(|placed| placed.unit == number);
            let answer =
                |placed: &mut Placed| pictures.check(&mut placed.lane, index, &unit.networks[index], golden);
            wrong = wrong.or(on_it.try_for_each(answer).err());
        }
        stopped.push(
            wrong
                .as_ref()
                .map(|why| fault(format_args!("the model is stopped: its answers are wrong: {why}"))),
        );
        if let Some(why) = wrong {
            log::error!(
                "model {id} is stopped: it does not answer as when its plan was built: {why}; \"ocelli engine build \
                 --rebuild\" builds it anew; if that does not help, suspect the driver or the memory"
            );
            reasons.push((index, why));
        }
    }
    match reasons.pop() {
        Some((index, why)) if stopped.iter().all(Option::is_some) => {
            Err(bad(&models[index], format!("it does not answer as when its plan was built: {why}")))
        }
        _ => Ok(stopped),
    }
}

impl Backend<FrameRef> for TensorRt {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, now: Instant, mut batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        let refusal = self.gone.clone().or_else(|| self.capabilities.refusal(self.order.len(), &batch));
        let refusal = refusal.or_else(|| self.stopped[batch.model.index()].clone());
        let refusal = refusal.or_else(|| self.device.bind().err().map(|why| fault(format_args!("{why}"))));
        // As many lanes as batches may be in flight, so one is idle: the GPU's before a DLA's.
        let idle = self.lanes.iter().position(|placed| placed.lane.is_idle());
        let (None, Some(index)) = (&refusal, idle) else {
            batch.fault = refusal.or_else(|| Some(fault(format_args!("no lane is idle"))));
            return Err(batch);
        };
        (batch.submitted, batch.lane, batch.fault) = (now, index, None);
        let Placed { lane, unit } = &mut self.lanes[index];
        lane.start(&self.units[*unit].networks[batch.model.index()], batch);
        self.order.push_back(index);
        self.looked = now;
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<FrameRef>>> {
        let &first = self.order.front()?;
        self.looked = now;
        let Placed { lane, unit } = &mut self.lanes[first];
        let (batch, failed) = lane.end(now, self.gone.is_some(), &self.units[*unit].networks)?;
        self.order.pop_front();
        if let Some(why) = failed {
            self.lose(why);
        }
        Some(batch)
    }

    fn poll_at(&self) -> Option<Instant> {
        let &first = self.order.front()?;
        let asked = self.gone.is_some() || self.lanes[first].lane.is_broken();
        asked.then(|| self.looked + GLANCE)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(self.staging.clone())
    }
}
