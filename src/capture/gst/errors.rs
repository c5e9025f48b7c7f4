//! What GStreamer says went wrong, in words for whoever stands beside the camera.
//!
//! GStreamer's messages may hold addresses with credentials in them: nothing leaves here unscrubbed.

use crate::capture::SourceError;
use crate::config::redact;
use gst::glib;
use gstreamer as gst;

/// What a stream is called in its errors.
#[derive(Clone, Debug)]
pub struct Names {
    /// The stream's id.
    pub stream: String,
    /// What it reads, without credentials.
    pub shown: String,
}

impl Names {
    /// An error of this stream. `what` is scrubbed.
    pub fn error(&self, what: &str, remedy: &str) -> SourceError {
        SourceError::new(format!("stream `{}` ({}): {}", self.stream, self.shown, scrub(what)), remedy)
    }

    /// What a warning means, if it is one that no frame will come after: what was found is not video.
    pub fn explain_warning(&self, warning: &gst::message::Warning) -> Option<SourceError> {
        let unlinked = warning.debug().is_some_and(|debug| debug.contains("failed delayed linking"));
        unlinked.then(|| self.error("there is no video in it", "check which file or address the board names"))
    }

    fn missing(&self, plugin: &str) -> SourceError {
        self.error(
            &format!("no GStreamer plugin here for: {plugin}"),
            "install the Debian package gstreamer1.0-libav (most decoders), gstreamer1.0-plugins-good or \
             gstreamer1.0-plugins-bad",
        )
    }

    /// What an error message means; `plugin` is what decodebin said before that it misses.
    pub fn explain(&self, error: &gst::message::Error, plugin: Option<&str>) -> SourceError {
        let cause = error.error();
        if let Some(plugin) = plugin
            && (cause.matches(gst::StreamError::CodecNotFound)
                || cause.matches(gst::CoreError::MissingPlugin))
        {
            return self.missing(plugin);
        }
        let element = error.src().map_or_else(|| "pipeline".to_owned(), kind);
        let debug = error.debug();
        // GStreamer puts file, line and element first and the words that help last.
        let detail = debug.as_deref().and_then(|text| text.lines().last()).unwrap_or_default();
        let what = format!("{element} says: {} ({detail})", cause.message());
        self.error(&what, remedy(&cause, &what))
    }
}

/// The factory of the element that a message is from, which says more than its generated name.
fn kind(source: &gst::Object) -> String {
    use gst::prelude::*;
    let factory = source.downcast_ref::<gst::Element>().and_then(ElementExt::factory);
    factory.map_or_else(|| source.name().to_string(), |factory| factory.name().to_string())
}

/// What the `missing-plugin` message of decodebin says is missing.
pub fn missing_plugin(structure: &gst::StructureRef) -> Option<String> {
    (structure.name() == "missing-plugin")
        .then(|| structure.get("name").unwrap_or_else(|_| "a format".into()))
}

fn remedy(cause: &glib::Error, what: &str) -> &'static str {
    use gst::{CoreError, ResourceError, StreamError};
    if let Some(resource) = cause.kind::<ResourceError>() {
        match resource {
            ResourceError::NotFound => "check that it exists, is plugged in and spelled as in the board file",
            ResourceError::NotAuthorized => "check user name and password, and who may read it",
            ResourceError::Busy => "another program has it open: end that program (`fuser -v` on the device)",
            ResourceError::NoSpaceLeft => {
                "for a USB camera: the bus has no bandwidth left; use another port, a smaller size or rate"
            }
            _ if what.contains("refused") => {
                "the camera answers but takes no connection there: check port, path and its service"
            }
            ResourceError::OpenRead | ResourceError::OpenReadWrite | ResourceError::Read => {
                "check power, cable and network, and that this user may read it"
            }
            ResourceError::Settings => "ask for a size, rate or format that the camera offers",
            _ => "check power, cable, network and permissions",
        }
    } else if let Some(stream) = cause.kind::<StreamError>() {
        match stream {
            StreamError::TypeNotFound | StreamError::WrongType => {
                "it is not a video that GStreamer knows, or it is damaged from its start: put a good one there"
            }
            StreamError::CodecNotFound => {
                "install the Debian package gstreamer1.0-libav, or gstreamer1.0-plugins-bad"
            }
            StreamError::Demux | StreamError::Decode => {
                "the video is damaged or cut off: put a good copy there, or check the camera's connection"
            }
            StreamError::Decrypt | StreamError::DecryptNokey => "it is encrypted: use one that is not",
            _ => "play it with gst-launch-1.0 to see more; set GST_DEBUG=3 for GStreamer's own log",
        }
    } else if cause.matches(CoreError::MissingPlugin) {
        "install the Debian package that has the element (gstreamer1.0-plugins-good, -bad or -libav)"
    } else if cause.matches(CoreError::Negotiation) {
        "ask for a format and size that the source can give, or add a converter to the pipeline"
    } else {
        "set GST_DEBUG=3 for GStreamer's own log"
    }
}

/// `text` with every address in it cut down to scheme and host: user names, passwords and tokens are often
/// part of the rest. Local files (`file:///...`) stay. Credentials that are properties of elements
/// (`user-pw=...`) go too.
pub fn scrub(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '(' | ')');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let length = after.find(ends).unwrap_or(after.len());
        let (address, tail) = after.split_at(length);
        out.push_str(before);
        if before.ends_with("file://") {
            out.push_str(address);
        } else {
            // A password may hold unescaped slashes, so everything up to the last @ goes.
            let host = address.rsplit('@').next().unwrap_or_default();
            out.push_str(host.split(['/', '?', '#']).next().unwrap_or_default());
        }
        rest = tail;
    }
    out.push_str(rest);
    redact(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_all_but_scheme_and_host() {
        for (text, scrubbed) in [
            (
                "can't reach rtsp://root:pass@10.0.0.7:554/s?token=1 now",
                "can't reach rtsp://10.0.0.7:554 now",
            ),
            ("a http://u:p@a/x, b \"rtsp://u:p/q@b/y\"", "a http://a b \"rtsp://b\""),
            ("rtspsrc user-pw=hunter2 failed", "rtspsrc user-pw=*** failed"),
            ("file:///media/a.avi is gone", "file:///media/a.avi is gone"),
            ("no address :// at all", "no address :// at all"),
        ] {
            assert_eq!(scrub(text), scrubbed);
        }
    }
}
