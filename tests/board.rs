//! Board files as people write them: what is taken, and what exactly is said of what is not.

#[path = "board/memory.rs"]
mod memory;

use memory::{MANIFEST, Memory};
use ocelli::board::Board;
use ocelli::config::Kind;
use std::path::Path;

const HEAD: &str = "config_version = 1
[accelerator]
backend = \"simulated\"
intercept_ms = 1
slope_ms = 1
max_batch = 4
[models.person]
manifest = \"person.toml\"
";

const FRONT: &str = "[[streams]]
id = \"front\"
source = { type = \"synthetic\" }
fps = 30
size = [640, 360]
format = \"NV12\"
latency_bound_ms = 100
model = \"person\"
";

fn load(text: &str) -> Result<Board, String> {
    let memory = Memory::default().with("b/board.toml", text).with("b/person.toml", MANIFEST);
    Board::load_from(&memory, Path::new("b/board.toml")).map_err(|problems| problems.to_string())
}

fn said(text: &str) -> String {
    match load(text) {
        Ok(_) => "no problem".to_owned(),
        Err(problems) => problems,
    }
}

/// What is said of the front stream with one line of it replaced.
fn front_with(line: &str, other: &str) -> String {
    assert!(FRONT.contains(line), "{line}");
    said(&format!("{HEAD}{}", FRONT.replace(line, other)))
}

#[test]
fn x() {
    for (a, b) in [
        ("fps = 30", "fps = 0"),
        ("fps = 30", "fps = nan"),
        ("fps = 30", "fps = 30\nperiod_ms = 33"),
        ("fps = 30\n", ""),
        ("fps = 30", "fps = 30\ncritcal = true"),
        ("fps = 30", "fps = 30\ncriticality = \"critcal\""),
        ("size = [640, 360]", "size = \"640x360\""),
        ("size = [640, 360]", "size = [640]"),
        ("size = [640, 360]", "size = [641, 360]"),
        ("size = [640, 360]", "size = [640, 0]"),
        ("size = [640, 360]\n", ""),
        ("model = \"person\"", "model = \"persn\""),
        ("type = \"synthetic\"", "type = \"syntetic\""),
        ("type = \"synthetic\"", "type = \"synthetic\", path = \"x.mp4\""),
        ("type = \"synthetic\"", "path = \"x.mp4\""),
        ("{ type = \"synthetic\" }", "\"x.mp4\""),
        ("{ type = \"synthetic\" }", "{ type = \"uri\", uri = \"rtsp://joe:secret@h/ a\" }"),
        ("{ type = \"synthetic\" }", "{ type = \"uri\", uri = \"rtsp://joe:${PW}@h/\" }"),
        ("{ type = \"synthetic\" }", "{ type = \"synthetic\", jitter_ms = 40 }"),
        ("id = \"front\"", "id = \"Front camera\""),
        ("[[streams]]", "[streams]"),
        ("[[streams]]", "[[stream]]"),
        ("latency_bound_ms = 100", "latency_bound = 100"),
        ("latency_bound_ms = 100", "latency_bound_ms = 100 ms"),
        ("format = \"NV12\"", "format = \"nv12\""),
    ] {
        println!("--- {b}\n{}", front_with(a, b));
    }
    println!("{}", said(""));
    println!("{}", said("x = ["));
    println!("{}", said(&format!("{HEAD}{FRONT}{FRONT}")));
    println!(
        "{}",
        said(&format!("{}{FRONT}", HEAD.replace("max_batch = 4", "max_batch = 65\nsessions = 2\nseed=-1")))
    );
}
