//! From a board file's raw form to the board: what its keys mean together.

mod triggers;

use super::raw::{
    RawAccelerator, RawBoard, RawFaults, RawModel, RawOutput, RawSet, RawSource, RawStream, RawSupervision,
    SCHEMA,
};
use super::{
    Accelerator, BackendSpec, Board, Encoding, Faults, HardwareWatchdog, MAX_MODELS, Output, OutputTo,
    Platform, Realtime, Set, SourceSpec, Stream, Supervision, V4l2, V4l2Memory, Watch,
};
use crate::config::{Address, Document, Fingerprint, KeyPath, Kind, Problems, Surroundings};
use crate::image::{Colorimetry, PixelFormat};
use crate::model::{self, Model};
use crate::stream::{Criticality, ModelId, StreamId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Schemes of addresses: GStreamer's for RTSP (t: over TCP, u: over UDP) and HTTP.
const SCHEMES: [&str; 7] = ["rtsp", "rtsps", "rtspt", "rtspu", "rtsph", "http", "https"];

/// How long a watchdog device waits for a sign of life where the board doesn't say.
const WATCHDOG_TIMEOUT_S: u16 = 60;

/// A duration from a key in milliseconds, to the nearest nanosecond. The schema has bounded it.
fn millis(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6).round() as u64)
}

pub(super) fn board(surroundings: &dyn Surroundings, path: &Path) -> Result<Board, Problems> {
    let mut document = Document::read(surroundings, path, Kind::Board)?;
    let raw: RawBoard = document.check(&SCHEMA)?;
    let mut fingerprint = Fingerprint::default();
    document.texts().for_each(|text| fingerprint.add(text));
    let mut resolve = Resolve { document, warnings: Vec::new() };
    let used = resolve.used_models(&raw);
    let models = resolve.models(&raw, &used, &mut fingerprint);
    let mut streams: Vec<_> = (raw.streams.iter().enumerate())
        .map(|(index, stream)| {
            resolve.stream(stream, &raw.models, &used, &KeyPath::default().key("streams").index(index))
        })
        .collect();
    let ids: Vec<&str> = raw.streams.iter().map(|stream| stream.id.0.as_str()).collect();
    resolve.distinct(&ids, "streams", "id");
    resolve.triggers(&raw, &mut streams);
    resolve.devices(&streams);
    let sets = resolve.sets(&raw, &ids, &streams);
    let outputs = resolve.outputs(&raw.outputs);
    let accelerator = resolve.accelerator(raw.accelerator, &streams);
    let supervision = resolve.supervision(raw.supervision);
    let Resolve { document, warnings } = resolve;
    document.finish(Some(Board {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        digest: fingerprint.hex(),
        accelerator,
        streams,
        models,
        sets,
        outputs,
        realtime: Realtime {
            lock_memory: raw.realtime.lock_memory,
            fifo: raw.realtime.fifo,
            shallow_idle: raw.realtime.shallow_idle,
            cpus: raw.realtime.cpus,
        },
        platform: Platform {
            thermal_zones: raw.platform.thermal_zones,
            power_rails: raw.platform.power_rails,
            gpu_load: raw.platform.gpu_load,
            gpu_clock: raw.platform.gpu_clock,
        },
        supervision,
        warnings,
    }))
}

struct Resolve<'s> {
    document: Document<'s>,
    warnings: Vec<String>,
}

impl Resolve<'_> {
    fn warn(&mut self, at: &KeyPath, message: &str) {
        self.warnings.push(format!("{}: {message}", self.document.place(at)));
    }

    /// Reports entries of the array `list` whose `key` another one has.
    fn distinct(&mut self, names: &[&str], list: &str, key: &str) {
        let at = |index: usize| KeyPath::default().key(list).index(index).key(key);
        let mut seen = BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            if let Some(first) = seen.get(name) {
                let message = format!("used twice; each of the {list} needs its own {key}");
                self.document.report_both(&at(index), &at(*first), &message);
            } else {
                seen.insert(*name, index);
            }
        }
    }

    /// The models that streams use, in the order of their names.
    fn used_models(&mut self, raw: &RawBoard) -> BTreeMap<String, ModelId> {
        let at = KeyPath::default().key("models");
        let mut used = BTreeMap::new();
        for name in raw.models.keys() {
            let uses = |stream: &RawStream| {
                stream.model.0 == *name || stream.cheaper_model.as_ref().is_some_and(|id| id.0 == *name)
            };
            if !raw.streams.iter().any(uses) {
                self.warn(&at.key(name), "no stream uses this model; it is not loaded");
            } else {
                used.insert(name.clone(), ModelId(used.len() as u8));
            }
        }
        if used.len() > MAX_MODELS {
            self.document.report(&at, format!("{} models in use, at most {MAX_MODELS} can be", used.len()));
        }
        used
    }

    fn models(
        &mut self,
        raw: &RawBoard,
        used: &BTreeMap<String, ModelId>,
        fingerprint: &mut Fingerprint,
    ) -> Vec<Model> {
        let mut models = Vec::new();
        for (name, entry) in raw.models.iter().filter(|(name, _)| used.contains_key(*name)) {
            let at = KeyPath::default().key("models").key(name).key("manifest");
            if self.document.read_beside(&at, &entry.manifest.0).is_some() {
                match model::read(self.document.surroundings(), &entry.manifest.0, name, fingerprint) {
                    Ok(model) => models.push(model),
                    Err(problems) => self.document.report_all(&at, problems),
                }
            }
        }
        models
    }

    fn stream(
        &mut self,
        raw: &RawStream,
        listed: &BTreeMap<String, RawModel>,
        used: &BTreeMap<String, ModelId>,
        at: &KeyPath,
    ) -> Stream {
        let [width, height] = raw.size;
        self.format(raw, at);
        let (period, period_key) = match (raw.period_ms, raw.fps) {
            (Some(ms), _) => (millis(ms), "period_ms"),
            (None, fps) => (millis(1000.0 / fps.unwrap_or(1.0)), "fps"),
        };
        let latency_bound = millis(raw.latency_bound_ms);
        let source = self.source(&raw.source, period, &at.key(period_key), &at.key("source"));
        if let SourceSpec::Uri { latency, .. } = &source
            && *latency >= latency_bound
        {
            let message = "the jitter buffer alone takes the whole latency bound: every result will be late";
            self.warn(&at.key("source").key("latency_ms"), message);
        }
        if raw.color.is_some() && raw.format.is_rgb() {
            self.warn(&at.key("color"), "has no meaning for RGB and BGR frames and mosaics");
        }
        let model = used.get(&raw.model.0).copied().unwrap_or_else(|| {
            let message = missing_name(&raw.model.0, "a model", "models", listed.keys().map(String::as_str));
            self.document.report(&at.key("model"), message);
            ModelId(0)
        });
        Stream {
            id: raw.id.0.clone(),
            source,
            faults: raw.faults.as_ref().map(|faults| self.faults(faults, &at.key("faults"))),
            period,
            width,
            height,
            format: raw.format,
            color: raw.color.as_ref().map(|color| Colorimetry { matrix: color.matrix, range: color.range }),
            latency_bound,
            criticality: raw.criticality,
            model,
            stale_results: raw.stale_results,
            watch: self.watch(raw, listed, used, at),
            trigger: None,
        }
    }

    fn watch(
        &mut self,
        raw: &RawStream,
        listed: &BTreeMap<String, RawModel>,
        used: &BTreeMap<String, ModelId>,
        at: &KeyPath,
    ) -> Watch {
        let critical = raw.criticality == Criticality::Critical;
        let [misses, frames] = raw.misses.unwrap_or(if critical { [0, 30] } else { [1, 30] });
        if misses >= frames {
            let message =
                "the first number must be less than the second; say [1, 30] for one miss in any 30 frames";
            self.document.report(&at.key("misses"), message);
        }
        let cheaper_model = raw.cheaper_model.as_ref().and_then(|name| {
            let known = used.get(&name.0).copied();
            let at = at.key("cheaper_model");
            if known.is_none() {
                let message = missing_name(&name.0, "a model", "models", listed.keys().map(String::as_str));
                self.document.report(&at, message);
            } else if name.0 == raw.model.0 {
                self.document.report(&at, "is the stream's own model; name a cheaper one or leave it out");
            }
            if critical {
                self.warn(&at, "has no use: a critical stream always has full service");
            }
            known
        });
        Watch { misses: (misses, frames), freshness: raw.freshness_ms.map(millis), cheaper_model }
    }

    /// Chroma at half resolution needs whole pairs of pixels, a mosaic whole patterns; and GStreamer has no mosaics.
    fn format(&mut self, raw: &RawStream, at: &KeyPath) {
        let [width, height] = raw.size;
        let (pairs_across, pairs_down) = match raw.format {
            PixelFormat::Nv12 | PixelFormat::I420 => (true, true),
            PixelFormat::Yuy2 | PixelFormat::Uyvy => (true, false),
            PixelFormat::Rgb | PixelFormat::Bgr | PixelFormat::Gray8 => (false, false),
            _ => (true, true),
        };
        if (pairs_across && width % 2 == 1) || (pairs_down && height % 2 == 1) {
            let which = if pairs_down { "width and height" } else { "width" };
            let message = format!("{} needs an even {which}", raw.format.as_str());
            self.document.report_both(&at.key("size"), &at.key("format"), &message);
        }
        if raw.format.mosaic().is_none() {
            return;
        }
        if matches!(raw.source, RawSource::File { .. } | RawSource::Uri { .. } | RawSource::Pipeline { .. }) {
            let message = "GStreamer's raw video has no mosaics; let the pipeline make RGB of it (bayer2rgb ! \
                           videoconvert) and write format = \"RGB\"";
            self.document.report_both(&at.key("format"), &at.key("source").key("type"), message);
        }
        let message = "is the sensor's mosaic as it is: linear, with its black level, not white-balanced. A model \
                       that learned from photographs sees less in it; take the ISP's output where there is one";
        self.warn(&at.key("format"), message);
    }

    fn source(&mut self, raw: &RawSource, period: Duration, period_at: &KeyPath, at: &KeyPath) -> SourceSpec {
        match raw {
            RawSource::Synthetic { phase_ms, jitter_ms, seed } => {
                let jitter = millis(*jitter_ms);
                if jitter >= period && !jitter.is_zero() {
                    let message = "must be less than the stream's period, or frames would change places";
                    self.document.report_both(&at.key("jitter_ms"), period_at, message);
                }
                SourceSpec::Synthetic { phase: millis(*phase_ms), jitter, seed: *seed }
            }
            RawSource::File { path, repeat, phase_ms } => {
                self.warn_if_missing(&at.key("path"), &path.0);
                SourceSpec::File { path: path.0.clone(), repeat: *repeat, phase: millis(*phase_ms) }
            }
            RawSource::Uri { uri, latency_ms } => {
                let uri = self.address(uri, &at.key("uri"), true);
                SourceSpec::Uri { uri, latency: millis(*latency_ms) }
            }
            RawSource::Pipeline { description } => {
                let at = at.key("description");
                if let Some(device) = numbered_device(description) {
                    let advice =
                        "may be another camera after the next start; use its name in /dev/v4l/by-path";
                    self.warn(&at, &format!("{device} {advice}"));
                }
                SourceSpec::Pipeline { description: self.address(description, &at, false) }
            }
            RawSource::V4l2 { device, memory, encoding, fourcc, controls } => {
                let camera = V4l2 {
                    device: device.clone(),
                    memory: *memory,
                    encoding: *encoding,
                    fourcc: fourcc.clone(),
                    controls: controls.clone(),
                };
                self.device(&camera, at);
                SourceSpec::V4l2(camera)
            }
        }
    }

    /// One device is one stream's, by whatever name: two names of one are found where it is plugged in.
    fn devices(&mut self, streams: &[Stream]) {
        let mut taken = BTreeMap::new();
        for (index, stream) in streams.iter().enumerate() {
            let SourceSpec::V4l2(camera) = &stream.source else { continue };
            let at = KeyPath::default().key("streams").index(index).key("source").key("device");
            let real = camera.device.canonicalize().unwrap_or_else(|_| camera.device.clone());
            match taken.get(&real) {
                Some(first) => {
                    let message = "another stream takes its frames from this device; a device has one user";
                    self.document.report_both(&at, first, message);
                }
                None => drop(taken.insert(real, at)),
            }
        }
    }

    fn device(&mut self, camera: &V4l2, at: &KeyPath) {
        let device = camera.device.to_string_lossy();
        if !camera.device.is_absolute() {
            let message = "a device is named by its whole path, such as one in /dev/v4l/by-path";
            self.document.report(&at.key("device"), message);
        } else if let Some(numbered) = numbered_device(&device) {
            let advice = "may be another camera after the next start; use its name in /dev/v4l/by-path";
            self.warn(&at.key("device"), &format!("{numbered} {advice}"));
        }
        if camera.encoding == Encoding::Mjpeg {
            let own = match (camera.memory, &camera.fourcc) {
                (V4l2Memory::Userptr | V4l2Memory::Copy, _) => {
                    Some(("memory", "JPEG images are decoded into the pool, never sent there; take it out"))
                }
                (_, Some(_)) => Some((
                    "fourcc",
                    "has no use: encoding = \"mjpeg\" says what the camera sends; take it out",
                )),
                _ => None,
            };
            if let Some((key, message)) = own {
                self.document.report_both(&at.key(key), &at.key("encoding"), message);
            }
        }
    }

    fn address(&mut self, text: &str, at: &KeyPath, is_uri: bool) -> Address {
        let address = Address::expand(text, self.document.surroundings()).unwrap_or_else(|message| {
            self.document.report(at, message);
            Address::new(text)
        });
        if is_uri {
            let whole = address.expose();
            let scheme = whole.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme.as_str())) {
                self.document.report(at, "an address begins with rtsp://, rtsps://, http:// or https://");
            } else if whole.contains(|c: char| c.is_whitespace() || "\"'`<>".contains(c)) {
                let message = "blanks and quotes must be percent-encoded in an address (%20, %22)";
                self.document.report(at, message);
            }
        }
        if Address::spelled_out(text) {
            self.warn(at, "holds credentials; write ${NAME} and set NAME in the environment instead");
        }
        address
    }

    fn warn_if_missing(&mut self, at: &KeyPath, file: &Path) {
        if !self.document.surroundings().exists(file) {
            self.warn(at, &format!("there is no file {} at the moment", file.display()));
        }
    }

    fn faults(&mut self, raw: &RawFaults, at: &KeyPath) -> Faults {
        if raw.stall_at.is_some() != (raw.stall_ms > 0.0) {
            let (given, missing) = match raw.stall_at {
                Some(_) => ("stall_at", "stall_ms"),
                None => ("stall_ms", "stall_at"),
            };
            self.document.report_both(
                &at.key(given),
                &at.key(missing),
                &format!("{missing} is missing; stall_at and stall_ms go together"),
            );
        }
        Faults {
            seed: raw.seed,
            drop: raw.drop,
            jitter: millis(raw.jitter_ms),
            freeze_at: raw.freeze_at,
            corrupt: raw.corrupt,
            stall_at: raw.stall_at,
            stall: millis(raw.stall_ms),
            hang_at: raw.hang_at,
            fail_at: raw.fail_at,
            end_at: raw.end_at,
        }
    }

    fn sets(&mut self, raw: &RawBoard, ids: &[&str], streams: &[Stream]) -> Vec<Set> {
        let names: Vec<&str> = raw.sets.iter().map(|set| set.id.0.as_str()).collect();
        self.distinct(&names, "sets", "id");
        let mut taken = BTreeMap::new();
        let list = KeyPath::default().key("sets");
        let sets = raw.sets.iter().enumerate();
        sets.map(|(index, set)| self.set(set, ids, streams, &mut taken, &list.index(index))).collect()
    }

    fn set(
        &mut self,
        raw: &RawSet,
        ids: &[&str],
        streams: &[Stream],
        taken: &mut BTreeMap<usize, KeyPath>,
        at: &KeyPath,
    ) -> Set {
        let deadline = millis(raw.deadline_ms);
        let mut members = Vec::new();
        for (index, member) in raw.streams.iter().enumerate() {
            let at_member = at.key("streams").index(index);
            let Some(stream) = ids.iter().position(|id| *id == member.0) else {
                let message = missing_name(&member.0, "a stream", "streams", ids.iter().copied());
                self.document.report(&at_member, message);
                continue;
            };
            if let Some(first) = taken.get(&stream) {
                let message = "this stream is in a set already; a stream is in one set at most";
                self.document.report_both(&at_member, first, message);
            } else {
                taken.insert(stream, at_member.clone());
                members.push(StreamId(stream as u16));
            }
            if streams[stream].latency_bound > deadline {
                let message = format!(
                    "the set may close before {} has its result, whose latency bound is {} ms",
                    member.0,
                    streams[stream].latency_bound.as_secs_f64() * 1e3
                );
                self.warn(&at.key("deadline_ms"), &message);
            }
        }
        Set { id: raw.id.0.clone(), streams: members, deadline }
    }

    fn outputs(&mut self, raw: &[RawOutput]) -> Vec<Output> {
        let list = KeyPath::default().key("outputs");
        let mut outputs: Vec<Output> = Vec::new();
        for (index, output) in raw.iter().enumerate() {
            let (name, to, key) = match output {
                RawOutput::File { name, path } => (name, OutputTo::File(path.0.clone()), "path"),
                RawOutput::Stdout { name } => (name, OutputTo::Stdout, "type"),
                RawOutput::Socket { name, path } => (name, OutputTo::Socket(path.0.clone()), "path"),
            };
            if let Some(first) = outputs.iter().position(|other| other.to == to) {
                let (at, other) = (list.index(index).key(key), list.index(first).key(key));
                self.document.report_both(&at, &other, "another output goes there already");
            }
            outputs.push(Output { name: name.0.clone(), to });
        }
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        self.distinct(&names, "outputs", "name");
        outputs
    }

    fn accelerator(&mut self, raw: RawAccelerator, streams: &[Stream]) -> Accelerator {
        let at = KeyPath::default().key("accelerator");
        let (max_batch, backend) = match raw {
            RawAccelerator::Simulated {
                max_batch,
                intercept_ms,
                slope_ms,
                jitter_ms,
                seed,
                fail_every,
                hang_at,
            } => {
                let (intercept, slope) = (millis(intercept_ms), millis(slope_ms));
                if let Some(stream) = streams.iter().find(|stream| stream.latency_bound < intercept + slope) {
                    let message = format!("a batch of one takes longer than {}'s latency bound", stream.id);
                    self.warn(&at.key("intercept_ms"), &message);
                }
                let jitter = millis(jitter_ms);
                (max_batch, BackendSpec::Simulated { intercept, slope, jitter, seed, fail_every, hang_at })
            }
            RawAccelerator::OnnxRuntime { max_batch, library, sessions, threads } => {
                if let Some(library) = &library {
                    self.warn_if_missing(&at.key("library"), &library.0);
                }
                let library = library.map(|path| path.0);
                (max_batch, BackendSpec::OnnxRuntime { library, sessions, threads })
            }
            RawAccelerator::TensorRt { max_batch, device, engine_cache, contexts, mut dla, build_plans } => {
                let engine_cache = engine_cache.0;
                dla.sort_unstable();
                dla.dedup();
                (max_batch, BackendSpec::TensorRt { device, engine_cache, contexts, dla, build_plans })
            }
        };
        Accelerator { backend, max_batch }
    }

    fn supervision(&mut self, raw: RawSupervision) -> Supervision {
        let hardware_watchdog = match raw.hardware_watchdog.0.as_str() {
            "none" => HardwareWatchdog::None,
            "systemd" => HardwareWatchdog::Systemd,
            path => {
                let seconds = raw.hardware_watchdog_timeout_s.unwrap_or(WATCHDOG_TIMEOUT_S);
                HardwareWatchdog::Device { path: path.into(), timeout: Duration::from_secs(seconds.into()) }
            }
        };
        let at = KeyPath::default().key("supervision");
        let has_device = matches!(hardware_watchdog, HardwareWatchdog::Device { .. });
        if raw.hardware_watchdog_timeout_s.is_some() && !has_device {
            let message = match hardware_watchdog {
                HardwareWatchdog::Systemd => {
                    "systemd's watchdog has the timeout of RuntimeWatchdogSec= in system.conf; take this out"
                }
                _ => "of which watchdog? Add hardware_watchdog = \"/dev/watchdog0\", or take this out",
            };
            self.document.report(&at.key("hardware_watchdog_timeout_s"), message);
        }
        let state_dir = raw.state_dir.map(|path| path.0);
        Supervision { hardware_watchdog, restart: raw.restart, state_dir }
    }
}

/// The first `/dev/videoN` in a pipeline description.
fn numbered_device(description: &str) -> Option<&str> {
    let start = description.find("/dev/video")?;
    let rest = &description[start..];
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '/')).unwrap_or(rest.len());
    rest[..end].ends_with(|c: char| c.is_ascii_digit()).then_some(&rest[..end])
}

/// That a name means nothing, what may have been meant, and what there is.
fn missing_name<'n>(
    name: &str,
    what: &str,
    list: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> String {
    match crate::config::nearest(name, known.clone()) {
        Some(near) => format!("is not {what} of this board; did you mean \"{near}\"?"),
        None => {
            let known: Vec<&str> = known.take(10).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("is not {what} of this board; its {list}: {known}")
        }
    }
}
