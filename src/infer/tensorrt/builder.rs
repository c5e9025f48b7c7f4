//! From a model to a plan with its passport.

use super::compiled::Compiled;
use super::cuda::Device;
use super::library::{BuildOptions, Element, Extent, IoTensor, Library};
use super::passport::{ELSEWHERE, Key, Passport, WORKSPACE_MIB, sha256, write};
use super::signature::{self, Tensor};
use super::{Progress, golden, passport};
use crate::infer::InferError;
use crate::model::Model;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a plan is to be built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The device in this machine of this name and compute capability.
    Here {
        /// The device's name.
        device: String,
        /// Major version * 10 + minor.
        capability: i32,
    },
    /// Devices of these compute capabilities, wherever they are. Only TensorRT-RTX can.
    Capabilities(Vec<i32>),
}

/// How a plan is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What for.
    pub target: Target,
    /// Largest batch.
    pub max_batch: u16,
    /// Device memory that layers may use beside weights and activations.
    pub workspace_mib: u64,
    /// The builder's optimization level, 0 to 5; its own choice without.
    pub level: Option<u8>,
    /// The DLA to build for.
    pub dla_core: Option<u8>,
    /// Execution contexts of every batch size that are to be there at once.
    pub contexts: u16,
}

impl Request {
    /// What a board asks for where nobody chooses otherwise.
    #[must_use]
    pub fn of_board(target: Target, max_batch: u16, contexts: u16) -> Self {
        let workspace_mib = WORKSPACE_MIB;
        Self { target, max_batch, workspace_mib, level: None, dla_core: None, contexts }
    }

    /// The same for a DLA, which works on one batch at a time.
    #[must_use]
    pub fn on_dla(&self, core: u8) -> Self {
        Self { dla_core: Some(core), contexts: 1, ..self.clone() }
    }

    /// This one, and the same for each of these DLAs.
    #[must_use]
    pub fn with_dlas(&self, cores: &[u8]) -> Vec<Self> {
        let on_dlas = cores.iter().map(|&core| self.on_dla(core));
        std::iter::once(self.clone()).chain(on_dlas).collect()
    }

    /// Optimization profiles that the plan has to have. On a DLA each is for one batch size alone.
    fn profiles(&self, library: &Library) -> u32 {
        let each = u32::from(self.max_batch) * u32::from(self.contexts);
        if self.dla_core.is_none() && library.version().shares_profiles() { 1 } else { each }
    }

    /// The key of `model`'s plan.
    #[must_use]
    pub fn key(&self, library: &Library, model: &Model) -> Key {
        let (device, capabilities) = match &self.target {
            Target::Here { device, capability } => (device.clone(), vec![*capability]),
            Target::Capabilities(capabilities) => (ELSEWHERE.to_owned(), capabilities.clone()),
        };
        Key {
            model: model.id.clone(),
            network: model.sha256.clone(),
            precision: model.precision.clone(),
            tensorrt: library.version().to_string(),
            device,
            capabilities,
            dla_core: self.dla_core,
            max_batch: self.max_batch,
            workspace_mib: self.workspace_mib,
            level: self.level,
            profiles: self.profiles(library),
        }
    }
}

impl From<IoTensor> for Tensor {
    fn from(tensor: IoTensor) -> Self {
        let element = match tensor.element {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::I8 => "i8",
            Element::U8 => "u8",
            Element::I32 => "i32",
            Element::Bool => "bool",
            _ => "other",
        };
        Self { name: tensor.name, input: tensor.input, element: element.to_owned(), shape: tensor.shape }
    }
}

/// Builds `model`'s plan and keeps it in `folder` with its passport, and, where `device` is what it is for, with what it
/// answers and compiles there. What was learned about layers' times is kept too, and shortens later builds.
///
/// # Errors
/// The network can't be read, is not as its manifest says, or can't be built; or the plan can't be kept.
pub fn build(
    library: &Library,
    device: Option<&Device>,
    model: &Model,
    request: &Request,
    folder: &Path,
    built_by: &str,
    progress: &Progress,
) -> Result<(PathBuf, Passport), InferError> {
    let bad = |what: String| InferError::Model { model: model.id.clone(), file: model.file.clone(), what };
    let begun = Instant::now();
    let onnx = fs::read(&model.file).map_err(|why| bad(format!("can't read the file: {why}")))?;
    if onnx.is_empty() {
        return Err(bad("the file is empty (0 bytes); fetch it again".to_owned()));
    }
    if sha256(&onnx) != model.sha256 {
        return Err(bad("it is not the file whose SHA-256 the manifest has".to_owned()));
    }
    if let Some(why) = useless_on_dla(model, request) {
        log::warn!("model {}: {why}", model.id);
    }
    let network = library.parse(&onnx, &model.file).map_err(&bad)?;
    let tensors: Vec<Tensor> = network.tensors().map_err(&bad)?.into_iter().map(Tensor::from).collect();
    let fixed = signature::check(&tensors, model).map_err(&bad)?;
    if let Some(size) = fixed.filter(|&size| size > request.max_batch) {
        return Err(bad(format!(
            "its batch size is fixed to {size}, more than the board's max_batch {}; raise max_batch or export the \
             model with a dynamic first dimension",
            request.max_batch
        )));
    }
    let key = request.key(library, model);
    let learned = folder.join(format!(
        "timing-{}.cache",
        &sha256(format!("{} {}", key.tensorrt, key.device).as_bytes())[..12]
    ));
    let capabilities = if library.version().rtx { key.capabilities.clone() } else { Vec::new() };
    let options =
        options(model, request, key.profiles, capabilities, &tensors, fs::read(&learned).unwrap_or_default());
    let built = network.build(&options, progress).map_err(&bad)?;
    let path = folder.join(key.file());
    let seconds = begun.elapsed().as_secs_f64();
    let mut passport = Passport::new(key, &built.plan, tensors, built.layers, seconds, built_by.to_owned());
    let compiled = Compiled::of(&path);
    let ask = |device| {
        golden::ask(device, library, model, &built.plan, request.max_batch, request.dla_core, &compiled)
    };
    passport.golden = device.map(ask).transpose().map_err(&bad)?;
    passport.keep(&path, &built.plan).map_err(InferError::System)?;
    if !built.timing_cache.is_empty() && built.timing_cache != options.timing_cache {
        write(&learned, &built.timing_cache).map_err(InferError::System)?;
    }
    Ok((path, passport))
}

/// Why a plan for a DLA is of no use: it can be built, as the GPU does what a DLA can't, but nothing is left for the DLA.
fn useless_on_dla(model: &Model, request: &Request) -> Option<String> {
    let core = request.dla_core.filter(|_| model.precision == "fp32")?;
    Some(format!(
        "it is fp32, and DLA {core} computes in fp16 and int8 only: the GPU will do all of it, and what is given to the \
         DLA waits for the GPU too; name the model's fp16 or int8 variant, or take {core} out of the board's dla"
    ))
}

fn options(
    model: &Model,
    request: &Request,
    profiles: u32,
    capabilities: Vec<i32>,
    tensors: &[Tensor],
    timing_cache: Vec<u8>,
) -> BuildOptions {
    let [a, b, c] = signature::dimensions(&model.input);
    let open = tensors.iter().any(|tensor| tensor.input && tensor.shape.contains(&-1));
    let fixed = tensors.iter().find(|tensor| tensor.input).and_then(|input| input.shape.first()).copied();
    let batch = |size: i64| vec![fixed.filter(|&size| size > 0).unwrap_or(size), a, b, c];
    let most = i64::from(request.max_batch);
    let profiles = if open { profiles } else { 0 };
    let extent = |profile: u32| {
        // All alike, so that layers are timed once for all of them; a DLA takes no ranges.
        let (least, most) = match request.dla_core {
            None => (1, most),
            Some(_) => (i64::from(profile) + 1, i64::from(profile) + 1),
        };
        Extent {
            profile,
            tensor: model.input.tensor.clone(),
            least: batch(least),
            best: batch(most),
            most: batch(most),
        }
    };
    BuildOptions {
        profiles,
        extents: (0..profiles).map(extent).collect(),
        workspace: usize::try_from(request.workspace_mib << 20).unwrap_or(usize::MAX),
        level: request.level.map_or(-1, i32::from),
        half: model.precision == "fp16",
        quantized: model.precision == "int8",
        dla_core: request.dla_core.map_or(-1, i32::from),
        capabilities,
        timing_cache,
    }
}

/// Holds a kept plan to what it has to be, without loading it.
///
/// # Errors
/// There is none for this, or it is broken, or the network is not as its manifest says.
pub fn find(
    library: &Library,
    model: &Model,
    request: &Request,
    folder: &Path,
) -> Result<(PathBuf, Passport), String> {
    let found = passport::find(folder, &request.key(library, model))?;
    signature::check(&found.1.tensors, model)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_dla_each_profile_is_for_one_batch_size() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/light_resnet50.toml");
        let model = Model::load(&manifest, "it").unwrap();
        let image = Tensor {
            name: model.input.tensor.clone(),
            input: true,
            element: "f32".into(),
            shape: vec![-1, 3, 224, 224],
        };
        let gpu = Request::of_board(Target::Here { device: "one".into(), capability: 87 }, 4, 2);
        let ranges = |request: &Request, profiles| {
            let options =
                options(&model, request, profiles, Vec::new(), std::slice::from_ref(&image), Vec::new());
            options.extents.iter().map(|extent| (extent.least[0], extent.most[0])).collect::<Vec<_>>()
        };
        assert_eq!(ranges(&gpu, 1), [(1, 4)]);
        assert_eq!(ranges(&gpu.on_dla(1), 4), [(1, 1), (2, 2), (3, 3), (4, 4)]);
        let warned = |precision: &str, request: &Request| {
            let model = Model { precision: precision.to_owned(), ..model.clone() };
            useless_on_dla(&model, request)
        };
        assert!(
            warned("fp32", &gpu.on_dla(1))
                .is_some_and(|why| why.contains("DLA 1 computes in fp16 and int8 only"))
        );
        assert_eq!(
            (warned("fp16", &gpu.on_dla(1)), warned("int8", &gpu.on_dla(1)), warned("fp32", &gpu)),
            (None, None, None)
        );
        let cores: Vec<_> = gpu.with_dlas(&[0, 1]).iter().map(|request| request.dla_core).collect();
        assert_eq!(cores, [None, Some(0), Some(1)]);
    }
}
