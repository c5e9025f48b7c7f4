//! Known pictures through a real driver: what goes into vivid's output comes out of its camera, and has to reach a
//! slot of the pool unchanged, byte for byte, whatever kind of memory it goes through.

use crate::agent::{self, Agent, LOOK, Told, now};
use crate::scenario::Bus;
use ocelli::board::{Board, SourceSpec, Stream};
use ocelli::capture::{self, Next, Resources};
use ocelli::image::ImageLayout;
use ocelli::platform::clock;
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::stats::{Copies, CopyStage};
use ocelli::stream::StreamId;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Frames in a row that must be the known picture.
const FRAMES: u64 = 30;
/// Frames before the first of them: the output starts after the camera.
const BEFORE: u64 = 60;
/// CEA-861's 640x480 at 60 Hz, by its position in the driver's list: the size that is neither cut nor scaled.
const TIMINGS: &str = "index=0";
const PICTURE: &str = "/tmp/picture";

/// Every stream of the board, one after the other.
pub fn check(agent: &mut Agent) -> Result<(), String> {
    let board = Board::load(Path::new("/board/test.toml")).map_err(|problems| problems.to_string())?;
    for stream in &board.streams {
        let (bus, camera) =
            agent.plan.camera(&stream.id).ok_or_else(|| format!("{} is no camera", stream.id))?;
        let device = agent.device(&stream.id)?;
        let output = output(&format!("{}-{camera:03}-vid-out", Bus::driver(bus)))?;
        for node in [&device, &output] {
            agent::run(Command::new("v4l2-ctl").args(["-d", node, "--set-dv-bt-timings", TIMINGS]))?;
        }
        let picture = picture(stream);
        fs::write(PICTURE, &picture).map_err(|error| format!("{PICTURE}: {error}"))?;
        let mut player = play(stream, &output)?;
        let compared = compare(stream, &picture);
        let _ = player.kill();
        let _ = player.wait();
        let (frames, copied) = compared.map_err(|why| format!("{}: {why}", stream.id))?;
        agent.tell(&Told::Known { at_ns: now(), stream: stream.id.clone(), frames, copied });
    }
    Ok(())
}

/// The device node of this name.
fn output(name: &str) -> Result<String, String> {
    for entry in fs::read_dir("/sys/class/video4linux").map_err(|error| error.to_string())?.flatten() {
        if fs::read_to_string(entry.path().join("name")).unwrap_or_default().trim() == name {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    Err(format!("there is no {name}"))
}

/// A picture in which every byte can be told from its neighbours, and no two lines are alike.
fn picture(stream: &Stream) -> Vec<u8> {
    let layout = ImageLayout::packed(stream.format, stream.width, stream.height);
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..layout.extent().unwrap_or(0)).map(|_| byte()).collect()
}

/// Shows the picture on an output, again and again.
fn play(stream: &Stream, output: &str) -> Result<Child, String> {
    let fourcc = match &stream.source {
        SourceSpec::V4l2(camera) => camera.fourcc.as_deref().unwrap_or("NV12"),
        _ => return Err(format!("{} is no camera", stream.id)),
    };
    let format = format!("width={},height={},pixelformat={fourcc}", stream.width, stream.height);
    let mut player = Command::new("v4l2-ctl");
    player.args(["-d", output, "--set-fmt-video-out", &format, "--stream-out-mmap", "--stream-loop"]);
    player.args(["--stream-from", PICTURE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    player.spawn().map_err(|error| format!("v4l2-ctl: {error}"))
}

/// How many frames were the picture, and how many bytes were copied for them.
fn compare(stream: &Stream, picture: &[u8]) -> Result<(u64, u64), String> {
    let specs = [ShareSpec { slots: capture::slots_needed(stream), slot_bytes: capture::slot_bytes(stream) }];
    let pool = Pool::new(&specs, false).map_err(|error| error.to_string())?;
    let copies = Arc::new(Copies::default());
    let resources = Resources { share: pool.share(StreamId(0)), copies: copies.clone(), start: clock::now() };
    let mut source = capture::open(stream);
    source.open(&resources).map_err(|error| error.to_string())?;
    let (mut seen, mut same) = (0, 0);
    let mut nothing = 0;
    while same < FRAMES {
        match source.next(clock::now() + LOOK) {
            Next::Frame(captured) => {
                nothing = 0;
                seen += 1;
                match difference(&captured.frame, picture) {
                    None => same += 1,
                    Some(at) if same > 0 || seen > BEFORE => {
                        return Err(format!("frame {seen} differs from the picture at {at}"));
                    }
                    Some(_) => {}
                }
            }
            Next::Nothing if nothing < 500 => nothing += 1,
            Next::Nothing => return Err("no frame for 5 s".to_owned()),
            Next::Failed(error) => return Err(error.to_string()),
            _ => {}
        }
    }
    source.close();
    Ok((same, copies.bytes(CopyStage::Capture)))
}

/// Where a frame is not the picture.
fn difference(frame: &FrameRef, picture: &[u8]) -> Option<String> {
    let layout = frame.layout();
    let packed = ImageLayout::packed(layout.format, layout.width, layout.height);
    for number in 0..layout.format.planes() {
        let (row, rows) = layout.format.plane_extent(number, layout.width, layout.height);
        let (is, should) = (layout.planes[number], packed.planes[number]);
        for y in 0..rows {
            let is = &frame.bytes()[is.offset + y * is.stride..][..row];
            let should = &picture[should.offset + y * should.stride..][..row];
            if let Some(x) = (0..row).find(|x| is[*x] != should[*x]) {
                return Some(format!(
                    "plane {number}, line {y}, byte {x}: {} in place of {}",
                    is[x], should[x]
                ));
            }
        }
    }
    None
}
