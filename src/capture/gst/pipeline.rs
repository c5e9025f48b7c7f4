//! Building a pipeline that ends in our sink, and watching over it.

use super::errors::{Names, missing_plugin};
use super::frame::{Picture, Wanted};
use super::memory;
use crate::capture::{Resources, SourceError};
use crate::platform::{Waker, clock};
use crate::time::{Instant, nanos};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A source that has not delivered a frame this long after it was opened won't.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a pipeline reads.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// An address, and the jitter buffer where it is RTSP.
    Uri(String, Duration),
    /// A description as for gst-launch-1.0, without a sink.
    Description(String),
}

/// A pipeline with our sink at its end. Dropped, it is stopped.
///
/// Stopping waits for its streaming threads, on the calling thread, which is the stream's own capture thread:
/// an element that does not give its thread back keeps that stream down and nothing else.
#[derive(Debug)]
pub struct Pipeline {
    pub pipeline: gst::Pipeline,
    pub sink: gst_app::AppSink,
    bus: gst::Bus,
    is_file: bool,
    names: Names,
    waker: Waker,
    decoder_copies: Arc<AtomicBool>,
    /// What decodebin has no plugin for.
    missing: Arc<OnceLock<String>>,
}

impl Pipeline {
    /// Builds the pipeline, stopped, for the thread that calls.
    pub fn build(
        input: &Input,
        wanted: &Wanted,
        names: &Names,
        resources: &Resources,
    ) -> Result<Self, SourceError> {
        gst::init().map_err(|error| {
            names.error(&format!("GStreamer does not start: {error}"), "install libgstreamer1.0-0 again")
        })?;
        let pipeline = launch(input, names)?;
        let find = |name: &str| {
            pipeline.by_name(name).ok_or_else(|| {
                let remedy = "do not name elements `ocelli-...` in the description";
                names.error(&format!("the pipeline has lost its element `{name}`"), remedy)
            })
        };
        match input {
            Input::File(path) => find("ocelli-input")?.set_property("location", path),
            Input::Uri(uri, latency) => {
                let decoder = find("ocelli-decoder")?;
                decoder.set_property("uri", uri);
                set_jitter_buffer(&decoder, *latency);
            }
            Input::Description(_) => {}
        }
        find("ocelli-filter")?.set_property("caps", wanted.caps());
        let sink = find("ocelli-sink")?.downcast::<gst_app::AppSink>().map_err(|_| {
            names.error("the pipeline's sink is not an appsink", "install gstreamer1.0-plugins-base again")
        })?;
        sink.set_sync(false);
        sink.set_qos(false);
        sink.set_enable_last_sample(false);
        if let Some(pad) = sink.static_pad("sink") {
            memory::offer(&pad, resources.share.clone());
        }
        let decoder_copies = Arc::new(AtomicBool::new(false));
        let waker = Waker::new();
        waker.attach();
        let built = Self {
            bus: pipeline.bus().unwrap_or_default(),
            pipeline,
            sink,
            is_file: matches!(input, Input::File(_)),
            names: names.clone(),
            waker,
            decoder_copies,
            missing: Arc::default(),
        };
        built.watch();
        Ok(built)
    }

    /// Wakes the capture thread for errors and frames, and makes libav write into our slots.
    fn watch(&self) {
        let waker = self.waker.clone();
        let missing = self.missing.clone();
        self.bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(_) | gst::MessageView::Warning(_) => {
                    waker.wake();
                    return gst::BusSyncReply::Pass;
                }
                gst::MessageView::Element(element) => {
                    if let Some(plugin) = element.structure().and_then(missing_plugin) {
                        missing.get_or_init(|| plugin);
                    }
                }
                _ => {}
            }
            // Nobody would read them, and they would pile up.
            gst::BusSyncReply::Drop
        });
        let copies = self.decoder_copies.clone();
        let quieten = move |element: &gst::Element| {
            let libav = element.factory().is_some_and(|factory| factory.name().starts_with("avdec_"));
            if libav && element.has_property("direct-rendering") {
                // With it, libav pushes padded buffers of its own, and each frame would have to be copied here.
                element.set_property("direct-rendering", false);
                copies.store(true, Ordering::Relaxed);
            }
        };
        for element in self.pipeline.iterate_recurse().into_iter().flatten() {
            quieten(&element);
        }
        self.pipeline.connect_deep_element_added(move |_, _, element| quieten(element));
        let (waker, last) = (self.waker.clone(), self.waker.clone());
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |_| {
                waker.wake();
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| last.wake())
            .build();
        self.sink.set_callbacks(callbacks);
    }

    /// Wakes the thread that [`Self::wait`]s.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether a decoder upstream copies each frame once inside.
    pub fn decoder_copies(&self) -> bool {
        self.decoder_copies.load(Ordering::Relaxed)
    }

    /// Waits for something to happen, until `until` at most; may return early.
    pub fn wait(&self, until: Instant) {
        self.waker.wait_until(Some(until));
    }

    /// The next frame that has arrived and has not been pulled.
    pub fn pull(&self) -> Option<Picture> {
        // Not kept: appsink goes on to use the same sample, and would find it shared.
        let sample = self.sink.try_pull_sample(gst::ClockTime::ZERO)?;
        let buffer = sample.buffer_owned()?;
        let time = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
        let running_time = time.and_then(|segment| segment.to_running_time(buffer.pts()?));
        Some(Picture { caps: sample.caps_owned()?, running_time, buffer })
    }

    /// Why the pipeline can't go on, if it can't.
    pub fn failure(&self) -> Option<SourceError> {
        std::iter::from_fn(|| self.bus.pop()).find_map(|message| match message.view() {
            gst::MessageView::Error(error) => {
                Some(self.names.explain(error, self.missing.get().map(String::as_str)))
            }
            gst::MessageView::Warning(warning) => self.names.explain_warning(warning),
            _ => None,
        })
    }

    /// Changes the state without waiting for the end of the change.
    pub fn set_state(&self, state: gst::State) -> Result<gst::StateChangeSuccess, SourceError> {
        self.pipeline.set_state(state).map_err(|_| {
            self.failure().unwrap_or_else(|| {
                self.names.error(
                    &format!("the pipeline can't go to {state:?}"),
                    "set GST_DEBUG=3 for GStreamer's own log",
                )
            })
        })
    }

    /// Waits for the end of the last change of state.
    pub fn settle(&self) -> Result<(), SourceError> {
        let patience = gst::ClockTime::from_nseconds(nanos(PATIENCE));
        match self.pipeline.state(patience).0 {
            Ok(gst::StateChangeSuccess::Async) => Err(self.names.error(
                &format!("it did not start within {} s", PATIENCE.as_secs()),
                "set GST_DEBUG=3 for GStreamer's own log",
            )),
            Ok(_) => Ok(()),
            Err(_) => Err(self.failure().unwrap_or_else(|| {
                self.names.error("it does not start", "set GST_DEBUG=3 for GStreamer's own log")
            })),
        }
    }

    /// Waits until `ready` says something, the pipeline fails, or patience ends.
    pub fn wait_for<T>(&self, mut ready: impl FnMut() -> Option<T>) -> Result<T, SourceError> {
        let end = clock::now() + PATIENCE;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if self.sink.is_eos() {
                // A last look: the error that ends a stream comes just before or just after its end.
                return Err(self.failure().unwrap_or_else(|| {
                    let remedy = "check that it holds video, and that it is not cut off at its start";
                    self.names.error("it ended before its first frame", remedy)
                }));
            }
            if clock::now() >= end {
                return Err(self.names.error(
                    &format!("no frame came within {} s", PATIENCE.as_secs()),
                    // decodebin can lose an error that comes while it plugs elements together.
                    if self.is_file {
                        "check that it is a video and not damaged; play it with another program"
                    } else {
                        "check that the camera is on and sends, and that nothing between blocks it"
                    },
                ));
            }
            self.wait(end);
        }
    }

    /// Facts about the agreed pipeline for the log.
    pub fn notes(&self, wanted: &Wanted) -> Vec<String> {
        let mut notes = Vec::new();
        let decoders = self.pipeline.iterate_recurse().into_iter().flatten().filter_map(|element| {
            let factory = element.factory()?;
            let class = factory.metadata(gst::ELEMENT_METADATA_KLASS)?;
            (class.contains("Decoder") && !class.contains("Bin")).then(|| factory.name().to_string())
        });
        for decoder in decoders {
            notes.push(format!("decoder {decoder}"));
        }
        if self.decoder_copies() {
            notes.push("libav copies each frame into our slot (counted as decoder_estimated)".to_owned());
        }
        let convert = self.pipeline.by_name("ocelli-convert").and_then(|element| element.static_pad("sink"));
        if let Some(caps) = convert.and_then(|pad| pad.current_caps())
            && let Some(given) = caps.structure(0)
        {
            let (width, height) = (given.get::<i32>("width"), given.get::<i32>("height"));
            let size = (width.unwrap_or(0), height.unwrap_or(0));
            let format = given.get::<String>("format").unwrap_or_default();
            let same = format == wanted.format.as_str()
                && (u32::try_from(size.0), u32::try_from(size.1)) == (Ok(wanted.width), Ok(wanted.height));
            if !same {
                notes.push(format!(
                    "the source gives {}x{} {format}, the board wants {}x{} {}: every frame is converted on \
                     the CPU",
                    size.0,
                    size.1,
                    wanted.width,
                    wanted.height,
                    wanted.format.as_str()
                ));
            }
        }
        notes
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Can't fail in a way that something could be done about.
        let _ = self.pipeline.set_state(gst::State::Null);
        self.bus.unset_sync_handler();
    }
}

/// The pipeline in GStreamer's words. Converter and scaler do nothing, and pass our slots through, where the
/// source already gives what is wanted.
fn launch(input: &Input, names: &Names) -> Result<gst::Pipeline, SourceError> {
    const TAIL: &str = "! videoconvert name=ocelli-convert ! videoscale name=ocelli-scale \
                        ! capsfilter name=ocelli-filter ! appsink name=ocelli-sink";
    let text = match input {
        Input::File(_) => format!("filesrc name=ocelli-input ! decodebin {TAIL}"),
        Input::Uri(..) => format!("uridecodebin name=ocelli-decoder {TAIL}"),
        Input::Description(description) => format!("{description} {TAIL}"),
    };
    let error = |error: gst::glib::Error| {
        let missing = error.matches(gst::ParseError::NoSuchElement);
        let remedy = if missing {
            "install the Debian package that has this element (gstreamer1.0-plugins-base, -good, -bad or -libav)"
        } else {
            "correct the description: it is one for gst-launch-1.0, without a sink, whose last element gives raw \
             video"
        };
        names.error(&format!("GStreamer can't build the pipeline: {}", error.message()), remedy)
    };
    let launched = gst::parse::launch_full(&text, None, gst::ParseFlags::FATAL_ERRORS).map_err(error)?;
    launched.downcast::<gst::Pipeline>().map_err(|_| {
        names.error("the description is not a pipeline", "describe it as for gst-launch-1.0, without a sink")
    })
}

/// Sets the jitter buffer of an RTSP source as soon as there is one.
fn set_jitter_buffer(decoder: &gst::Element, latency: Duration) {
    let millis = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
    decoder.connect("source-setup", false, move |values| {
        let source = values.get(1)?.get::<gst::Element>().ok()?;
        let rtsp = source.factory().is_some_and(|factory| factory.name() == "rtspsrc");
        if rtsp {
            source.set_property("latency", millis);
        }
        None
    });
}
