//! `ocelli engine`: plans of TensorRT, built, looked at and verified before the vehicle moves.

use crate::cli::{Exit, Failure, say};
use clap::{Args, Subcommand};
use ocelli::infer::tensorrt::passport::{self, Passport, capabilities};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Engine {
    /// Build the plans that a board needs, and keep them with their passports in its engine cache.
    Build(Build),
    /// Tell what is known about plans: what they are for, what goes in and comes out, and whether they are whole.
    Inspect(Inspect),
    /// Check that a board's plans are there, whole, and for this device, TensorRT and these models; load them.
    Verify(Verify),
}

/// Which plans are meant, and for what they are built.
#[derive(Debug, Args)]
struct Which {
    /// The board file; its accelerator is TensorRT.
    board: PathBuf,
    /// Only this model of the board.
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// Plans for devices of these compute capabilities instead of the one here (TensorRT-RTX only), as 8.9,12.0.
    #[arg(long = "for", value_name = "CAPABILITY", value_parser = capability, value_delimiter = ',')]
    capabilities: Vec<i32>,
    /// Device memory that layers may use beside weights and activations, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = passport::WORKSPACE_MIB,
        value_parser = clap::value_parser!(u64).range(0..=65536))]
    workspace_mib: u64,
    /// How long the builder looks for fast layers, 0 to 5; its own choice without.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=5))]
    level: Option<u8>,
    /// Plans for this DLA alone; else for the GPU and the DLAs that the board names.
    #[arg(long, value_name = "CORE", value_parser = clap::value_parser!(u8).range(0..=3))]
    dla: Option<u8>,
}

#[derive(Debug, Args)]
pub(super) struct Build {
    #[command(flatten)]
    which: Which,
    /// Build also what is there already.
    #[arg(long)]
    rebuild: bool,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Plans, or folders of plans.
    #[arg(required = true)]
    plans: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    which: Which,
}

/// "8.9" as 89.
fn capability(text: &str) -> Result<i32, String> {
    let parsed = text.split_once('.').and_then(|(major, minor)| {
        let (major, minor) = (major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?);
        (major > 0 && minor < 10).then(|| i32::from(major) * 10 + i32::from(minor))
    });
    parsed.ok_or_else(|| "a compute capability is a number like 8.9".to_owned())
}

impl Engine {
    pub(super) fn act(self) -> Result<(), Failure> {
        match self {
            Self::Build(build) => tensorrt::build(&build),
            Self::Inspect(inspect) => inspect.act(),
            Self::Verify(verify) => tensorrt::verify(&verify),
        }
    }
}

impl Inspect {
    fn act(&self) -> Result<(), Failure> {
        let mut plans = Vec::new();
        for path in &self.plans {
            if path.is_dir() {
                let found = passport::plans(path);
                if found.is_empty() {
                    return Err(Failure::new(
                        Exit::NoInput,
                        format!("{}: there are no plans", path.display()),
                    ));
                }
                plans.extend(found);
            } else {
                plans.push(path.clone());
            }
        }
        let mut broken = false;
        for plan in plans {
            match Passport::load(&plan).and_then(|passport| Ok((passport.plan(&plan)?, passport).1)) {
                Ok(passport) => say(&format!("{}: whole\n{}", plan.display(), told(&passport)))?,
                Err(why) => {
                    log::error!("{why}");
                    broken = true;
                }
            }
        }
        if broken { Err(Failure::new(Exit::Data, "")) } else { Ok(()) }
    }
}

/// A passport for people.
fn told(passport: &Passport) -> String {
    let key = &passport.key;
    let mut text = format!(
        "  model {} ({}), network {}\n  by {} in {:.1} s ({})\n  on {}, for compute capability {}",
        key.model,
        key.precision,
        key.network,
        key.tensorrt,
        passport.built_in_s,
        passport.built_by,
        key.device,
        capabilities(&key.capabilities),
    );
    if let Some(core) = key.dla_core {
        let _ = write!(text, ", DLA {core}");
    }
    let _ = write!(text, "\n  batches of 1 to {}, workspace {} MiB", key.max_batch, key.workspace_mib);
    if let Some(level) = key.level {
        let _ = write!(text, ", optimization level {level}");
    }
    let _ = write!(
        text,
        "\n  {} bytes of {} layers, SHA-256 {}",
        passport.bytes, passport.layers, passport.sha256
    );
    text.push_str(match &passport.golden {
        Some(_) => "\n  with its answers to the golden pictures",
        None => "\n  without golden answers: it was built elsewhere",
    });
    for tensor in &passport.tensors {
        let way = if tensor.input { "in " } else { "out" };
        let _ = write!(text, "\n  {way} {} {} {:?}", tensor.name, tensor.element, tensor.shape);
    }
    text
}

#[cfg(not(feature = "tensorrt"))]
mod tensorrt {
    use super::{Build, Verify};
    use crate::cli::{Exit, Failure};

    fn missing() -> Failure {
        let message = "this ocelli was built without TensorRT; build it with --features tensorrt";
        Failure::new(Exit::Unavailable, message)
    }

    pub(super) fn build(_: &Build) -> Result<(), Failure> {
        Err(missing())
    }

    pub(super) fn verify(_: &Verify) -> Result<(), Failure> {
        Err(missing())
    }
}

#[cfg(feature = "tensorrt")]
pub(super) mod tensorrt {
    use super::{Build, Verify, Which, told};
    use crate::cli::{Exit, Failure, VERSION, run, say};
    use ocelli::board::{BackendSpec, Board};
    use ocelli::infer::InferError;
    use ocelli::infer::tensorrt::builder::{self, Request, Target};
    use ocelli::infer::tensorrt::cuda::Device;
    use ocelli::infer::tensorrt::golden;
    use ocelli::infer::tensorrt::library::Library;
    use ocelli::infer::tensorrt::signature::Tensor;
    use ocelli::infer::tensorrt::{Progress, Step};
    use ocelli::model::Model;
    use std::path::PathBuf;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    /// What a command works on.
    struct Work {
        board: Board,
        library: Library,
        /// What is built for each model.
        requests: Vec<Request>,
        folder: PathBuf,
        /// The plans' device, where it is here.
        device: Option<Device>,
    }

    impl Work {
        fn new(which: &Which) -> Result<Self, Failure> {
            let board = Board::load(&which.board)?;
            let &BackendSpec::TensorRt { device: number, ref engine_cache, contexts, ref dla, .. } =
                &board.accelerator.backend
            else {
                let message =
                    format!("{}: its accelerator is not TensorRT: it needs no plans", which.board.display());
                return Err(Failure::new(Exit::Config, message));
            };
            if let Some(id) = &which.model
                && !board.models.iter().any(|model| model.id == *id)
            {
                let known: Vec<_> = board.models.iter().map(|model| model.id.as_str()).collect();
                let message = format!("--model {id}: the board has {}", known.join(", "));
                return Err(Failure::new(Exit::Usage, message));
            }
            let library = Library::open().map_err(refused)?;
            let mut opened = None;
            let target = if which.capabilities.is_empty() {
                let device = library.device(number).map_err(|why| {
                    let other =
                        if library.version().rtx { "; --for builds for devices elsewhere" } else { "" };
                    Failure::new(
                        Exit::Unavailable,
                        format!("no plan can be built for a device here: {why}{other}"),
                    )
                })?;
                opened = Some(Device::open(number).map_err(refused)?);
                Target::Here { device: device.name, capability: device.capability }
            } else if library.version().rtx {
                let mut capabilities = which.capabilities.clone();
                capabilities.sort_unstable();
                capabilities.dedup();
                for &capability in &capabilities {
                    library.serves(capability).map_err(refused)?;
                }
                Target::Capabilities(capabilities)
            } else {
                let message = format!("--for: {} builds for the device here only", library.version());
                return Err(Failure::new(Exit::Usage, message));
            };
            let request = Request {
                workspace_mib: which.workspace_mib,
                level: which.level,
                ..Request::of_board(target, board.accelerator.max_batch, contexts)
            };
            let requests = match which.dla {
                Some(core) => vec![request.on_dla(core)],
                None => request.with_dlas(dla),
            };
            let folder = engine_cache.clone();
            run::verify(&board)?;
            Ok(Self { board, library, requests, folder, device: opened })
        }

        /// What plans there are to be.
        fn plans<'a>(&'a self, which: &'a Which) -> impl Iterator<Item = (&'a Model, &'a Request)> {
            let meant = |model: &&Model| which.model.as_ref().is_none_or(|id| *id == model.id);
            let models = self.board.models.iter().filter(meant);
            models.flat_map(|model| self.requests.iter().map(move |request| (model, request)))
        }
    }

    fn refused(error: InferError) -> Failure {
        run::refused(error, Exit::CantCreate)
    }

    pub(super) fn build(build: &Build) -> Result<(), Failure> {
        let work = Work::new(&build.which)?;
        for (model, request) in work.plans(&build.which) {
            let id = &model.id;
            if !build.rebuild {
                let found = builder::find(&work.library, model, request, &work.folder);
                if let Ok((path, passport)) = found
                    && passport.plan(&path).is_ok()
                {
                    log::info!("{id}: {} is here already", path.display());
                    continue;
                }
            }
            log::info!(
                "{id}: building with {}, {} ({})",
                work.library.version(),
                model.file.display(),
                model.precision
            );
            let progress = Progress::new(announce(id.clone()));
            let built = builder::build(
                &work.library,
                work.device.as_ref(),
                model,
                request,
                &work.folder,
                &format!("ocelli {VERSION}"),
                &progress,
            );
            let (path, passport) = built.map_err(refused)?;
            say(&format!("{}\n{}", path.display(), told(&passport)))?;
        }
        Ok(())
    }

    /// Logs how far a build is, once in two seconds at most.
    pub(in crate::cli) fn announce(id: String) -> impl Fn(Step) + Send + Sync {
        let last = Mutex::new(Instant::now());
        move |step| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() < Duration::from_secs(2) {
                return;
            }
            *last = Instant::now();
            let left = step.left.map_or(String::new(), |left| format!(", about {} s left", left.as_secs()));
            log::info!(
                "{id}: {:.0} % after {} s{left} ({})",
                step.done * 100.0,
                step.elapsed.as_secs(),
                step.phase
            );
        }
    }

    pub(super) fn verify(verify: &Verify) -> Result<(), Failure> {
        let work = Work::new(&verify.which)?;
        let mut bad = false;
        for (model, request) in work.plans(&verify.which) {
            match one(&work, model, request) {
                Ok(line) => say(&line)?,
                Err(why) => {
                    log::error!("model {}: {why}", model.id);
                    bad = true;
                }
            }
        }
        if bad {
            return Err(Failure::new(
                Exit::Data,
                "not all plans can be used; \"ocelli engine build\" builds them",
            ));
        }
        Ok(())
    }

    /// Finds a model's plan, reads it whole, and, where its device is here, loads it and asks for its golden answers.
    fn one(work: &Work, model: &Model, request: &Request) -> Result<String, String> {
        let (path, passport) = builder::find(&work.library, model, request, &work.folder)?;
        let plan = passport.plan(&path)?;
        let Some(device) = &work.device else {
            return Ok(format!("{}: whole, not loaded: it is for devices elsewhere", path.display()));
        };
        device.bind().map_err(|why| why.to_string())?;
        let engine = work.library.load(&plan, request.dla_core)?;
        let mut found: Vec<Tensor> = engine.tensors()?.into_iter().map(Into::into).collect();
        let mut expected = passport.tensors.clone();
        let by_name = |a: &Tensor, b: &Tensor| a.name.cmp(&b.name);
        found.sort_by(by_name);
        expected.sort_by(by_name);
        if found != expected {
            return Err(format!(
                "{}: it has the tensors {found:?}, its passport says {expected:?}",
                path.display()
            ));
        }
        let answers = match &passport.golden {
            Some(kept) => {
                golden::verify(device, &work.library, model, &plan, &passport.key, kept)?;
                "and answers as it did"
            }
            None => {
                "but has no golden answers to hold it to: \"ocelli engine build --rebuild\" here keeps them"
            }
        };
        Ok(format!("{}: whole, loads, {answers}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::capability;

    #[test]
    fn capabilities_are_two_numbers() {
        assert_eq!(capability("8.9"), Ok(89));
        assert_eq!(capability("12.0"), Ok(120));
        for wrong in ["", "8", "8.", ".9", "0.1", "8.10", "8.9.1", "-8.9", "300.0", "sm_89"] {
            assert!(capability(wrong).is_err(), "{wrong}");
        }
    }
}
