//! Hardware triggers: who releases whose frames.

use super::{Resolve, millis, missing_name};
use crate::board::raw::{RawBoard, RawSource, RawStream, RawTrigger};
use crate::board::{SourceSpec, Stream, Trigger};
use crate::config::KeyPath;

impl Resolve<'_> {
    /// Puts every stream that names a trigger on it.
    pub(super) fn triggers(&mut self, raw: &RawBoard, streams: &mut [Stream]) {
        let ids: Vec<&str> = raw.triggers.iter().map(|trigger| trigger.id.0.as_str()).collect();
        self.distinct(&ids, "triggers", "id");
        let list = KeyPath::default().key("streams");
        let mut first = vec![None; ids.len()];
        for (index, (raw_stream, stream)) in raw.streams.iter().zip(streams.iter_mut()).enumerate() {
            let Some(name) = &raw_stream.trigger else { continue };
            let at = list.index(index);
            let Some(which) = ids.iter().position(|id| *id == name.0) else {
                let message = missing_name(&name.0, "a trigger", "triggers", ids.iter().copied());
                self.document.report(&at.key("trigger"), message);
                continue;
            };
            let trigger = &raw.triggers[which];
            let trigger_at = KeyPath::default().key("triggers").index(which);
            let period_at = at.key(period_key(raw_stream));
            match &first[which] {
                None => {
                    self.fits_period(trigger, stream, &trigger_at, &period_at);
                    first[which] = Some((stream.period, period_at));
                }
                Some((period, other)) if *period != stream.period => {
                    let message = format!("the streams of trigger {} must have one period", name.0);
                    self.document.report_both(&period_at, other, &message);
                }
                Some(_) => {}
            }
            self.triggered_source(raw_stream, trigger, &at, &trigger_at);
            let (offset, jitter) = (millis(trigger.offset_ms), millis(trigger.jitter_ms));
            if let SourceSpec::Synthetic { phase, .. } | SourceSpec::File { phase, .. } = &mut stream.source {
                *phase = offset;
            }
            stream.trigger = Some(Trigger { id: name.0.clone(), offset, jitter });
        }
        for (index, _) in first.iter().enumerate().filter(|(_, first)| first.is_none()) {
            let at = KeyPath::default().key("triggers").index(index).key("id");
            self.warn(&at, "no stream is on this trigger");
        }
    }

    fn fits_period(&mut self, raw: &RawTrigger, stream: &Stream, at: &KeyPath, period_at: &KeyPath) {
        if millis(raw.offset_ms) >= stream.period {
            let message = "must be less than the period of the trigger's streams";
            self.document.report_both(&at.key("offset_ms"), period_at, message);
        }
        if 2 * millis(raw.jitter_ms) >= stream.period {
            let message = "must be less than half the period of the trigger's streams, or frames of one \
                           instant can't be told from those of the next";
            self.document.report_both(&at.key("jitter_ms"), period_at, message);
        }
    }

    /// The trigger says when a stream's frames are released, not the source.
    fn triggered_source(
        &mut self,
        raw: &RawStream,
        trigger: &RawTrigger,
        at: &KeyPath,
        trigger_at: &KeyPath,
    ) {
        let (phase, jitter) = match raw.source {
            RawSource::Synthetic { phase_ms, jitter_ms, .. } => (phase_ms, jitter_ms),
            RawSource::File { phase_ms, .. } => (phase_ms, 0.0),
            RawSource::Uri { .. } | RawSource::Pipeline { .. } | RawSource::V4l2 { .. } => return,
        };
        let source = at.key("source");
        if phase > 0.0 {
            let message = "leave it out: the trigger's offset_ms says when its streams' frames are released";
            self.document.report_both(&source.key("phase_ms"), &at.key("trigger"), message);
        }
        if jitter > trigger.jitter_ms {
            let message = format!("must be no more than the trigger's jitter_ms, {}", trigger.jitter_ms);
            self.document.report_both(&source.key("jitter_ms"), &trigger_at.key("id"), &message);
        }
    }
}

/// The key that says a stream's period.
fn period_key(raw: &RawStream) -> &'static str {
    if raw.period_ms.is_some() { "period_ms" } else { "fps" }
}
