//! TensorRT as a backend: models on a device, and lanes that batches go through.

use super::Progress;
use super::builder::{self, Request, Target};
use super::cuda::{CudaError, Device};
use super::golden::Pictures;
use super::lane::{Lane, Plan};
use super::library::Library;
use super::memory::Staging;
use super::network::Network;
use super::passport::{Passport, write};
use crate::infer::{Backend, Capabilities, InferError, fault};
use crate::job::{Batch, BatchFault, MAX_BATCH};
use crate::model::Model;
use crate::platform::Waker;
use crate::pool::{FrameRef, Reader};
use crate::stats::Copies;
use crate::time::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long until a batch is looked at again that nobody wakes for.
const GLANCE: Duration = Duration::from_micros(500);

/// How TensorRT is to be run.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// CUDA device number.
    pub device: u16,
    /// Lanes: batches in flight.
    pub lanes: u16,
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
            .finish_non_exhaustive()
    }
}

/// TensorRT as a backend.
#[derive(Debug)]
pub struct TensorRt {
    capabilities: Capabilities,
    // Before what their work uses.
    lanes: Vec<Lane>,
    networks: Vec<Network>,
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
        let mut networks = Vec::new();
        let mut passports = Vec::new();
        let mut kept = Vec::new();
        for model in models {
            let (plan, passport) = plan(settings, &library, &device, model, &request)?;
            let compiled = Compiled::of(settings.cache.join(request.key(&library, model).file()));
            networks.push(
                Network::load(&device, &library, model, &plan, &compiled.bytes, max_batch)
                    .map_err(|what| bad(model, what))?,
            );
            passports.push(passport);
            kept.push(compiled);
        }
        let lanes = settings.lanes.max(1);
        let staging =
            Staging::new(&device, usize::from(lanes) * usize::from(max_batch), settings.frame_bytes);
        let plan = Plan {
            device: device.clone(),
            max_batch,
            staging: staging.clone(),
            shares_profiles: library.version().shares_profiles(),
            copies: copies.clone(),
        };
        let lanes = (0..lanes).map(|number| Lane::new(&plan, &networks, number, waker));
        let mut lanes = lanes.collect::<Result<Vec<_>, _>>().map_err(|(model, what)| match model {
            Some(index) => bad(&models[index], what),
            None => InferError::System(what),
        })?;
        let stopped = check(&device, models, &networks, &passports, &mut lanes)?;
        for (network, kept) in networks.iter().zip(&kept) {
            kept.renew(network);
        }
        let capabilities = Capabilities {
            name: format!("{} on {}", library.version(), found.name),
            in_flight: lanes.len(),
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
            networks,
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

/// What a plan's contexts compiled on this device at an earlier start: beside its plan, or where that would lie had it been
/// built here.
struct Compiled {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Compiled {
    /// What is kept for the plan at this path; nothing at the first start.
    fn of(plan: PathBuf) -> Self {
        let path = plan.with_extension("compiled");
        Self { bytes: fs::read(&path).unwrap_or_default(), path }
    }

    /// Keeps what there is now, where that is something else. Without it the next start takes longer, and no more.
    fn renew(&self, network: &Network) {
        let kept = match network.compiled() {
            Ok(compiled) if compiled.is_empty() || compiled == self.bytes => Ok(()),
            Ok(compiled) => write(&self.path, &compiled),
            Err(why) => Err(why),
        };
        if let Err(why) = kept {
            log::warn!(
                "model {}: its compiled kernels can't be kept, so that every start compiles them: {why}",
                network.id
            );
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
    networks: &[Network],
    passports: &[Passport],
    lanes: &mut [Lane],
) -> Result<Vec<Option<BatchFault>>, InferError> {
    let pictures = Pictures::new(device).map_err(InferError::System)?;
    let mut stopped = Vec::new();
    let mut reasons = Vec::new();
    for (index, (network, passport)) in networks.iter().zip(passports).enumerate() {
        let Some(golden) = &passport.golden else {
            log::warn!(
                "model {}: its plan was built elsewhere and has no golden answers: what it answers here is not checked; \
                 \"ocelli engine build --rebuild\" on this device keeps them",
                network.id
            );
            stopped.push(None);
            continue;
        };
        let answer = |lane: &mut Lane| pictures.check(lane, index, network, golden);
        let wrong = lanes.iter_mut().try_for_each(answer).err();
        stopped.push(
            wrong
                .as_ref()
                .map(|why| fault(format_args!("the model is stopped: its answers are wrong: {why}"))),
        );
        if let Some(why) = wrong {
            log::error!(
                "model {} is stopped: it does not answer as when its plan was built: {why}; \"ocelli engine build \
                 --rebuild\" builds it anew; if that does not help, suspect the driver or the memory",
                network.id
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
        // As many lanes as batches may be in flight, so one is idle.
        let idle = self.lanes.iter_mut().enumerate().find(|(_, lane)| lane.is_idle());
        let (None, Some((index, lane))) = (&refusal, idle) else {
            batch.fault = refusal.or_else(|| Some(fault(format_args!("no lane is idle"))));
            return Err(batch);
        };
        (batch.submitted, batch.fault) = (now, None);
        let network = &self.networks[batch.model.index()];
        lane.start(network, batch);
        self.order.push_back(index);
        self.looked = now;
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<FrameRef>>> {
        let &first = self.order.front()?;
        self.looked = now;
        let (batch, failed) = self.lanes[first].end(now, self.gone.is_some(), &self.networks)?;
        self.order.pop_front();
        if let Some(why) = failed {
            self.lose(why);
        }
        Some(batch)
    }

    fn poll_at(&self) -> Option<Instant> {
        let &first = self.order.front()?;
        let asked = self.gone.is_some() || self.lanes[first].is_broken();
        asked.then(|| self.looked + GLANCE)
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(self.staging.clone())
    }
}
