//! The backend: the suite that all backends pass, and what only it can be put to.

use super::build::{fails, folder, inside, passes, stub, tell};
use super::common::running;
use super::conformance::{MAX_BATCH, PATIENCE, Rig, a_fault_surfaces_and_passes, rig, works};
use super::onnx::{EDGE, manifest};
use ocelli::board::Board;
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::InferError;
use ocelli::infer::tensorrt::builder::{Request, Target};
use ocelli::infer::tensorrt::compiled::Compiled;
use ocelli::infer::tensorrt::cuda::Device;
use ocelli::infer::tensorrt::library::{Library, compiled_version};
use ocelli::infer::tensorrt::passport::Passport;
use ocelli::infer::tensorrt::signature::Tensor;
use ocelli::infer::tensorrt::{Settings, TensorRt, golden};
use ocelli::job::Batch;
use ocelli::model::{Element, Model};
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::stats::{Copies, CopyStage};
use ocelli::stream::{ModelId, StreamId};
use sha2::Digest;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

// --- Talking to the stand-ins.

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn symbol(name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: the null handle is the whole process.
    let symbol = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?}");
    symbol
}

/// From now on `call` fails at its `first` time and every so many after that.
fn fail(call: &str, first: c_int, every: c_int) {
    type Fail = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
    let call = CString::new(call).unwrap();
    // SAFETY: the stand-in's function has this type.
    unsafe { std::mem::transmute::<*mut c_void, Fail>(symbol("standin_fail"))(call.as_ptr(), first, every) };
}

/// How often `call` was called.
fn calls(call: &str) -> c_int {
    type Calls = unsafe extern "C" fn(*const c_char) -> c_int;
    let call = CString::new(call).unwrap();
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*mut c_void, Calls>(symbol("standin_calls"))(call.as_ptr()) }
}

/// Stops a stream, or lets it go on.
fn hold(stream: c_uint, held: bool) {
    type Hold = unsafe extern "C" fn(c_uint, c_int) -> c_int;
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*mut c_void, Hold>(symbol("standin_hold"))(stream, c_int::from(held)) };
}

fn lose_device() {
    type Lose = unsafe extern "C" fn() -> c_int;
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*mut c_void, Lose>(symbol("standin_lose"))() };
}

/// From now on streams end with this number.
fn give(status: c_int) {
    type Give = unsafe extern "C" fn(c_int) -> c_int;
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*mut c_void, Give>(symbol("standin_give"))(status) };
}

/// Device memory of its own: frames are uploaded.
fn is_discrete() -> bool {
    std::env::var_os("STANDIN_DEVICE").is_some()
}

/// The stream that lane number `lane` works on.
fn compute(lane: c_uint) -> c_uint {
    if is_discrete() { 2 * lane } else { lane }
}

// --- Models that the stand-in can run.

/// Models with their plans.
struct Bench {
    folder: tempfile::TempDir,
    models: Vec<Model>,
    lanes: u16,
    dla: Vec<u8>,
}

impl Bench {
    /// A toy of this name, whose input and output hold these; a `batch` of -1 is any.
    fn add(&mut self, id: &str, element: Element, output: &str, batch: i64) -> Result<(), String> {
        let mut model = manifest(Path::new("toy.onnx"));
        (model.id, model.input.element) = (id.to_owned(), element);
        let folder = self.folder.path().to_owned();
        self.keep(&folder, model, batch, output)
    }

    /// Makes a plan for a toy and keeps it, with what it answers.
    fn keep(&mut self, folder: &Path, model: Model, batch: i64, output: &str) -> Result<(), String> {
        let kind = match model.input.element {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::U8 => "u8",
            Element::I8 => "i8",
        };
        // A second output that nobody names, before the one that counts.
        let plan = format!(
            "standin 1000\nin image {kind} 4 {batch} {EDGE} {EDGE} 3\nout more f32 2 {batch} 7\nout brightest {output} 2 \
             {batch} 3\n"
        );
        let tensor = |name: &str, input, element: &str, shape: &[i64]| Tensor {
            name: name.into(),
            input,
            element: element.into(),
            shape: shape.to_vec(),
        };
        let edge = i64::from(EDGE);
        let tensors = vec![
            tensor("image", true, kind, &[batch, edge, edge, 3]),
            tensor("more", false, "f32", &[batch, 7]),
            tensor("brightest", false, output, &[batch, 3]),
        ];
        let library = Library::open().map_err(|why| why.to_string())?;
        let device = Device::open(0).map_err(|why| why.to_string())?;
        let target = Target::Here { device: "Stand-in".into(), capability: 86 };
        for request in Request::of_board(target, MAX_BATCH, self.lanes).with_dlas(&self.dla) {
            let core = request.dla_core;
            let plan = core.map_or_else(|| plan.clone(), |core| format!("{plan}dla {core}\n"));
            let key = request.key(&library, &model);
            let path = folder.join(key.file());
            let mut passport =
                Passport::new(key, plan.as_bytes(), tensors.clone(), 1, 0.0, "the test".into());
            let compiled = Compiled::of(&path);
            let golden = golden::ask(&device, &library, &model, plan.as_bytes(), MAX_BATCH, core, &compiled)?;
            passport.golden = Some(golden);
            passport.keep(&path, plan.as_bytes())?;
        }
        self.models.push(model);
        Ok(())
    }

    fn new(lanes: u16) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), models: Vec::new(), lanes, dla: Vec::new() }
    }

    /// One toy.
    fn toy(lanes: u16) -> Result<Self, String> {
        let mut bench = Self::new(lanes);
        bench.add("toy", Element::F32, "f32", -1)?;
        Ok(bench)
    }

    fn open(&self, copies: &Arc<Copies>, waker: &Waker) -> Result<TensorRt, InferError> {
        let settings = Settings {
            device: 0,
            lanes: self.lanes,
            dla: &self.dla,
            max_batch: MAX_BATCH,
            cache: self.folder.path(),
            frame_bytes: 4096,
            build: None,
        };
        TensorRt::open(&settings, &self.models, copies, waker)
    }

    fn rig(&self) -> Rig<FrameRef> {
        let rig = rig(|waker| Box::new(self.open(&Arc::default(), waker).unwrap()));
        rig.waker.attach();
        rig
    }

    /// Changes a model's kept passports.
    fn forge(&self, id: &str, change: impl Fn(&mut Passport)) {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let plans = files
            .filter(|path| path.extension().is_some_and(|end| end == "plan"))
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(id));
        for plan in plans.collect::<Vec<_>>() {
            let mut passport = Passport::load(&plan).unwrap();
            change(&mut passport);
            passport.keep(&plan, &std::fs::read(&plan).unwrap()).unwrap();
        }
    }
}

// --- The tests.

/// Devices: with the host's memory, with their own, with a driver that uploads frames together, and those that can't have
/// the host's registered.
const KINDS: [&[(&str, &str)]; 5] = [
    &[],
    &[("STANDIN_DEVICE", "discrete")],
    &[("STANDIN_DEVICE", "discrete"), ("STANDIN_DRIVER", "new")],
    &[("STANDIN_REGISTER", "no")],
    &[("STANDIN_DEVICE", "discrete"), ("STANDIN_REGISTER", "no")],
];

fn on_all_kinds(test: &str, work: impl FnOnce() -> Result<(), String>) {
    if inside() {
        return tell(work());
    }
    for kind in KINDS {
        passes(test, kind);
    }
}

/// The suite, where `failing` fails for every second batch.
fn conform(failing: &str) -> Result<(), String> {
    for lanes in [1, 2] {
        let bench = Bench::toy(lanes)?;
        works(bench.rig());
        let rig = bench.rig();
        fail(failing, 2, 2);
        a_fault_surfaces_and_passes(rig);
        fail("", 1, 1);
    }
    Ok(())
}

#[test]
fn conforms_as_all_do() {
    on_all_kinds("backend::conforms_as_all_do", || conform("cuGraphLaunch"));
}

#[test]
fn conforms_where_work_can_not_be_recorded() {
    let test = "backend::conforms_where_work_can_not_be_recorded";
    if inside() {
        let conforms = conform("enqueueV3");
        let not_to_be_tried = std::env::var("STANDIN_FAIL").is_ok_and(|call| call == "isStreamCapturable");
        assert_eq!(calls("cuStreamBeginCapture_v2") == 0, not_to_be_tried);
        return tell(conforms);
    }
    let mut calls = vec!["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"];
    calls.extend(compiled_version().rtx.then_some("isStreamCapturable"));
    for call in calls {
        for kind in &KINDS[..2] {
            passes(test, &[*kind, &[("STANDIN_FAIL", call)]].concat());
        }
    }
}

#[test]
fn what_fails_while_it_is_recorded_leaves_nothing_behind() {
    let test = "backend::what_fails_while_it_is_recorded_leaves_nothing_behind";
    if inside() {
        return tell(Bench::toy(1).map(|bench| works(bench.rig())));
    }
    // The first time that each of them is called is without recording.
    for call in ["cuLaunchKernel:2", "enqueueV3:2", "cuMemcpyDtoHAsync_v2:2"] {
        passes(test, &[("STANDIN_FAIL", call)]);
    }
}

/// What TensorRT-RTX compiles is compiled when the plan is built here, else at the first start, before work is recorded, and
/// kept for the next; what is broken is compiled anew.
#[test]
fn kernels_are_compiled_once_and_kept() {
    on_all_kinds("backend::kernels_are_compiled_once_and_kept", || {
        let bench = Bench::toy(2)?;
        let kept = || {
            let files = std::fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|end| end == "compiled")).collect::<Vec<_>>()
        };
        if !compiled_version().rtx {
            works(bench.rig());
            assert!(kept().is_empty());
            return Ok(());
        }
        let compiled_by_a_start = || {
            let before = calls("compile");
            works(bench.rig());
            calls("compile") - before
        };
        let [file] = kept().try_into().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(compiled_by_a_start(), 0);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(compiled_by_a_start(), c_int::from(MAX_BATCH));
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(compiled_by_a_start(), 0);
        std::fs::write(&file, "no such thing").unwrap();
        assert_eq!(compiled_by_a_start(), c_int::from(MAX_BATCH));
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        Ok(())
    });
}

/// A driver may put off until the first call what makes it: after the start no call is a first one. Memory to copy frames to
/// is there only where some can't be registered.
#[test]
fn a_batch_calls_nothing_that_the_start_has_not() {
    on_all_kinds("backend::a_batch_calls_nothing_that_the_start_has_not", || {
        let bench = Bench::toy(1)?;
        let waker = Waker::new();
        let per_batch = [
            "cuMemcpyHtoDAsync_v2",
            "cuMemcpyBatchAsync",
            "cuEventRecord",
            "cuStreamWaitEvent",
            "cuGraphLaunch",
            "cuStreamAddCallback",
        ];
        let unopened = per_batch.map(calls);
        let backend = bench.open(&Arc::default(), &waker).map_err(|why| why.to_string())?;
        let opened = per_batch.map(calls);
        let pinned = calls("cuMemHostAlloc");
        let mut rig = rig(|_| Box::new(backend));
        let staged = calls("cuMemHostAlloc") - pinned;
        assert_eq!(staged, c_int::from(std::env::var_os("STANDIN_REGISTER").is_some()));
        rig.waker = waker;
        rig.waker.attach();
        rig.submit(&[1, 2, 3]);
        assert_eq!(rig.complete().fault, None);
        for ((call, unopened), opened) in per_batch.into_iter().zip(unopened).zip(opened) {
            assert!(calls(call) == opened || opened > unopened, "{call}");
        }
        assert_eq!(calls("cuMemHostAlloc") - pinned, staged);
        Ok(())
    });
}

#[test]
fn lanes_may_finish_in_any_order() {
    on_all_kinds("backend::lanes_may_finish_in_any_order", || {
        let mut rig = Bench::toy(2)?.rig();
        hold(compute(0), true);
        rig.submit(&[1]);
        rig.submit(&[2]);
        // The second lane's batch is done, and waits for the first's.
        rig.waker.wait_until(Some(clock::now() + PATIENCE));
        assert!(rig.backend.poll(clock::now() + PATIENCE).is_none());
        hold(compute(0), false);
        let first = rig.complete();
        let second = rig.complete();
        assert_eq!((first.outputs[0].row(0), second.outputs[0].row(0)), (&[1.0; 3][..], &[2.0; 3][..]));
        assert!(first.completed >= second.completed);
        Ok(())
    });
}

/// DLAs work beside the GPU, each by its own plan, and take the batches that find it at work.
#[test]
fn dlas_take_what_finds_the_gpu_at_work() {
    on_all_kinds("backend::dlas_take_what_finds_the_gpu_at_work", || {
        let mut bench = Bench::new(1);
        bench.dla = vec![0, 1];
        let added = bench.add("toy", Element::F32, "f32", -1);
        if compiled_version().rtx {
            assert!(added.unwrap_err().contains("there is no DLA number 0: TensorRT-RTX"));
            return Ok(());
        }
        added?;
        works(bench.rig());
        let mut rig = bench.rig();
        assert_eq!(rig.backend.capabilities().lanes, ["gpu", "dla 0", "dla 1"]);
        let on = || ["dla 0", "dla 1"].map(calls);
        let before = on();
        for mark in 1..=6 {
            rig.submit(&[mark, mark + 1]);
            assert_eq!(rig.complete().outputs[0].row(1), [f32::from(mark + 1); 3]);
        }
        assert_eq!(on(), before, "the GPU alone was enough");
        // A slow one holds up nobody's work, though results come in order.
        hold(compute(1), true);
        (1..=3).for_each(|mark| rig.submit(&[mark]));
        while on()[1] == before[1] {
            std::thread::yield_now();
        }
        hold(compute(1), false);
        for mark in 1..=3u8 {
            assert_eq!(rig.complete().outputs[0].row(0), [f32::from(mark); 3]);
        }
        drop(rig);
        // Every plan is held to its own answers.
        let spoil = |passport: &mut Passport| {
            if passport.key.dla_core == Some(1) {
                passport.golden.as_mut().unwrap().answers[0][0][0] += 50.0;
            }
        };
        bench.forge("toy", spoil);
        let why = bench.open(&Arc::default(), &Waker::new()).unwrap_err().to_string();
        assert!(why.contains("does not answer as when its plan was built"), "{why}");
        bench.dla = vec![2];
        let why = bench.add("other", Element::F32, "f32", -1).unwrap_err();
        assert!(why.contains("there is no DLA number 2: TensorRT 11.4"), "{why}");
        Ok(())
    });
}

#[test]
fn a_batch_waits_for_its_frames_and_its_end_for_the_batch() {
    let test = "backend::a_batch_waits_for_its_frames_and_its_end_for_the_batch";
    if !inside() {
        return passes(test, &[("STANDIN_DEVICE", "discrete")]);
    }
    tell(Bench::toy(1).map(|bench| {
        let mut rig = bench.rig();
        // Its frames are on their way for as long as the stream of uploads stands still.
        hold(compute(0) + 1, true);
        rig.submit(&[5]);
        assert!(rig.backend.poll(clock::now() + PATIENCE).is_none());
        hold(compute(0) + 1, false);
        assert_eq!(rig.complete().outputs[0].row(0), [5.0; 3]);
        // Who lets go of the backend waits until the device has.
        hold(compute(0) + 1, true);
        rig.submit(&[6]);
        let Rig { backend, alive, .. } = rig;
        let waits = calls("cuStreamSynchronize");
        let dropping = std::thread::spawn(move || drop(backend));
        while calls("cuStreamSynchronize") == waits && !dropping.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(alive(), 1);
        hold(compute(0) + 1, false);
        dropping.join().unwrap();
        assert_eq!(alive(), 0);
    }));
}

#[test]
fn every_type_of_elements_is_fed_and_read() {
    on_all_kinds("backend::every_type_of_elements_is_fed_and_read", || {
        let mut bench = Bench::new(1);
        for (id, element) in
            [("a", Element::F32), ("b", Element::F16), ("c", Element::U8), ("d", Element::I8)]
        {
            bench.add(id, element, "f32", -1)?;
            bench.add(&format!("{id}-half"), element, "f16", -1)?;
        }
        let mut rig = bench.rig();
        for model in 0..8 {
            let mut batch = rig.batch(&[3, 9, 27]);
            batch.model = ModelId(model);
            let now = rig.now();
            assert!(rig.backend.submit(now, batch).is_ok());
            let batch = rig.complete();
            assert_eq!(batch.fault, None);
            assert_eq!(batch.outputs[0].data[..9], [3., 3., 3., 9., 9., 9., 27., 27., 27.], "{model}");
        }
        Ok(())
    });
}

#[test]
fn a_fixed_batch_size_is_the_only_one() {
    on_all_kinds("backend::a_fixed_batch_size_is_the_only_one", || {
        let mut bench = Bench::new(1);
        bench.add("toy", Element::F32, "f32", 2)?;
        let before = calls("createExecutionContext");
        let mut rig = bench.rig();
        assert_eq!(rig.backend.capabilities().batch_sizes, [[2]]);
        // Its shapes are known: there is no profile to select, and no context but the lane's.
        let asked = ["setOptimizationProfileAsync", "setInputShape"].map(calls);
        assert_eq!((asked, calls("createExecutionContext") - before), ([0, 0], 1));
        let (now, batch) = (rig.now(), rig.batch(&[1]));
        assert!(rig.backend.submit(now, batch).is_err());
        rig.submit(&[1, 2]);
        assert_eq!(rig.complete().outputs[0].row(1), [2.0; 3]);
        Ok(())
    });
}

/// A frame of this size, all of one value, in memory that the backend's device sees if it can.
fn frame(rig: &Rig<FrameRef>, width: u32, height: u32, value: u8) -> FrameRef {
    let layout = ImageLayout::packed(PixelFormat::Rgb, width, height);
    let spec = ShareSpec { slots: 1, slot_bytes: layout.extent().unwrap() };
    let pool = Pool::read_by(rig.backend.reader(), &[spec], false).unwrap();
    let mut frame = pool.share(StreamId(0)).take().unwrap();
    frame.bytes_mut().fill(value);
    frame.freeze(layout).unwrap()
}

#[test]
fn a_frame_that_can_not_be_prepared_costs_only_itself() {
    on_all_kinds("backend::a_frame_that_can_not_be_prepared_costs_only_itself", || {
        let mut rig = Bench::toy(1)?.rig();
        let mut batch = rig.batch(&[1, 2, 3, 4]);
        // Wider than the kernels reckon with; and larger than a lane's room for frames, which only matters where it has
        // to be copied and nowhere else.
        batch.jobs[1].payload = frame(&rig, 70_000, 1, 9);
        batch.jobs[2].payload = frame(&rig, 100, 100, 8);
        let now = rig.now();
        assert!(rig.backend.submit(now, batch).is_ok());
        let batch = rig.complete();
        assert_eq!(batch.fault, None);
        let [first, wide, large, last] = [0, 1, 2, 3].map(|row| batch.outputs[0].row(row));
        assert_eq!((first, last), (&[1.0; 3][..], &[4.0; 3][..]));
        assert!(wide.iter().all(|value| value.is_nan()));
        if std::env::var_os("STANDIN_REGISTER").is_some() {
            assert!(large.iter().all(|value| value.is_nan()));
        } else {
            assert_eq!(large, [8.0; 3]);
        }
        Ok(())
    });
}

#[test]
fn copies_are_made_and_counted_only_where_frames_can_not_be_seen() {
    on_all_kinds("backend::copies_are_made_and_counted_only_where_frames_can_not_be_seen", || {
        let bench = Bench::toy(1)?;
        let copies: Arc<Copies> = Arc::default();
        let mut rig = rig(|waker| Box::new(bench.open(&copies, waker).unwrap()));
        rig.waker.attach();
        let uploads = || (calls("cuMemcpyHtoDAsync_v2"), calls("cuMemcpyBatchAsync"));
        let before = uploads();
        rig.submit(&[1, 2, 3]);
        assert_eq!(rig.complete().fault, None);
        let copied = if std::env::var_os("STANDIN_REGISTER").is_some() { 3 * 48 } else { 0 };
        assert_eq!(copies.bytes(CopyStage::Accelerator), copied);
        let is_new = std::env::var_os("STANDIN_DRIVER").is_some();
        let expected = match (is_discrete(), is_new) {
            (false, _) => (0, 0),
            (true, false) => (3, 0),
            (true, true) => (0, 1),
        };
        assert_eq!((uploads().0 - before.0, uploads().1 - before.1), expected);
        Ok(())
    });
}

/// Opens and runs some batches; a fault or a refusal hands the jobs back.
fn open_and_run(after: impl FnOnce(), batches: u8) -> Result<(), String> {
    let bench = Bench::toy(2)?;
    let waker = Waker::new();
    let backend = bench.open(&Arc::default(), &waker).map_err(|why| why.to_string())?;
    let mut rig = rig(|_| Box::new(backend));
    rig.waker = waker;
    rig.waker.attach();
    after();
    let mut faults = Vec::new();
    let mut note = |batch: &Batch<FrameRef>, mark: u8| {
        assert_eq!(batch.jobs.len(), 2);
        match &batch.fault {
            Some(fault) => faults.push(fault.as_str().to_owned()),
            None => assert_eq!(batch.outputs[0].row(1), [f32::from(mark + 1); 3]),
        }
    };
    for mark in 1..=batches {
        let (now, batch) = (rig.now(), rig.batch(&[mark, mark + 1]));
        match rig.backend.submit(now, batch) {
            Ok(()) => note(&rig.complete(), mark),
            Err(refused) => note(&refused, mark),
        }
    }
    drop(rig.backend);
    assert_eq!((rig.alive)(), 0, "all frames are let go");
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults: {}", faults.len(), faults.join("; "))) }
}

#[test]
fn every_call_that_fails_at_the_start_is_an_error() {
    let test = "backend::every_call_that_fails_at_the_start_is_an_error";
    if inside() {
        return tell(open_and_run(|| (), 3));
    }
    let says = ["told to fail", "TensorRT", "gives error 719", "no execution context"];
    let calls = [
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGetName",
        "cuDevicePrimaryCtxRetain",
        "cuDeviceGetAttribute",
        "cuCtxSetCurrent",
        "cuStreamCreateWithPriority",
        "cuStreamSynchronize",
        "cuStreamAddCallback",
        "cuMemAlloc_v2",
        "cuMemHostAlloc",
        "cuMemHostGetDevicePointer_v2",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuLaunchKernel",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuEventCreate",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuGraphLaunch",
        "createInferRuntime_INTERNAL",
        "deserializeCudaEngine",
        "createExecutionContext",
        "setOptimizationProfileAsync",
        "setInputShape",
        "setTensorAddress",
        "enqueueV3",
    ];
    let of_rtx = ["createRuntimeConfig", "createRuntimeCache", "setRuntimeCache"];
    let of_rtx = of_rtx.into_iter().filter(|_| compiled_version().rtx);
    let discrete = ("STANDIN_DEVICE", "discrete");
    for call in calls.into_iter().chain(of_rtx) {
        fails(test, &[discrete, ("STANDIN_FAIL", call)], &says);
    }
    // Once, deep within: an error, or nothing that came that far.
    for (call, times) in [
        ("cuMemAlloc_v2", 2..10),
        ("cuMemHostAlloc", 2..8),
        ("cuStreamCreateWithPriority", 2..6),
        ("createExecutionContext", 2..8),
        ("cuStreamSynchronize", 2..9),
    ] {
        for time in times {
            fails(test, &[discrete, ("STANDIN_FAIL", &format!("{call}:{time}"))], &says);
        }
    }
    // Only registering can be done without.
    passes(test, &[discrete, ("STANDIN_FAIL", "cuMemHostRegister_v2")]);
}

#[test]
fn a_stub_is_not_taken_for_the_driver() {
    let test = "backend::a_stub_is_not_taken_for_the_driver";
    if inside() {
        return tell(Bench::toy(1).map(|_| ()));
    }
    let stub = stub();
    let search = format!("{}:{}", stub.path().display(), folder().display());
    fails(test, &[("LD_LIBRARY_PATH", &search)], &["libcuda.so is another library", "LD_LIBRARY_PATH"]);
}

#[test]
fn every_call_that_fails_later_is_one_batchs_fault() {
    let test = "backend::every_call_that_fails_later_is_one_batchs_fault";
    if inside() {
        let call = std::env::var("CALL").unwrap();
        return tell(open_and_run(|| fail(&call, 2, 1000), 6));
    }
    let discrete = ("STANDIN_DEVICE", "discrete");
    let calls = [
        "cuGraphLaunch",
        "cuStreamAddCallback",
        "cuMemcpyHtoDAsync_v2",
        "cuEventRecord",
        "cuStreamWaitEvent",
    ];
    for call in calls {
        fails(test, &[discrete, ("CALL", call)], &["1 faults: CUDA"]);
    }
    // What uploads frames together is done without.
    passes(test, &[discrete, ("STANDIN_DRIVER", "new"), ("CALL", "cuMemcpyBatchAsync")]);
    // Where work is not recorded, there are more.
    let unrecorded = ("STANDIN_FAIL", "cuStreamBeginCapture_v2");
    for call in ["cuLaunchKernel", "enqueueV3", "cuMemcpyDtoHAsync_v2"] {
        fails(test, &[discrete, unrecorded, ("CALL", call)], &["1 faults: CUDA", "1 faults: TensorRT"]);
    }
}

#[test]
fn a_device_that_is_lost_fails_all_and_is_not_opened_again() {
    on_all_kinds("backend::a_device_that_is_lost_fails_all_and_is_not_opened_again", || {
        let bench = Bench::toy(2)?;
        let mut rig = bench.rig();
        hold(compute(0), true);
        hold(compute(1), true);
        rig.submit(&[1, 2]);
        rig.submit(&[3]);
        lose_device();
        hold(compute(0), false);
        hold(compute(1), false);
        for jobs in [2, 1] {
            let batch = rig.complete();
            assert_eq!(batch.jobs.len(), jobs);
            assert!(batch.fault.unwrap().as_str().contains("the device failed"));
        }
        let (now, batch) = (rig.now(), rig.batch(&[4]));
        let Err(refused) = rig.backend.submit(now, batch) else { panic!("taken") };
        assert!(refused.fault.unwrap().as_str().contains("needs a new process"));
        let again = bench.open(&Arc::default(), &Waker::new()).unwrap_err().to_string();
        assert!(again.contains("719") || again.contains("told to fail"), "{again}");
        Ok(())
    });
}

#[test]
fn an_error_that_only_a_newer_driver_has_is_told() {
    on_all_kinds("backend::an_error_that_only_a_newer_driver_has_is_told", || {
        for (number, says) in [(918, "error 918, refused by the stand-in"), (4321, "error 4321, no words")] {
            let mut rig = Bench::toy(1)?.rig();
            give(number);
            rig.submit(&[1]);
            let fault = rig.complete().fault.unwrap();
            assert!(fault.as_str().contains(says), "{fault:?}");
            give(0);
        }
        Ok(())
    });
}

#[test]
fn a_wrong_answer_stops_its_model_and_no_other() {
    on_all_kinds("backend::a_wrong_answer_stops_its_model_and_no_other", || {
        let mut bench = Bench::new(2);
        bench.add("one", Element::F32, "f32", -1)?;
        bench.add("two", Element::F32, "f32", -1)?;
        let spoil = |passport: &mut Passport| {
            let value = &mut passport.golden.as_mut().unwrap().answers[1][0][2];
            *value *= 1.05;
        };
        bench.forge("two", spoil);
        let mut rig = bench.rig();
        let mut batch = rig.batch(&[1, 2]);
        batch.model = ModelId(1);
        let now = rig.now();
        let Err(refused) = rig.backend.submit(now, batch) else { panic!("a model that is wrong answers") };
        let fault = refused.fault.unwrap();
        assert!(fault.as_str().contains("picture 1 in a batch of 1: output 0: 1 of its values"), "{fault:?}");
        assert_eq!(refused.jobs.len(), 2);
        rig.submit(&[1, 2]);
        assert_eq!(rig.complete().outputs[0].row(1), [2.0; 3]);
        drop(rig);
        // Without golden answers there is nothing to hold it to; and with no model that is right, there is no start.
        bench.forge("two", |passport| passport.golden = None);
        let mut rig = bench.rig();
        let mut batch = rig.batch(&[7]);
        batch.model = ModelId(1);
        let now = rig.now();
        assert!(rig.backend.submit(now, batch).is_ok());
        assert_eq!(rig.complete().outputs[0].row(0), [7.0; 3]);
        drop(rig);
        bench.models.truncate(1);
        bench.forge("one", spoil);
        match bench.open(&Arc::default(), &Waker::new()) {
            Err(InferError::Model { model, what, .. }) => {
                assert!(
                    model == "one" && what.contains("does not answer as when its plan was built"),
                    "{what}"
                );
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    });
}

#[test]
fn a_plan_that_is_missing_or_broken_is_refused() {
    on_all_kinds("backend::a_plan_that_is_missing_or_broken_is_refused", || {
        let refused = |bench: &Bench, says: &[&str]| {
            let why = bench.open(&Arc::default(), &Waker::new()).unwrap_err();
            assert!(matches!(why, InferError::Model { .. }), "{why:?}");
            assert!(says.iter().all(|says| why.to_string().contains(says)), "{why}");
        };
        let mut bench = Bench::toy(1)?;
        bench.forge("toy", |passport| passport.sha256 = "0".repeat(64));
        refused(&bench, &["not the plan of its passport", "ocelli engine build", "build_plans"]);
        bench.folder = tempfile::tempdir().unwrap();
        refused(&bench, &["there is no plan for it", "ocelli engine build"]);
        Ok(())
    });
}

// --- The whole program.

/// A board with two models that the stand-in can run, each with a stream.
fn board(folder: &Path) -> Result<(), String> {
    let write =
        |name: &str, text: &str| std::fs::write(folder.join(name), text).map_err(|why| why.to_string());
    let sha256: String = sha2::Sha256::digest(b"a toy").iter().map(|byte| format!("{byte:02x}")).collect();
    write("toy.onnx", "a toy")?;
    write(
        "toy.toml",
        &format!(
            "manifest_version = 1\nname = \"toy\"\nsource = \"this test\"\nlicence = \"MIT\"\nfile = \"toy.onnx\"\n\
             sha256 = \"{sha256}\"\nprecision = \"fp32\"\nlabels = [\"red\", \"green\", \"blue\"]\n[input]\n\
             tensor = \"image\"\nlayout = \"nhwc\"\ntype = \"f32\"\nsize = [{EDGE}, {EDGE}]\nchannels = \"rgb\"\n\
             fit = \"stretch\"\nscale = [0.0039]\noffset = [0.0]\n[decoder]\nkind = \"classification\"\n\
             output = \"brightest\"\nactivation = \"none\"\ntop = 1\n"
        ),
    )?;
    let stream = |id: &str, model: &str| {
        format!(
            "[[streams]]\nid = \"{id}\"\nsource = {{ type = \"synthetic\" }}\nfps = 30\nsize = [64, 48]\n\
             format = \"NV12\"\nlatency_bound_ms = 33\nmodel = \"{model}\"\n"
        )
    };
    let board = format!(
        "config_version = 1\n[accelerator]\nbackend = \"tensorrt\"\nmax_batch = {MAX_BATCH}\ncontexts = 2\n\
         engine_cache = \"cache\"\n[models.one]\nmanifest = \"toy.toml\"\n[models.two]\nmanifest = \"toy.toml\"\n{}{}",
        stream("a", "one"),
        stream("b", "two")
    );
    write("board.toml", &board)
}

/// The program on the stand-ins, which this process runs on too: its exit code, what it said, and what it wrote.
fn ocelli(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ocelli"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder)
        // What a process still holds when it exits is nobody's leak.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("Sanitizer"), "{said}");
    (output.status.code(), said)
}

/// Runs the program in a folder, which ends with `code` and says all of `words`.
fn says(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let (found, said) = ocelli(folder, arguments);
    let missing: Vec<_> = words.iter().filter(|words| !said.contains(**words)).collect();
    assert!(
        found == Some(code) && missing.is_empty(),
        "{arguments:?} gives {found:?}, not {missing:?}: {said}"
    );
}

#[test]
fn what_can_not_be_recorded_is_said_once_a_model() {
    let test = "backend::what_can_not_be_recorded_is_said_once_a_model";
    if !inside() {
        return passes(test, &[("STANDIN_FAIL", "cuStreamBeginCapture_v2")]);
    }
    let work = || {
        let mut bench = Bench::new(2);
        let folder = tempfile::tempdir().unwrap();
        board(folder.path())?;
        for model in Board::load(&folder.path().join("board.toml")).unwrap().models {
            bench.keep(&folder.path().join("cache"), model, -1, "f32")?;
        }
        let (code, said) =
            ocelli(folder.path(), &["run", "board.toml", "--for", "1", "--results", "r.jsonl"]);
        assert_eq!(code, Some(0), "{said}");
        for model in ["one", "two"] {
            let says = format!("model {model}: its work can't be recorded");
            assert_eq!(said.matches(&says).count(), 1, "{said}");
        }
        Ok(())
    };
    tell(work());
}

#[test]
fn the_program_runs_a_board_and_stops_a_model_that_answers_wrongly() {
    on_all_kinds("backend::the_program_runs_a_board_and_stops_a_model_that_answers_wrongly", || {
        let mut bench = Bench::new(2);
        let folder = tempfile::tempdir().unwrap();
        board(folder.path())?;
        let says =
            |arguments: &[&str], code: i32, words: &[&str]| says(folder.path(), arguments, code, words);
        let missing = ["there is no plan for it", "ocelli engine build", "build_plans"];
        says(&["run", "board.toml"], 65, &missing);
        let models = Board::load(&folder.path().join("board.toml")).unwrap().models;
        let cache = folder.path().join("cache");
        for model in models {
            bench.keep(&cache, model, -1, "f32")?;
        }
        says(&["engine", "verify", "board.toml"], 0, &["whole, loads, and answers as it did"]);
        let run = ["run", "board.toml", "--for", "1", "--results", "r.jsonl", "--summary", "s.json"];
        let results = || {
            let text = std::fs::read_to_string(folder.path().join("r.jsonl")).unwrap();
            let count = |text: &str, id: &str, what: &str| {
                let of = format!("\"stream\":\"{id}\"");
                text.lines().filter(|line| line.contains(&of) && line.contains(what)).count()
            };
            let failed = "\"backend_failed\"";
            let served = "\"detections\":[{";
            ["a", "b"].map(|id| (count(&text, id, served), count(&text, id, failed)))
        };
        assert_eq!(ocelli(folder.path(), &run).0, Some(0));
        let [a, b] = results();
        assert!(a.0 > 10 && b.0 > 10 && a.1 + b.1 == 0, "{a:?} {b:?}");
        let summary: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("s.json")).unwrap()).unwrap();
        let copied = summary["copied_bytes"]["accelerator"].as_u64().unwrap();
        assert_eq!(copied > 0, std::env::var_os("STANDIN_REGISTER").is_some(), "{copied}");

        bench.folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, bench.folder.path().join(file.file_name().unwrap())).unwrap();
        }
        bench.forge("two", |passport| passport.golden.as_mut().unwrap().answers[0][0][0] += 50.0);
        for file in std::fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, cache.join(file.file_name().unwrap())).unwrap();
        }
        says(
            &["engine", "verify", "board.toml"],
            65,
            &["model two", "does not answer as when its plan was built"],
        );
        let (_, said) = ocelli(folder.path(), &run);
        assert!(said.contains("model two is stopped"), "{said}");
        let [a, b] = results();
        assert!(a.0 > 10 && a.1 == 0 && b.0 == 0 && b.1 > 10, "{a:?} {b:?}: {said}");
        Ok(())
    });
}

/// A board with a GPU and two DLAs on which a batch takes longer than the streams' bound, with the plans for it; nothing
/// where there can be no DLAs.
fn board_with_dlas(folder: &Path) -> Result<Option<Board>, String> {
    board(folder)?;
    let path = folder.join("board.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("contexts = 2", "contexts = 1\ndla = [0, 1]");
    std::fs::write(&path, text.replace("latency_bound_ms = 33", "latency_bound_ms = 10")).unwrap();
    let board = Board::load(&path).unwrap();
    let mut bench = Bench::new(1);
    bench.dla = vec![0, 1];
    for model in &board.models {
        // Batches of one alone, so that measuring is short.
        match bench.keep(&folder.join("cache"), model.clone(), 1, "f32") {
            Err(why) if compiled_version().rtx && why.contains("there is no DLA number 0") => {
                return Ok(None);
            }
            kept => kept?,
        }
    }
    Ok(Some(board))
}

const SLOW_DLAS: (&str, &str) = ("STANDIN_DLA_MS", "11");

#[test]
fn dlas_that_do_not_pay_are_measured_and_then_left_idle() {
    if !inside() {
        // A run's rings are kept to the process's end.
        let with_rings = [SLOW_DLAS, ("ASAN_OPTIONS", "detect_leaks=0")];
        return passes("backend::dlas_that_do_not_pay_are_measured_and_then_left_idle", &with_rings);
    }
    let work = || {
        let folder = tempfile::tempdir().unwrap();
        let Some(board) = board_with_dlas(folder.path())? else { return Ok(()) };
        let settings = Settings {
            device: 0,
            lanes: 1,
            dla: &[0, 1],
            max_batch: MAX_BATCH,
            cache: &folder.path().join("cache"),
            frame_bytes: 64 * 48 * 3 / 2,
            build: None,
        };
        let waker = Waker::new();
        let backend = TensorRt::open(&settings, &board.models, &Arc::default(), &waker);
        let on = || ["dla 0", "dla 1"].map(calls);
        let opened = on();
        let mut run = running::start_on(&board, Box::new(backend.map_err(|why| why.to_string())?), waker);
        let measured = on();
        run.wait_for_frames(60);
        assert!(run.stop().total().balances());
        assert!(measured[0] > opened[0] && measured[1] > opened[1], "{opened:?} {measured:?}");
        assert_eq!(on(), measured);
        Ok(())
    };
    tell(work());
}

#[test]
fn the_program_says_which_dlas_it_leaves_idle_or_uses_and_why() {
    if !inside() {
        return passes("backend::the_program_says_which_dlas_it_leaves_idle_or_uses_and_why", &[SLOW_DLAS]);
    }
    let work = || {
        let folder = tempfile::tempdir().unwrap();
        if board_with_dlas(folder.path())?.is_none() {
            return Ok(());
        }
        let says =
            |arguments: &[&str], code: i32, words: &[&str]| says(folder.path(), arguments, code, words);
        let idle =
            ["dla 0 and dla 1 are left idle: 0 of the board's streams are served with them, 2 without"];
        says(&["plan", "board.toml"], 0, &idle);
        says(&["run", "board.toml", "--for", "0.3"], 0, &idle);
        says(&["profile", "board.toml", "--for", "0.1", "--output", "p.json"], 0, &idle);
        says(&["plan", "board.toml", "--profile", "p.json"], 0, &idle);

        let path = folder.path().join("p.json");
        let mut profile: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let [alone, all] = profile["arrangements"].as_array_mut().unwrap().as_mut_slice() else {
            return Err(format!("not two arrangements: {profile}"));
        };
        let names = |kept: &serde_json::Value| {
            let units = kept["units"].as_array().unwrap().iter();
            units.map(|unit| unit["unit"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(alone), names(all)),
            (vec!["gpu".into()], vec!["gpu".into(), "dla 0".into(), "dla 1".into()])
        );
        assert!(alone["used"] == true && all["used"] == false && all["max_streams"] == 0, "{alone} {all}");
        // As if a GPU alone took 4 ms, and each of the three 1 ms.
        for (kept, ns) in [(alone, 4_000_000), (all, 1_000_000)] {
            let units = kept["units"].as_array_mut().unwrap().iter_mut();
            let tables = units.flat_map(|unit| unit["services"].as_array_mut().unwrap());
            for timing in tables.flat_map(|table| table.as_array_mut().unwrap()) {
                let times =
                    timing.as_object_mut().unwrap().iter_mut().filter(|(key, _)| key.ends_with("_ns"));
                times.for_each(|(_, time)| *time = ns.into());
            }
        }
        let write = |path: &Path, profile: &serde_json::Value| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, profile.to_string()).unwrap();
        };
        write(&path, &profile);
        // A twentieth more is planned: of the bound's 9.5 ms, the rest being kept for publishing, two of 4.2 or nine of 1.05.
        let used = ["dla 0 and dla 1 are used: 9 streams fit with them, 2 without"];
        says(&["plan", "board.toml", "--profile", "p.json"], 0, &used);
        write(&folder.path().join("ocelli/board.profile.json"), &profile);
        says(&["run", "board.toml", "--for", "0.3"], 0, &used);
        Ok(())
    };
    tell(work());
}
