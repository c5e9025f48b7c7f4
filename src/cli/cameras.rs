//! `ocelli cameras`: what is plugged in, and how a board would use it.

use crate::cli::{Exit, Failure, say};
use clap::{Args, ValueEnum};
use ocelli::board::{Board, SourceSpec};
use ocelli::capture::v4l2::inventory::{
    Camera, Control, Format as Offered, Interval, Kind, Node, Proposal, Size, UsbBus, What, nodes,
};
use ocelli::image::PixelFormat;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Cameras {
    /// A board file: tells which of its streams takes which camera, and which camera is not there.
    board: Option<PathBuf>,
    /// How cameras are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What to look at where there is no camera.
const NONE: &str = "no camera is plugged in, as far as the kernel knows. Look at:
  cable and power   `lsusb` shows USB cameras, `dmesg | tail` what the kernel says when one is plugged in
  driver            USB cameras need `modprobe uvcvideo`; CSI cameras the board's device tree overlay for the sensor
  container         devices have to be passed in (--device /dev/video0)";

/// A camera with its node, and what boards do with it.
struct Found<'a> {
    node: &'a Node,
    camera: &'a Camera,
    /// Streams of the board that take their frames from it.
    streams: Vec<&'a str>,
    /// The streams' lines for a board, where it can be used and is not.
    snippet: Option<String>,
}

impl Cameras {
    pub(super) fn act(self) -> Result<(), Failure> {
        let board = self.board.as_deref().map(Board::load).transpose()?;
        let nodes = nodes();
        let wanted = board.as_ref().map(wanted).unwrap_or_default();
        let found = found(&nodes, board.as_ref(), &wanted);
        let missing: Vec<&(&str, &Path)> =
            wanted.iter().filter(|(_, device)| !found.iter().any(|found| is(found.node, device))).collect();
        let text = match self.format {
            Format::Table => table(&found, &nodes),
            Format::Json => format!("{:#}", to_json(&found, &nodes, &missing)),
        };
        say(&text)?;
        let closed = || nodes.iter().filter(|node| matches!(node.what, What::Closed { forbidden: true, .. }));
        if let Some((stream, device)) = missing.first() {
            let others =
                if missing.len() == 1 { String::new() } else { format!(" (and {} more)", missing.len() - 1) };
            let message = format!(
                "stream `{stream}`{others}: no camera at {}; plug it in, or name one of those above",
                device.display()
            );
            return Err(Failure::new(Exit::Unavailable, message));
        }
        if found.is_empty() && closed().next().is_some() {
            let message = "not one camera could be opened: no permission, see above";
            return Err(Failure::new(Exit::Forbidden, message));
        }
        Ok(())
    }
}

/// The board's V4L2 streams and their devices.
fn wanted(board: &Board) -> Vec<(&str, &Path)> {
    board
        .streams
        .iter()
        .filter_map(|stream| match &stream.source {
            SourceSpec::V4l2(camera) => Some((stream.id.as_str(), camera.device.as_path())),
            _ => None,
        })
        .collect()
}

/// Whether a device's name leads to the node.
fn is(node: &Node, device: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(device).is_some_and(|device| Some(device) == real(&node.path))
}

fn found<'a>(nodes: &'a [Node], board: Option<&'a Board>, wanted: &[(&'a str, &Path)]) -> Vec<Found<'a>> {
    let mut ids: BTreeSet<String> =
        board.iter().flat_map(|board| &board.streams).map(|stream| stream.id.clone()).collect();
    let model = board.and_then(|board| board.models.first()).map_or("person", |model| &model.id);
    let of = |node: &'a Node| {
        let What::Camera(camera) = &node.what else { return None };
        let streams: Vec<&str> =
            wanted.iter().filter(|(_, device)| is(node, device)).map(|(stream, _)| *stream).collect();
        let proposal = camera.proposal.as_ref().filter(|_| streams.is_empty());
        let snippet = proposal.map(|proposal| snippet(node, camera, proposal, model, &mut ids));
        Some(Found { node, camera, streams, snippet })
    };
    nodes.iter().filter_map(of).collect()
}

/// The name that a board should have for a camera.
fn name(node: &Node) -> &Path {
    node.by_path.as_ref().or(node.by_id.as_ref()).unwrap_or(&node.path)
}

/// A stream's name after the camera's: small letters and digits, not used yet.
fn id(card: &str, taken: &mut BTreeSet<String>) -> String {
    const LONGEST: usize = 28; // Of 32, with room for a number.
    let mut base = String::new();
    for part in card.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if base.len() + part.len() >= LONGEST {
            break;
        }
        if !base.is_empty() {
            base.push('-');
        }
        base.push_str(&part.to_ascii_lowercase());
    }
    if base.is_empty() {
        base.push_str("camera");
    }
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let id = std::iter::once(base.clone()).chain(numbered).find(|id| !taken.contains(id)).unwrap_or(base);
    taken.insert(id.clone());
    id
}

/// Lines for a board that `ocelli check` accepts.
fn snippet(
    node: &Node,
    camera: &Camera,
    proposal: &Proposal,
    model: &str,
    ids: &mut BTreeSet<String>,
) -> String {
    let Proposal { fourcc, format, is_jpeg, width, height, fps, is_guess } = *proposal;
    // A JSON string is a TOML string.
    let quoted = |text: &str| Value::from(text).to_string();
    let mut text = format!("# {}: {fourcc}", camera.identity.card.replace(char::is_control, " "));
    match (proposal.megabits(), &camera.usb) {
        (Some(rate), Some(bus)) => {
            let _ = write!(text, ", {rate:.0} of the USB bus's {} Mbit/s", bus.for_cameras());
        }
        (None, _) => text.push_str(" images, decoded by the CPU"),
        (Some(_), None) => {}
    }
    if is_guess {
        text.push_str("; it does not tell its rate, the one here is a guess");
    }
    let encoding = if is_jpeg { ", encoding = \"mjpeg\"" } else { "" };
    let _ = write!(
        text,
        "
[[streams]]
id = {}
source = {{ type = \"v4l2\", device = {}{encoding} }}
fps = {}
size = [{width}, {height}]
format = \"{}\"
latency_bound_ms = 100
model = {}",
        quoted(&id(&camera.identity.card, ids)),
        quoted(&name(node).to_string_lossy()),
        rate(fps),
        format.as_str(),
        quoted(model),
    );
    text
}

/// Frames a second, to a thousandth.
fn rate(fps: f64) -> String {
    let text = format!("{fps:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn fps(interval: Duration) -> f64 {
    1.0 / interval.as_secs_f64().max(1e-9)
}

fn table(found: &[Found<'_>], nodes: &[Node]) -> String {
    let mut text = String::new();
    for found in found {
        show(found, &mut text);
        text.push('\n');
    }
    let mut others = String::new();
    for node in nodes {
        let what = match &node.what {
            What::Camera(_) => continue,
            What::Other(what) => (*what).to_owned(),
            What::Closed { why, .. } => why.clone(),
        };
        let name = if node.name.is_empty() { String::new() } else { format!("{}: ", node.name) };
        let _ = writeln!(others, "  {}  {name}{what}", node.path.display());
    }
    if found.is_empty() {
        let what = if nodes.is_empty() { NONE } else { "no camera among these:" };
        let _ = writeln!(text, "{what}");
    } else if !others.is_empty() {
        text.push_str("no cameras:\n");
    }
    text.push_str(&others);
    let snippets: Vec<&str> = found.iter().filter_map(|found| found.snippet.as_deref()).collect();
    if !snippets.is_empty() {
        let _ = write!(text, "\n# For a board file; `ocelli check` says whether all of it is right.\n\n");
        text.push_str(&snippets.join("\n\n"));
    }
    text.trim_end().to_owned()
}

fn show(found: &Found<'_>, text: &mut String) {
    let Found { node, camera, streams, .. } = found;
    let identity = &camera.identity;
    let _ =
        writeln!(text, "{}  {} ({}, {})", node.path.display(), identity.card, identity.driver, identity.bus);
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:<9} {value}");
    };
    for name in [&node.by_path, &node.by_id].into_iter().flatten() {
        line("name", &name.to_string_lossy());
    }
    if node.by_path.is_none() && node.by_id.is_none() {
        line("name", "none but the node, which may be another camera after the next start");
    }
    if let Some(UsbBus { number, speed, cameras }) = &camera.usb {
        let for_cameras = camera.usb.as_ref().map_or(0, UsbBus::for_cameras);
        let own = camera.usb_speed.filter(|own| own != speed).map(|own| format!(", itself {own}"));
        let all =
            format!("bus {number}, {speed} Mbit/s{}, {for_cameras} for cameras", own.unwrap_or_default());
        let mine = format!("({})", node.path.display());
        let others: Vec<&str> =
            cameras.iter().map(String::as_str).filter(|camera| !camera.ends_with(&mine)).collect();
        let with =
            if others.is_empty() { String::new() } else { format!("; also on it: {}", others.join(", ")) };
        line("usb", &format!("{all}{with}"));
    }
    if let Some((input, signal)) = &camera.input {
        line("input", &format!("{input}{}", if *signal { "" } else { ", without a signal" }));
    }
    let planes = if camera.multi_planar { "multi-planar" } else { "single-planar" };
    let memory = match camera.memory.is_empty() {
        true => "not told while another program has it".to_owned(),
        false => camera.memory.join(", "),
    };
    line("memory", &format!("{memory}; {planes}"));
    if !streams.is_empty() {
        line("streams", &streams.join(", "));
    }
    if !camera.holders.is_empty() {
        line("in use by", &camera.holders.join(", "));
    }
    let usable = |offered: &&Offered| offered.format.is_some() || offered.is_jpeg;
    for offered in camera.formats.iter().filter(usable) {
        for (number, mode) in modes(offered).into_iter().enumerate() {
            let key = if number == 0 { offered.fourcc.to_string() } else { String::new() };
            let format = if number == 0 { meaning(offered) } else { "" };
            line(key.trim(), &format!("{format:<7} {mode}"));
        }
    }
    let others: Vec<String> = (camera.formats.iter().filter(|offered| !usable(offered)))
        .map(|offered| offered.fourcc.to_string().trim().to_owned())
        .collect();
    if !others.is_empty() {
        line("others", &format!("{}, which a board can't use", others.join(", ")));
    }
    let width = camera.controls.iter().map(|(control, _)| control.name.len()).max().unwrap_or(0);
    for (number, (control, value)) in camera.controls.iter().enumerate() {
        let key = if number == 0 { "controls" } else { "" };
        line(key, &format!("{:width$}  {}", control.name, range(control, *value)));
    }
}

/// What a format is to a board.
fn meaning(offered: &Offered) -> &'static str {
    offered.format.map_or("mjpeg", PixelFormat::as_str)
}

/// Sizes, each with its rates.
fn modes(offered: &Offered) -> Vec<String> {
    let rates = |intervals: &[Interval]| {
        let one = |interval: &Interval| match *interval {
            Interval::Exactly(interval) => rate(fps(interval)),
            Interval::Range(shortest, longest) => {
                format!("{} to {}", rate(fps(longest)), rate(fps(shortest)))
            }
        };
        match intervals.is_empty() {
            true => String::new(),
            false => format!(" at {} fps", intervals.iter().map(one).collect::<Vec<_>>().join(", ")),
        }
    };
    let size = |size: &Size| match *size {
        Size::Exactly(width, height) => format!("{width}x{height}"),
        Size::Range { least, most, step } => {
            let steps = if step.0.max(step.1) > 1 {
                format!(" in steps of {}x{}", step.0, step.1)
            } else {
                String::new()
            };
            format!("{}x{} to {}x{}{steps}", least.0, least.1, most.0, most.1)
        }
    };
    match offered.sizes.is_empty() {
        true => vec!["sizes not told".to_owned()],
        false => offered.sizes.iter().map(|(of, intervals)| size(of) + &rates(intervals)).collect(),
    }
}

/// A control's value and what it takes.
fn range(control: &Control, value: Option<i64>) -> String {
    let shown = |value: i64| match control.kind {
        Kind::Bitmask => format!("{value:#x}"),
        _ => value.to_string(),
    };
    if !control.is_settable() {
        let value = value.map(|value| format!("{}, ", shown(value))).unwrap_or_default();
        return format!("{value}not to be set by a board");
    }
    let now = value.map(|value| format!("{}; ", shown(value))).unwrap_or_default();
    let usually = match control.kind {
        Kind::Button => String::new(),
        _ => format!(", usually {}", shown(control.default)),
    };
    let inactive = if control.is_inactive() { "; decided by an automatic now" } else { "" };
    format!("{now}{control}{usually}{inactive}")
}

fn to_json(found: &[Found<'_>], nodes: &[Node], missing: &[&(&str, &Path)]) -> Value {
    let cameras = found.iter().map(|found| {
        let Found { node, camera, streams, snippet } = found;
        json!({
            "node": node.path,
            "by_path": node.by_path,
            "by_id": node.by_id,
            "card": camera.identity.card,
            "driver": camera.identity.driver,
            "bus": camera.identity.bus,
            "multi_planar": camera.multi_planar,
            "memory": camera.memory,
            "usb": camera.usb.as_ref().map(|bus| json!({
                "bus": bus.number,
                "bus_mbit_s": bus.speed,
                "for_cameras_mbit_s": bus.for_cameras(),
                "own_mbit_s": camera.usb_speed,
                "cameras": bus.cameras,
            })),
            "input": camera.input.as_ref().map(|(name, signal)| json!({ "name": name, "signal": signal })),
            "in_use_by": camera.holders,
            "streams": streams,
            "formats": camera.formats.iter().map(format_json).collect::<Vec<_>>(),
            "controls": camera.controls.iter().map(control_json).collect::<Vec<_>>(),
            "snippet": snippet,
        })
    });
    let other = |node: &Node| match &node.what {
        What::Other(what) => Some(json!({ "node": node.path, "name": node.name, "what": what })),
        _ => None,
    };
    let closed = |node: &Node| match &node.what {
        What::Closed { why, forbidden } => {
            Some(json!({ "node": node.path, "name": node.name, "why": why, "forbidden": forbidden }))
        }
        _ => None,
    };
    json!({
        "cameras": cameras.collect::<Vec<_>>(),
        "other_nodes": nodes.iter().filter_map(other).collect::<Vec<_>>(),
        "closed_nodes": nodes.iter().filter_map(closed).collect::<Vec<_>>(),
        "missing": missing.iter().map(|(stream, device)| json!({ "stream": stream, "device": device }))
            .collect::<Vec<_>>(),
    })
}

fn format_json(offered: &Offered) -> Value {
    let rounded = |interval| (fps(interval) * 1e3).round() / 1e3;
    let rates = |interval: &Interval| match *interval {
        Interval::Exactly(interval) => json!(rounded(interval)),
        Interval::Range(shortest, longest) => json!([rounded(longest), rounded(shortest)]),
    };
    let sizes = offered.sizes.iter().map(|(size, intervals)| {
        let fps: Vec<Value> = intervals.iter().map(rates).collect();
        match *size {
            Size::Exactly(width, height) => json!({ "size": [width, height], "fps": fps }),
            Size::Range { least, most, step } => {
                json!({ "least": least, "most": most, "step": step, "fps_of_most": fps })
            }
        }
    });
    json!({
        "fourcc": offered.fourcc.to_string(),
        "description": offered.description,
        "format": offered.format.map(|format| format.as_str()),
        "jpeg": offered.is_jpeg,
        "sizes": sizes.collect::<Vec<_>>(),
    })
}

fn control_json((control, value): &(Control, Option<i64>)) -> Value {
    let menu: serde_json::Map<String, Value> =
        control.menu.iter().map(|(entry, name)| (entry.to_string(), json!(name))).collect();
    json!({
        "name": control.name,
        "value": value,
        "minimum": control.minimum,
        "maximum": control.maximum,
        "step": control.step,
        "default": control.default,
        "menu": menu,
        "settable": control.is_settable(),
        "inactive": control.is_inactive(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use ocelli::capture::v4l2::inventory::{Fourcc, Identity};

    fn webcam(number: u32, card: &str) -> Node {
        let rates = |rates: &[f64]| -> Vec<Interval> {
            rates.iter().map(|rate| Interval::Exactly(Duration::from_secs_f64(1.0 / rate))).collect()
        };
        let offered = |fourcc: &[u8; 4], format, is_jpeg, sizes: &[(u32, u32, &[f64])]| Offered {
            fourcc: Fourcc(*fourcc),
            description: "in the driver's words".to_owned(),
            format,
            is_jpeg,
            sizes: sizes.iter().map(|(w, h, fps)| (Size::Exactly(*w, *h), rates(fps))).collect(),
        };
        let control = |name: &str, kind, flags, menu: &[(i64, &str)]| Control {
            id: 1,
            name: name.to_owned(),
            kind,
            minimum: 0,
            maximum: 255,
            step: 1,
            default: 128,
            flags,
            menu: menu.iter().map(|(value, name)| (*value, (*name).to_owned())).collect(),
        };
        let camera = Camera {
            identity: Identity {
                driver: "uvcvideo".to_owned(),
                card: card.to_owned(),
                bus: "usb-0000:00:14.0-2".to_owned(),
                capabilities: 0,
            },
            multi_planar: false,
            input: Some(("Camera 1".to_owned(), true)),
            memory: vec!["mmap", "userptr"],
            usb: Some(UsbBus {
                number: 1,
                speed: 480,
                cameras: vec![format!("{card} (/dev/video{number})"), "Thermal (/dev/video6)".to_owned()],
            }),
            usb_speed: Some(480),
            holders: vec!["cheese (process 12)".to_owned()],
            formats: vec![
                offered(
                    b"YUYV",
                    Some(PixelFormat::Yuy2),
                    false,
                    &[(640, 480, &[29.97, 15.0]), (1280, 720, &[10.0])],
                ),
                offered(b"MJPG", None, true, &[]),
                offered(b"H264", None, false, &[(1920, 1080, &[30.0])]),
            ],
            controls: vec![
                (control("gain", Kind::Integer { wide: false }, 0, &[]), Some(7)),
                (control("auto_exposure", Kind::Menu, 0, &[(1, "Manual"), (3, "Auto")]), Some(3)),
                (control("exposure", Kind::Integer { wide: false }, 0x10, &[]), None),
                (control("region", Kind::Other, 0, &[]), None),
            ],
            proposal: Some(Proposal {
                fourcc: Fourcc(*b"YUYV"),
                format: PixelFormat::Yuy2,
                is_jpeg: false,
                width: 640,
                height: 480,
                fps: 29.97,
                is_guess: false,
            }),
        };
        Node {
            path: format!("/dev/video{number}").into(),
            by_path: Some(
                format!("/dev/v4l/by-path/pci-0000:00:14.0-usb-0:{number}:1.0-video-index0").into(),
            ),
            by_id: None,
            name: card.to_owned(),
            what: What::Camera(Box::new(camera)),
        }
    }

    fn other(number: u32, what: What) -> Node {
        Node {
            path: format!("/dev/video{number}").into(),
            by_path: None,
            by_id: None,
            name: "HD".to_owned(),
            what,
        }
    }

    /// A board with these lines after its head.
    fn board(lines: &str) -> Result<Board, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("board.toml");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.toml");
        let head = format!(
            "config_version = 1\n[accelerator]\nbackend = \"simulated\"\nintercept_ms = 1\nslope_ms = 1\n\
             max_batch = 4\n[models.person]\nmanifest = {:?}\n",
            manifest
        );
        std::fs::write(&path, head + lines).unwrap();
        Board::load(&path).map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_is_proposed_is_a_board() {
        let mut nodes =
            vec![webcam(0, "HD \"Pro\" Webcam: C920"), webcam(2, "HD \"Pro\" Webcam: C920"), webcam(4, "é")];
        let What::Camera(last) = &mut nodes[2].what else { panic!() };
        last.usb = None;
        let proposal = last.proposal.as_mut().unwrap();
        (proposal.is_jpeg, proposal.fourcc, proposal.format) = (true, Fourcc(*b"MJPG"), PixelFormat::Nv12);
        (proposal.is_guess, proposal.fps) = (true, 30.0);
        let found = found(&nodes, None, &[]);
        let snippets: Vec<&str> = found.iter().filter_map(|found| found.snippet.as_deref()).collect();
        let board = board(&snippets.join("\n")).unwrap();
        assert_eq!(board.warnings, [] as [String; 0]);
        let ids: Vec<&str> = board.streams.iter().map(|stream| stream.id.as_str()).collect();
        assert_eq!(ids, ["hd-pro-webcam-c920", "hd-pro-webcam-c920-2", "camera"]);
        let devices: Vec<String> =
            wanted(&board).iter().map(|(_, device)| device.display().to_string()).collect();
        assert_eq!(devices[1], "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0");
        assert!(
            snippets[0].contains("147 of the USB bus's 384 Mbit/s") && snippets[0].contains("fps = 29.97")
        );
        assert!(
            snippets[2].contains("decoded by the CPU") && snippets[2].contains("a guess"),
            "{}",
            snippets[2]
        );
    }

    #[test]
    fn a_boards_own_cameras_are_not_proposed_again() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("video0");
        std::fs::write(&device, "").unwrap();
        let mut nodes = [webcam(0, "front"), webcam(2, "rear")];
        nodes[0].path.clone_from(&device);
        let stream = |id: &str, device: &Path| {
            format!(
                "[[streams]]\nid = {id:?}\nsource = {{ type = \"v4l2\", device = {device:?} }}\nfps = 30\n\
                 size = [640, 480]\nformat = \"YUY2\"\nlatency_bound_ms = 100\nmodel = \"person\"\n"
            )
        };
        let gone = Path::new("/dev/v4l/by-path/gone");
        let board = board(&(stream("rear", &device) + &stream("left", gone))).unwrap();
        let wanted = wanted(&board);
        let found = found(&nodes, Some(&board), &wanted);
        assert_eq!((found[0].streams.as_slice(), &found[0].snippet), (&["rear"][..], &None));
        assert!(found[1].snippet.as_ref().unwrap().contains("id = \"rear-2\""), "{:?}", found[1].snippet);
        assert!(table(&found, &nodes).contains("  streams   rear\n"));
        let json = to_json(&found, &nodes, &[&("left", gone)]);
        assert_eq!(json["cameras"][0]["streams"], json!(["rear"]));
        assert_eq!(json["missing"], json!([{ "stream": "left", "device": gone }]));
    }

    #[test]
    fn a_camera_is_shown_with_all_that_it_offers() {
        let nodes = [webcam(0, "HD Webcam"), other(1, What::Other("metadata of a camera, not its pictures"))];
        let found = found(&nodes, None, &[]);
        let expected = "\
/dev/video0  HD Webcam (uvcvideo, usb-0000:00:14.0-2)
  name      /dev/v4l/by-path/pci-0000:00:14.0-usb-0:0:1.0-video-index0
  usb       bus 1, 480 Mbit/s, 384 for cameras; also on it: Thermal (/dev/video6)
  input     Camera 1
  memory    mmap, userptr; single-planar
  in use by cheese (process 12)
  YUYV      YUY2    640x480 at 29.97, 15 fps
                    1280x720 at 10 fps
  MJPG      mjpeg   sizes not told
  others    H264, which a board can't use
  controls  gain           7; 0 to 255, usually 128
            auto_exposure  3; one of 1 (Manual), 3 (Auto), usually 128
            exposure       0 to 255, usually 128; decided by an automatic now
            region         not to be set by a board

no cameras:
  /dev/video1  HD: metadata of a camera, not its pictures

# For a board file; `ocelli check` says whether all of it is right.

# HD Webcam: YUYV, 147 of the USB bus's 384 Mbit/s
[[streams]]
";
        let shown = table(&found, &nodes);
        assert!(shown.starts_with(expected), "{shown}");
        let json = to_json(&found, &nodes, &[]);
        assert_eq!(
            json["cameras"][0]["formats"][0]["sizes"][0],
            json!({ "size": [640, 480], "fps": [29.97, 15.0] })
        );
        assert_eq!(json["cameras"][0]["controls"][1]["menu"], json!({ "1": "Manual", "3": "Auto" }));
        assert_eq!(json["other_nodes"][0]["node"], "/dev/video1");
    }

    #[test]
    fn without_a_camera_it_says_what_to_look_at() {
        assert!(table(&[], &[]).contains("modprobe uvcvideo"));
        assert_eq!(to_json(&[], &[], &[])["cameras"], json!([]));
        let why = "Permission denied: give the user the group `video`".to_owned();
        let nodes = [other(0, What::Closed { why, forbidden: true })];
        let shown = table(&found(&nodes, None, &[]), &nodes);
        assert_eq!(
            shown,
            "no camera among these:\n  /dev/video0  HD: Permission denied: give the user the group `video`"
        );
        assert_eq!(to_json(&[], &nodes, &[])["closed_nodes"][0]["forbidden"], true);
    }
}
