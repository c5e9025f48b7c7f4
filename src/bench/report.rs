//! What was found, as a table for people and as JSON.

use crate::bench::{Found, Missed, Probe, Quantiles, Settings};
use crate::board::Board;
use crate::cause::MissCause;
use crate::job::DropReason;
use crate::runtime::Host;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Where and with what it was measured.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The backend's name and version.
    pub accelerator: String,
    /// Versions of what it stood on.
    pub host: Host,
    /// The system's load averages over 1, 5 and 15 minutes, at the end; `None` where it tells none.
    pub load_average: Option<[f64; 3]>,
}

/// The run that the headline's figures are from: the last of the number found.
fn headline(found: &Found) -> Option<&Probe> {
    let streams = found.streams?;
    let at = |probe: &&Probe| probe.offer.streams == streams && (probe.offer.rate - 1.0).abs() < 1e-9;
    let confirmed = found.probes.iter().rev().find(|probe| at(probe) && probe.confirmation);
    confirmed.or_else(|| found.probes.iter().rev().find(at))
}

/// Frames in time a second at the number found; the median of the confirmations.
fn carried(found: &Found) -> Option<f64> {
    let streams = found.streams?;
    let confirmed = found
        .probes
        .iter()
        .filter(|probe| probe.offer.streams == streams && probe.confirmation && probe.is_valid());
    let mut rates: Vec<f64> = confirmed.map(Probe::rate).collect();
    if rates.is_empty() {
        rates.push(headline(found).map_or(0.0, Probe::rate));
    }
    rates.sort_by(f64::total_cmp);
    Some(rates[rates.len() / 2])
}

/// The same against the bare loop's.
fn efficiency(board: &Board, found: &Found) -> Option<f64> {
    Some(carried(found)? / found.limits.bare.rate(board))
}

/// Share of what capacity allows that was met: of what was carried in time at the number found, or of what is
/// offered where that is less. (The bare loop's rate knows no deadlines.)
fn met_ratio(found: &Found, probe: &Probe) -> f64 {
    probe.rate() / probe.offered.min(carried(found).unwrap_or(f64::INFINITY))
}

/// Everything, for programs.
#[must_use]
pub fn to_json(board: &Board, settings: &Settings, found: &Found, at: &Circumstances) -> Value {
    let limits = &found.limits;
    let bare = board.models.iter().zip(&limits.bare.models).map(|(model, (rate, batch))| {
        json!({ "model": model.id, "frames_per_second": rounded(*rate), "batch": batch })
    });
    let services = board.models.iter().zip(&limits.median).map(|(model, table)| {
        let sizes = table.iter().map(|(jobs, l)| json!({ "batch": jobs, "p50_us": micros(*l) }));
        json!({ "model": model.id, "service": sizes.collect::<Vec<_>>() })
    });
    let overload = found.overload.iter().map(|(factor, probe)| {
        json!({
            "offered": factor,
            "streams": probe.offer.streams,
            "rate": rounded(probe.offer.rate),
            "met_ratio": rounded(met_ratio(found, probe)),
            "efficiency": rounded(probe.rate() / limits.bare.rate(board)),
            "critical_missed": probe.critical.total(),
            "critical_missed_by": causes(&probe.critical),
            "valid": probe.punctuality.is_valid(),
        })
    });
    let versions: Map<String, Value> =
        at.host.versions.iter().map(|(name, version)| (name.clone(), json!(version))).collect();
    json!({
        "v": 1,
        "board": board.name,
        "hash": board.digest,
        "accelerator": at.accelerator,
        "streams": found.streams,
        "streams_at_declared_rate": found.finer.map(rounded),
        "limit": {
            "upper": limits.upper,
            "admitted": limits.admitted,
            "bare_loop": limits.bare_loop,
            "aligned": limits.aligned,
        },
        "efficiency": efficiency(board, found).map(rounded),
        "percentile": settings.percentile.as_str(),
        "bound_us": board.streams.iter().map(|stream| micros(stream.latency_bound)).min(),
        "period_us": board.streams.iter().map(|stream| micros(stream.period)).min(),
        "latency_us": headline(found).map(|probe| quantiles(&probe.latency)),
        "overload": overload.collect::<Vec<_>>(),
        "load_average": at.load_average,
        "invalid": found.invalid,
        "releases": settings.releases.as_str(),
        "sources": settings.sources.as_str(),
        "seed": settings.seed,
        "bare_loop": bare.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
        "units": limits.units,
        "probes": found.probes.iter().map(probe_json).collect::<Vec<_>>(),
        "versions": versions,
    })
}

fn probe_json(probe: &Probe) -> Value {
    json!({
        "streams": probe.offer.streams,
        "rate": rounded(probe.offer.rate),
        "seconds": rounded(probe.time.as_secs_f64()),
        "confirmation": probe.confirmation,
        "valid": probe.is_valid(),
        "sources_late": rounded(probe.punctuality.share()),
        "passed": probe.passed,
        "captured": probe.ledger.captured,
        "met": probe.ledger.met,
        "met_share": rounded(probe.met()),
        "worst_stream_met_share": rounded(probe.worst_stream),
        "latency_us": quantiles(&probe.latency),
    })
}

fn quantiles(latency: &Quantiles) -> Value {
    let at = |latency: Option<Duration>| latency.map(micros);
    json!({
        "p50": at(latency.p50),
        "p99": at(latency.p99),
        "p99_9": at(latency.p99_9),
        "max": at(latency.max),
    })
}

/// Late frames by cause, dropped ones by reason; nothing where there are none.
fn causes(missed: &Missed) -> Value {
    let object = |counts: &mut dyn Iterator<Item = (&str, u64)>| -> Map<String, Value> {
        counts.filter(|&(_, count)| count > 0).map(|(name, count)| (name.to_owned(), json!(count))).collect()
    };
    let mut late = MissCause::ALL.into_iter().map(|cause| (cause.as_str(), missed.late[cause.index()]));
    let mut dropped =
        DropReason::ALL.into_iter().map(|reason| (reason.as_str(), missed.dropped[reason.index()]));
    let all = [("late", object(&mut late)), ("dropped", object(&mut dropped))];
    Value::Object(
        all.into_iter()
            .filter(|(_, counts)| !counts.is_empty())
            .map(|(name, counts)| (name.to_owned(), counts.into()))
            .collect(),
    )
}

/// Everything, for people.
#[must_use]
pub fn table(board: &Board, settings: &Settings, found: &Found, at: &Circumstances) -> String {
    let limits = &found.limits;
    let mut text = String::from("streams  rate  seconds     met %  worst stream %");
    let _ = write!(text, "    p50 ms    p99 ms  p99.9 ms    max ms");
    for probe in &found.probes {
        let _ = write!(text, "\n{}", line(probe));
    }
    let _ = write!(text, "\n\n{}", sentence(board, settings, found));
    let _ = write!(
        text,
        "\nlimits: {} by capacity, {} guaranteed for any phases, {} by a bare loop",
        limits.upper, limits.admitted, limits.bare_loop
    );
    if let Some(aligned) = limits.aligned {
        let _ = write!(text, ", {aligned} when all are released at once");
    }
    if let Some(units) = &limits.units {
        let _ = write!(text, "\n{units}");
    }
    for (model, (rate, batch)) in board.models.iter().zip(&limits.bare.models) {
        let _ = write!(text, "\nbare loop: {rate:.1} frames/s of {} in batches of {batch}", model.id);
    }
    if let Some(efficiency) = efficiency(board, found) {
        let _ = write!(text, "; in time, of that: {:.1} %", efficiency * 100.0);
    }
    if let Some(finer) = found.finer {
        let _ = write!(text, "\nfiner: {finer:.2} streams at their declared rate");
    }
    for (factor, probe) in &found.overload {
        let _ = write!(
            text,
            "\n{factor} times that load: {:.1} % of what was in time before still was ({:.1} % of what a bare loop \
             computes); critical frames missed: {}",
            met_ratio(found, probe) * 100.0,
            probe.rate() / limits.bare.rate(board) * 100.0,
            probe.critical.total(),
        );
        let causes = causes(&probe.critical);
        if probe.critical.total() > 0 {
            let _ = write!(text, " {causes}");
        }
        if !probe.punctuality.is_valid() {
            text.push_str(" (the sources were late: not to be relied on)");
        }
    }
    let _ = write!(text, "\naccelerator {}", at.accelerator);
    if let Some([one, five, fifteen]) = at.load_average {
        let _ = write!(text, "; load average {one:.2} {five:.2} {fifteen:.2}");
    }
    text
}

/// One run, for people: a line of the table.
#[must_use]
pub fn line(probe: &Probe) -> String {
    let Quantiles { p50, p99, p99_9, max } = probe.latency;
    let mut text = format!(
        "{:7} {:5.3} {:8.1} {:9.4} {:15.4}",
        probe.offer.streams,
        probe.offer.rate,
        probe.time.as_secs_f64(),
        probe.met() * 100.0,
        probe.worst_stream * 100.0
    );
    for latency in [p50, p99, p99_9, max] {
        let _ = match latency {
            Some(latency) => write!(text, " {:9.3}", latency.as_secs_f64() * 1e3),
            None => write!(text, " {:>9}", "lost"),
        };
    }
    text.push_str(match (probe.is_valid(), probe.passed) {
        (false, _) => "  invalid: ",
        (true, true) => "  in time",
        (true, false) => "  not in time",
    });
    if !probe.punctuality.is_valid() {
        let also = if probe.is_valid() { ", " } else { "" };
        let _ = write!(text, "{also}sources late for {:.3} %", probe.punctuality.share() * 100.0);
    }
    if probe.confirmation {
        text.push_str(" (confirmation)");
    }
    text
}

/// The headline.
fn sentence(board: &Board, settings: &Settings, found: &Found) -> String {
    let range = |times: Vec<Duration>| {
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (least, most) = (ms(times.iter().min()), ms(times.iter().max()));
        if (least - most).abs() < 1e-9 { format!("{least:.1}") } else { format!("{least:.1} to {most:.1}") }
    };
    let bounds = range(board.streams.iter().map(|stream| stream.latency_bound).collect());
    let periods = range(board.streams.iter().map(|stream| stream.period).collect());
    let how = format!(
        "{}, period {periods} ms, bound {bounds} ms, released {}, sources: {}",
        settings.percentile.as_str(),
        settings.releases.as_str(),
        match settings.sources {
            super::Sources::Memory => "frames in memory in place of the board's",
            super::Sources::Board => "the board's",
        }
    );
    match (found.streams, &found.invalid) {
        (Some(streams), _) => format!("{streams} streams subject to their latency bound ({how})"),
        (None, why) => format!("no result: {} ({how})", why.as_deref().unwrap_or("unknown")),
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn rounded(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Offer, Punctuality};
    use crate::stats::Ledger;

    #[test]
    fn late_sources_spoil_a_run_unless_it_is_in_time_all_the_same() {
        let probe = |passed, late| Probe {
            offer: Offer { streams: 2, rate: 1.0 },
            time: Duration::from_secs(1),
            confirmation: false,
            punctuality: Punctuality { releases: 1000, late },
            passed,
            ledger: Ledger { captured: 1000, met: 1000, ..Ledger::default() },
            worst_stream: 1.0,
            latency: Quantiles { p50: None, p99: None, p99_9: None, max: None },
            offered: 60.0,
            critical: Missed::default(),
        };
        for (passed, late, valid, said) in [
            (true, 0, true, "  in time"),
            (false, 0, true, "  not in time"),
            (true, 2, true, "  in time, sources late for 0.200 %"),
            (false, 2, false, "  invalid: sources late for 0.200 %"),
        ] {
            let probe = probe(passed, late);
            assert_eq!(probe.is_valid(), valid, "{said}");
            assert!(line(&probe).ends_with(said), "{}", line(&probe));
        }
    }

    #[test]
    fn missed_frames_are_told_by_cause_and_by_reason() {
        let mut missed = Missed::default();
        assert_eq!(causes(&missed), json!({}));
        missed.late[MissCause::Overrun.index()] = 2;
        missed.dropped[DropReason::QueueFull.index()] = 3;
        assert_eq!(causes(&missed), json!({"late": {"overrun": 2}, "dropped": {"queue_full": 3}}));
        assert_eq!(missed.total(), 5);
    }
}
