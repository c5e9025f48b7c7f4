//! A chart as SVG: latency quantiles and the bound over the number of streams.

use crate::bench::{Found, Probe, Quantiles};
use crate::board::Board;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
/// The plot's left, top, right and bottom edges.
const PLOT: (f64, f64, f64, f64) = (72.0, 64.0, 700.0, 448.0);

/// The series: name, class, which quantile.
type Take = fn(&Quantiles) -> Option<Duration>;
const SERIES: [(&str, &str, Take); 4] = [
    ("p50", "p50", |latency| latency.p50),
    ("p99", "p99", |latency| latency.p99),
    ("p99.9", "p999", |latency| latency.p99_9),
    ("max", "max", |latency| latency.max),
];

const STYLE: &str = "\
svg{background:#fff;font-family:system-ui,sans-serif;font-size:13px}
text{fill:#222}.title{font-size:17px;font-weight:600}.small{fill:#555;font-size:12px}
.axis{stroke:#222;fill:none}.grid{stroke:#ddd}.series{fill:none;stroke-width:2}
.p50{stroke:#1b7f4b;fill:#1b7f4b}.p99{stroke:#1f5fbf;fill:#1f5fbf}
.p999{stroke:#7a3fb0;fill:#7a3fb0}.max{stroke:#8a5a00;fill:#8a5a00}
.bound{stroke:#c22;stroke-width:2;stroke-dasharray:7 4}.found{stroke:#666;stroke-dasharray:2 4}
path.series{fill:none}
@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e8e8e8}.small{fill:#aaa}
.axis{stroke:#e8e8e8}.grid{stroke:#34373d}.p50{stroke:#5fd39a;fill:#5fd39a}.p99{stroke:#7fb2ff;fill:#7fb2ff}
.p999{stroke:#c9a0f5;fill:#c9a0f5}.max{stroke:#e8b04c;fill:#e8b04c}.bound{stroke:#ff6b6b}.found{stroke:#aaa}
path.series{fill:none}}";

/// Where a number of streams and a latency lie.
struct Scale {
    streams: (f64, f64),
    most_ms: f64,
}

impl Scale {
    fn x(&self, streams: f64) -> f64 {
        let (least, most) = self.streams;
        PLOT.0 + (PLOT.2 - PLOT.0) * (streams - least) / (most - least)
    }

    /// Latencies beyond the scale, and those without end, lie on its upper edge.
    fn y(&self, ms: Option<f64>) -> f64 {
        let share = ms.map_or(1.0, |ms| ms / self.most_ms).min(1.0);
        PLOT.3 - (PLOT.3 - PLOT.1) * share
    }
}

/// The chart of everything valid that was run at the declared rate up to 1.3 times the streams found.
#[must_use]
pub fn svg(board: &Board, found: &Found) -> String {
    let bound = board.streams.iter().map(|stream| stream.latency_bound).min().unwrap_or_default();
    let bound_ms = ms(bound);
    let most = found.streams.map_or(usize::MAX, |streams| (streams * 13).div_ceil(10).max(2));
    let mut points: BTreeMap<usize, &Probe> = BTreeMap::new();
    for probe in &found.probes {
        let fits = probe.is_valid() && (probe.offer.rate - 1.0).abs() < 1e-9 && probe.offer.streams <= most;
        if fits {
            // Later and longer runs say more.
            points.insert(probe.offer.streams, probe);
        }
    }
    let ends = (points.keys().min().copied().unwrap_or(0), points.keys().max().copied().unwrap_or(1));
    let streams = (ends.0.saturating_sub(1) as f64, (ends.1 + 1) as f64);
    let scale = Scale { streams, most_ms: nice(1.6 * bound_ms.max(0.001)) };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<title>{name}: latency over streams</title>\n\
         <text class=\"title\" x=\"{left}\" y=\"28\">{name}: capture to result</text>\n\
         <text class=\"small\" x=\"{left}\" y=\"47\">{under}</text>\n",
        name = escaped(&board.name),
        left = PLOT.0,
        under = escaped(&subtitle(found, bound_ms)),
    );
    axes(&mut out, &scale);
    let y = scale.y(Some(bound_ms));
    let _ = writeln!(
        out,
        "<line class=\"bound\" x1=\"{}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/>",
        PLOT.0, PLOT.2
    );
    if let Some(streams) = found.streams.filter(|streams| points.contains_key(streams)) {
        let x = scale.x(streams as f64);
        let _ = writeln!(
            out,
            "<line class=\"found\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\"/>",
            PLOT.1, PLOT.3
        );
    }
    for (name, class, take) in SERIES {
        series(&mut out, &scale, (name, class), &points, take);
    }
    legend(&mut out, &scale, bound_ms);
    out.push_str("</svg>\n");
    out
}

fn subtitle(found: &Found, bound_ms: f64) -> String {
    let result = match found.streams {
        Some(streams) => format!("{streams} streams in time"),
        None => "no valid result".to_owned(),
    };
    format!("{result}; bound {bound_ms:.1} ms; lost frames count as late for ever (upper edge)")
}

fn axes(out: &mut String, scale: &Scale) {
    let (left, top, right, bottom) = PLOT;
    let step = nice(scale.most_ms / 8.0);
    let mut tick = 0.0;
    while tick <= scale.most_ms * 1.0001 {
        let y = scale.y(Some(tick));
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 4.5,
            number(tick)
        );
        tick += step;
    }
    let (least, most) = scale.streams;
    let step = nice((most - least) / 10.0).max(1.0);
    let mut tick = (least / step).ceil() * step;
    while tick <= most {
        let x = scale.x(tick);
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{bottom}\" x2=\"{x:.1}\" y2=\"{}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 5.0,
            bottom + 21.0,
            number(tick)
        );
        tick += step;
    }
    let _ = writeln!(
        out,
        "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">streams</text>\
         <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">latency, ms</text>",
        f64::midpoint(left, right),
        bottom + 46.0,
        f64::midpoint(top, bottom)
    );
}

fn series(
    out: &mut String,
    scale: &Scale,
    (name, class): (&str, &str),
    points: &BTreeMap<usize, &Probe>,
    take: Take,
) {
    let mut path = String::new();
    let mut marks = String::new();
    for (&streams, probe) in points {
        let latency = take(&probe.latency).map(ms);
        let (x, y) = (scale.x(streams as f64), scale.y(latency));
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
        let said = latency.map_or("lost".to_owned(), |ms| format!("{ms:.3} ms"));
        let _ = write!(
            marks,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\">\
             <title>{streams} streams, {name}: {said}</title></circle>"
        );
    }
    let _ = writeln!(out, "<path id=\"{class}\" class=\"series {class}\" d=\"{path}\"/>{marks}");
}

fn legend(out: &mut String, scale: &Scale, bound_ms: f64) {
    let left = PLOT.2 + 24.0;
    let entries = [("bound", "bound")]
        .into_iter()
        .chain(SERIES.map(|(name, class, _)| (name, class)).into_iter().rev());
    for (index, (name, class)) in entries.enumerate() {
        let y = PLOT.1 + 12.0 + 24.0 * index as f64;
        let _ = writeln!(
            out,
            "<line class=\"{class}\" stroke-width=\"2\" x1=\"{left}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            left + 30.0,
            left + 40.0,
            y + 4.5
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"small\" x=\"{}\" y=\"{:.1}\">{} ms</text>",
        PLOT.2 + 6.0,
        scale.y(Some(bound_ms)) + 4.5,
        number(bound_ms)
    );
}

/// The next of 1, 2, 5, 10, 20, ... from `x` on.
fn nice(x: f64) -> f64 {
    let power = 10_f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|&step| step >= x * 0.9999).unwrap_or(x)
}

/// At most three decimals, and no zeros at the end.
fn number(x: f64) -> String {
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// Text that is safe between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
