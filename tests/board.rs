//! Board files as people write them: what is taken, and what exactly is said of what is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "board/memory.rs"]
mod memory;

use memory::{MANIFEST, Memory};
use ocelli::board::{Board, HardwareWatchdog, SourceSpec, Supervision};
use ocelli::config::Kind;
use ocelli::model::Decoder;
use ocelli::stream::Criticality;
use std::path::Path;
use std::time::Duration;

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

/// That `line` of the front stream, written as `other`, is refused with exactly `problem`.
#[track_caller]
fn refused(line: &str, other: &str, problem: &str) {
    assert_eq!(front_with(line, other), format!("b/board.toml:{problem}\n1 problem in b/board.toml"));
}

#[test]
fn every_board_that_comes_with_ocelli_is_valid() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/boards")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let board = Board::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
            // What scripts/run has yet to fetch may be missing; nothing else may look wrong.
            let fetched =
                |warning: &String| warning.contains("assets/") && warning.contains("there is no file");
            assert!(board.warnings.iter().all(fetched), "{:#?}", board.warnings);
            assert_eq!(
                board.to_string().lines().filter(|l| l.starts_with("stream ")).count(),
                board.streams.len()
            );
            names.push(board.name);
        }
    }
    names.sort();
    assert_eq!(
        names,
        ["agx-orin", "bench", "host", "orin-nano", "orin-nx", "simulated", "thor", "triggered"]
    );
}

#[test]
fn the_host_board_means_what_it_says() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/boards/host.toml"));
    let board = Board::load(path).unwrap();
    let phases: Vec<_> = board
        .streams
        .iter()
        .map(|stream| match &stream.source {
            SourceSpec::File { path, repeat: true, phase }
                if path.to_string_lossy().contains("assets/video") =>
            {
                (stream.period.as_millis(), phase.as_millis(), stream.width, stream.latency_bound.as_millis())
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(phases, [(100, 0, 768, 100), (100, 50, 768, 100), (40, 5, 640, 100), (40, 25, 640, 100)]);
    let model = &board.models[0];
    assert!(board.models.len() == 1 && model.file.ends_with("models/person-ssdlite.int8.onnx"));
    assert_eq!((model.input.width, model.input.scale, model.input.offset), (300, [1.0 / 127.5; 3], [0.0; 3]));
    let Decoder::Ssd { anchors, suppression, background: true, .. } = &model.decoder else { panic!() };
    assert_eq!(anchors.first, [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]);
    assert_eq!((anchors.ratios.len(), anchors.ratios[4]), (5, 1.0 / 3.0));
    assert_eq!(
        (suppression.score_threshold, suppression.iou_threshold, suppression.candidates),
        (0.4, 0.5, 200)
    );
}

#[test]
fn a_plain_board_has_the_defaults_that_the_schema_names() {
    let board = load(&format!("{HEAD}{FRONT}")).unwrap();
    let stream = &board.streams[0];
    assert_eq!((board.name.as_str(), board.warnings.len(), board.digest.len()), ("board", 0, 64));
    assert_eq!((stream.period.as_nanos(), stream.latency_bound.as_millis()), (33_333_333, 100));
    let nothing = SourceSpec::Synthetic { phase: Duration::ZERO, jitter: Duration::ZERO, seed: 0 };
    assert_eq!(
        (&stream.source, stream.criticality, stream.stale_results),
        (&nothing, Criticality::Normal, false)
    );
    assert_eq!(
        board.to_string().lines().skip(1).collect::<Vec<_>>(),
        [
            "accelerator simulated: 1 ms + 1 ms a frame, jitter 0 ms, seed 0, fail_every 0, batches of 4 at most",
            "model person: b/person.onnx (fp32), input 320x320, labels 1",
            "stream front: synthetic, phase 0 ms, jitter 0 ms, seed 0, 640x360 NV12, color as the source says, \
             every 33.333333 ms, bound 100 ms, normal, late results dropped, 1 of 30 frames may be missed, model person",
            "realtime: lock_memory try, fifo try, shallow_idle try, cpus any",
            "platform: thermal zones [], power rails [], gpu load [], gpu clock []",
            "supervision: hardware watchdog none, restart not allowed, no last ledger",
        ]
    );
}

#[test]
fn numbers_out_of_range() {
    refused("fps = 30", "fps = 0", "12:7: streams[0].fps = 0\n    too small: 0.0003 to 10000 is allowed");
    refused("fps = 30", "fps = nan", "12:7: streams[0].fps = nan\n    must be a finite number");
    refused(
        "fps = 30",
        "fps = \"30\"",
        "12:7: streams[0].fps = \"30\"\n    a number is needed here, not a string",
    );
    refused(
        "latency_bound_ms = 100",
        "latency_bound_ms = -5",
        "15:20: streams[0].latency_bound_ms = -5\n    too small: 0.001 to 3600000 is allowed; \
         for example latency_bound_ms = 100",
    );
    refused(
        "type = \"synthetic\"",
        "type = \"synthetic\", seed = 99999999999999999999999999999999999999999",
        "11:39: streams[0].source.seed = 99999999999999999999999999999999999999999\n    too large: at most 9223372036854775807",
    );
}

#[test]
fn rates_and_sizes() {
    refused(
        "fps = 30",
        "fps = 30\nperiod_ms = 33",
        "12:7: streams[0].fps = 30\n    period_ms is given too; either period_ms or fps, not both",
    );
    refused(
        "fps = 30\n",
        "",
        "9:1: streams[0].period_ms\n    missing; either period_ms or fps is needed here",
    );
    refused(
        "size = [640, 360]",
        "size = \"640x360\"",
        "13:8: streams[0].size = \"640x360\"\n    an array is needed here, not a string; \
         for example size = [1280, 720]",
    );
    refused(
        "size = [640, 360]",
        "size = [640]",
        "13:8: streams[0].size = [640]\n    exactly 2 needed here, there are 1; for example size = [1280, 720]",
    );
    refused(
        "size = [640, 360]",
        "size = [640, 0]",
        "13:14: streams[0].size[1] = 0\n    too small: 1 to 8192 is allowed",
    );
    refused(
        "size = [640, 360]",
        "size = [641, 360]",
        "13:8: streams[0].size = [641, 360]\n    NV12 needs an even width and height \
         (see streams[0].format at b/board.toml:14:10)",
    );
    refused(
        "size = [640, 360]\nformat = \"NV12\"",
        "size = [641, 361]\nformat = \"UYVY\"",
        "13:8: streams[0].size = [641, 361]\n    UYVY needs an even width \
         (see streams[0].format at b/board.toml:14:10)",
    );
    refused(
        "size = [640, 360]\nformat = \"NV12\"",
        "size = [640, 361]\nformat = \"GRBG10\"",
        "13:8: streams[0].size = [640, 361]\n    GRBG10 needs an even width and height \
         (see streams[0].format at b/board.toml:14:10)",
    );
    refused(
        "size = [640, 360]\n",
        "",
        "9:1: streams[0].size\n    missing. Width and height of its frames in pixels; \
         for example size = [1280, 720]",
    );
    refused(
        "{ type = \"synthetic\" }",
        "{ type = \"synthetic\", jitter_ms = 40 }",
        "11:44: streams[0].source.jitter_ms = 40\n    must be less than the stream's period, or frames would \
         change places (see streams[0].fps at b/board.toml:12:7)",
    );
}

#[test]
fn a_mosaic_is_for_cameras_without_gstreamer() {
    let mosaic = FRONT.replace("NV12", "RGGB10");
    let board = load(&format!("{HEAD}{mosaic}")).unwrap();
    let warnings = board.warnings.concat();
    assert!(warnings.contains("streams[0].format") && warnings.contains("not white-balanced"), "{warnings}");
    let piped = mosaic.replace("type = \"synthetic\"", "type = \"pipeline\", description = \"videotestsrc\"");
    assert_eq!(
        said(&format!("{HEAD}{piped}")),
        "b/board.toml:14:10: streams[0].format = \"RGGB10\"\n    GStreamer's raw video has no mosaics; let the \
         pipeline make RGB of it (bayer2rgb ! videoconvert) and write format = \"RGB\" \
         (see streams[0].source.type at b/board.toml:11:19)\n1 problem in b/board.toml"
    );
}

#[test]
fn misspelt_words() {
    refused(
        "fps = 30",
        "fps = 30\ncritcal = true",
        "13:1: streams[0].critcal\n    unknown key; did you mean criticality?",
    );
    refused(
        "fps = 30",
        "fps = 30\ncriticality = \"critcal\"",
        "13:15: streams[0].criticality = \"critcal\"\n    not known here; did you mean \"critical\"? \
         One of \"best-effort\", \"normal\", \"critical\"",
    );
    refused(
        "fps = 30",
        "fps = 30\n\"q q\" = 1",
        "13:1: streams[0].\"q q\"\n    unknown key; known here: cheaper_model, color, criticality, faults, \
         format, fps, freshness_ms, id, latency_bound_ms, misses, model, period_ms, size, source, \
         stale_results, trigger",
    );
    refused(
        "format = \"NV12\"",
        "format = \"nv12\"",
        "14:10: streams[0].format = \"nv12\"\n    not known here; did you mean \"NV12\"? \
         One of \"NV12\", \"I420\", \"YUY2\", \"UYVY\", \"RGB\", \"BGR\", \"GRAY8\", \"RGGB8\", \"GRBG8\", \
         \"GBRG8\", \"BGGR8\", \"RGGB10\", \"GRBG10\", \"GBRG10\", \"BGGR10\"",
    );
    refused(
        "model = \"person\"",
        "model = \"persn\"",
        "16:9: streams[0].model = \"persn\"\n    is not a model of this board; did you mean \"person\"?",
    );
    refused(
        "model = \"person\"",
        "model = \"cars\"",
        "16:9: streams[0].model = \"cars\"\n    is not a model of this board; its models: person",
    );
    refused(
        "id = \"front\"",
        "id = \"Front camera\"",
        "10:6: streams[0].id = \"Front camera\"\n    must be 1 to 32 of the characters a-z, 0-9, _ and -",
    );
}

#[test]
fn sources() {
    refused(
        "type = \"synthetic\"",
        "type = \"syntetic\"",
        "11:19: streams[0].source.type = \"syntetic\"\n    not known here; did you mean \"synthetic\"? \
         One of \"synthetic\", \"file\", \"uri\", \"pipeline\", \"v4l2\"",
    );
    refused(
        "type = \"synthetic\"",
        "type = \"synthetic\", path = \"x.mp4\"",
        "11:32: streams[0].source.path\n    this key is for type = \"file\" only; take it out here",
    );
    refused(
        "{ type = \"synthetic\" }",
        "\"x.mp4\"",
        "11:10: streams[0].source = \"x.mp4\"\n    a table is needed here, not a string; \
         for example source = { type = \"file\", path = \"street.mp4\" }",
    );
    refused(
        "type = \"synthetic\"",
        "path = \"x.mp4\"",
        "11:10: streams[0].source.type\n    missing; one of \"synthetic\", \"file\", \"uri\", \"pipeline\", \"v4l2\" \
         is needed here; for example source = { type = \"file\", path = \"street.mp4\" }",
    );
    refused(
        "{ type = \"synthetic\" }",
        "{ type = \"uri\", uri = \"/dev/video0\" }",
        "11:32: streams[0].source.uri = \"/dev/video0\"\n    \
         an address begins with rtsp://, rtsps://, http:// or https://",
    );
    refused(
        "fps = 30",
        "fps = 30\nfaults = { stall_at = 3 }",
        "13:23: streams[0].faults.stall_at = 3\n    stall_ms is missing; stall_at and stall_ms go together",
    );
}

#[test]
fn credentials_are_never_shown() {
    let hidden = ["joe", "s3cret", "tresor"];
    let memory = |source: &str| {
        let text = FRONT.replace("{ type = \"synthetic\" }", source);
        let mut memory =
            Memory::default().with("b/board.toml", format!("{HEAD}{text}")).with("b/person.toml", MANIFEST);
        memory.variables.insert("CAM_PW".into(), "tresor".into());
        Board::load_from(&memory, Path::new("b/board.toml"))
    };
    for source in [
        "{ type = \"uri\", uri = \"rtsp://joe:s3cret@10.0.0.4/a\" }",
        "{ type = \"uri\", uri = \"rtsp://joe:${CAM_PW}@10.0.0.4/a?token=s3cret\" }",
        "{ type = \"pipeline\", description = \"rtspsrc location=rtsp://10.0.0.4/a user-id=joe user-pw=${CAM_PW}\" }",
    ] {
        let board = memory(source).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = format!("{board} {board:?}");
        assert!(shown.contains("10.0.0.4/a"), "{shown}");
        hidden.iter().for_each(|secret| assert!(!shown.contains(secret), "{shown}"));
    }
    for source in [
        "{ type = \"uri\", uri = \"rtsp://joe:s3cret@10.0.0.4/ a\" }",
        "{ type = \"uri\", uri = \"rtsp://joe:${CAM_PW}@10.0.0.4/${OTHER}\" }",
        "{ type = \"uri\", uri = [\"rtsp://joe:s3cret@10.0.0.4/\"] }",
        "{ type = \"file\", path = \"a\", password = \"s3cret\" }",
        "{ type = \"file\", path = \"a\", uri = \"rtsp://joe:s3cret@10.0.0.4/\" }",
        "{ type = \"rtsp://joe:s3cret@10.0.0.4/\" }",
        "{ type = \"file\", path = \"rtsp://joe:s3cret@10.0.0.4/\" }",
        "{ type = \"uri\", \"rtsp://joe:s3cret@10.0.0.4/\" = 1 }",
        "{ type = \"uri\", uri = \"rtsp://joe:s3cret@10.0.0.4/ }",
    ] {
        let problems = memory(source).expect_err(source);
        let shown = format!("{problems} {problems:?}");
        hidden.iter().for_each(|secret| assert!(!shown.contains(secret), "{shown}"));
    }
    let inherit = "inherit = [\"rtsp://joe:s3cret@10.0.0.4/\"]";
    assert!(!said(inherit).contains("s3cret"), "{}", said(inherit));
    let digest = |password: &str| {
        memory(&format!("{{ type = \"uri\", uri = \"rtsp://joe:{password}@10.0.0.4/a\" }}")).unwrap().digest
    };
    assert_eq!(digest("s3cret"), digest("tresor"));
    assert_ne!(digest("s3cret"), memory("{ type = \"synthetic\" }").unwrap().digest);
    let warnings = memory("{ type = \"uri\", uri = \"rtsp://joe:s3cret@10.0.0.4/a\" }").unwrap().warnings;
    let warning = "b/board.toml:11:32: streams[0].source.uri: holds credentials; write ${NAME} and set NAME in \
                   the environment instead";
    assert_eq!(warnings, [warning]);
}

#[test]
fn whole_files() {
    assert_eq!(
        said(""),
        "\
b/board.toml:1:1: config_version
    missing. Version of this format: 1; for example config_version = 1
b/board.toml:1:1: accelerator
    missing. What computes; it begins with [accelerator]
b/board.toml:1:1: models
    missing. The models, by name; each begins with [models.NAME]
b/board.toml:1:1: streams
    missing. The cameras; each begins with [[streams]]
4 problems in b/board.toml"
    );
    assert_eq!(
        said("a = [\nb = 1"),
        "\
b/board.toml:2:3
    not TOML: unexpected `=` in array, expected value, `]`
1 problem in b/board.toml"
    );
    refused(
        "latency_bound_ms = 100",
        "latency_bound_ms = 100 ms",
        "15:20\n    not TOML: string values must be quoted, expected literal string",
    );
    refused(
        "[[streams]]",
        "[streams]",
        "9:1: streams\n    one or more tables are needed here, each begun by [[streams]], not a table",
    );
    assert!(load(&format!("\u{feff}{HEAD}{FRONT}").replace('\n', "\r\n")).is_ok());
    let newer = format!("{HEAD}{FRONT}").replace("config_version = 1", "config_version = 2");
    assert_eq!(
        said(&newer),
        "\
b/board.toml:1:18: config_version = 2
    must be 1; for example config_version = 1
1 problem in b/board.toml"
    );
}

#[test]
fn all_errors_at_once_in_the_order_of_lines() {
    let head = HEAD.replace("max_batch = 4", "max_batch = 65\nsessions = 2\nseed = -1");
    let rest = "[[sets]]\nid = \"all\"\nstreams = [\"front\", \"frnt\", \"front\"]\ndeadline_ms = 100\n\
                [[outputs]]\nname = \"a\"\ntype = \"stdout\"\n[[outputs]]\nname = \"a\"\ntype = \"stdout\"\n";
    assert_eq!(said(&format!("{head}{FRONT}{FRONT}{rest}")), "\
b/board.toml:6:13: accelerator.max_batch = 65
    too large: 1 to 64 is allowed
b/board.toml:7:1: accelerator.sessions
    this key is for backend = \"onnxruntime\" only; take it out here
b/board.toml:8:8: accelerator.seed = -1
    too small: at least 0
b/board.toml:20:6: streams[1].id = \"front\"
    used twice; each of the streams needs its own id (see streams[0].id at b/board.toml:12:6)
b/board.toml:29:21: sets[0].streams[1] = \"frnt\"
    is not a stream of this board; did you mean \"front\"?
b/board.toml:29:29: sets[0].streams[2] = \"front\"
    this stream is in a set already; a stream is in one set at most (see sets[0].streams[0] at b/board.toml:29:12)
b/board.toml:35:8: outputs[1].name = \"a\"
    used twice; each of the outputs needs its own name (see outputs[0].name at b/board.toml:32:8)
b/board.toml:36:8: outputs[1].type = \"stdout\"
    another output goes there already (see outputs[0].type at b/board.toml:33:8)
8 problems in b/board.toml");
    let many =
        said(&format!("{HEAD}{FRONT}{}", (0..150).map(|n| format!("wrong{n} = 1\n")).collect::<String>()));
    assert!(many.ends_with("\n150 problems in b/board.toml, the first 100 are shown"), "{many}");
}

/// What is said of `files`, the first of which is the board.
fn said_of(files: &[(&str, &str)]) -> (Kind, String) {
    let memory = files.iter().fold(Memory::default(), |memory, (path, text)| memory.with(path, text));
    let problems = Board::load_from(&memory, Path::new(files[0].0)).unwrap_err();
    (problems.kind(), problems.to_string())
}

#[test]
fn inheriting_adds() {
    let memory = Memory::default()
        .with(
            "b/board.toml",
            format!("inherit = [\"base/a.toml\", \"base/b.toml\"]\nconfig_version = 1\n{FRONT}"),
        )
        .with("b/base/a.toml", HEAD)
        .with(
            "b/base/b.toml",
            FRONT.replace("front", "rear").replace("size = [", "faults = { drop = 0.5 }\nsize = ["),
        )
        .with("b/base/person.toml", MANIFEST);
    let board = Board::load_from(&memory, Path::new("b/board.toml")).unwrap_or_else(|p| panic!("{p}"));
    let ids: Vec<&str> = board.streams.iter().map(|stream| stream.id.as_str()).collect();
    // Paths lead on from the file in which they stand; inherited entries come first.
    assert_eq!((ids, board.models[0].file.to_str()), (vec!["rear", "front"], Some("b/base/person.onnx")));
}

#[test]
fn inheriting_in_conflict_is_refused() {
    let board = format!(
        "inherit = [\"base.toml\"]\nconfig_version = 1\n[accelerator]\nmax_batch = 8\nmax_bach = 8\n{FRONT}"
    );
    assert_eq!(
        said_of(&[("b/board.toml", &board), ("b/base.toml", HEAD), ("b/person.toml", MANIFEST)]).1,
        "\
b/board.toml:4:13: accelerator.max_batch = 8
    set to something else at b/base.toml:6:13, which is inherited; keep one of both
b/board.toml:5:1: accelerator.max_bach
    unknown key; did you mean max_batch?
2 problems in b/board.toml"
    );
    assert_eq!(
        said_of(&[
            ("a.toml", "inherit = [\"b.toml\", \"c.toml\"]"),
            ("b.toml", "inherit = [\"d.toml\"]"),
            ("c.toml", "\ninherit = [\"./d.toml\"]"),
            ("d.toml", "")
        ])
        .1,
        "\
c.toml:2:12: inherit[0] = \"./d.toml\"
    a file may be reached by one way only: it is inherited at b.toml:1:12 already
1 problem in a.toml"
    );
    assert_eq!(
        said_of(&[("a.toml", "inherit = [\"b.toml\"]"), ("b.toml", "inherit = [\"x/../a.toml\"]")]).1,
        "\
b.toml:1:12: inherit[0] = \"x/../a.toml\"
    a file may be reached by one way only: it is where the reading began
1 problem in a.toml"
    );
    assert_eq!(
        said_of(&[("a.toml", "inherit = [\"bse.toml\"]"), ("base.toml", "")]),
        (
            Kind::MissingInput,
            "\
a.toml:1:12: inherit[0] = \"bse.toml\"
    there is no file bse.toml; did you mean base.toml?
1 problem in a.toml"
                .into()
        )
    );
    let text = format!("inherit = \"base.toml\"\n{HEAD}{FRONT}");
    assert_eq!(
        said(&text),
        "\
b/board.toml:1:11: inherit = \"base.toml\"
    an array is needed here, not a string
1 problem in b/board.toml"
    );
}

#[test]
fn manifests() {
    let board = format!("{HEAD}{FRONT}");
    assert_eq!(
        said_of(&[("b/board.toml", &board), ("b/persons.toml", MANIFEST)]),
        (
            Kind::MissingInput,
            "\
b/board.toml:8:12: models.person.manifest = \"person.toml\"
    there is no file b/person.toml; did you mean persons.toml?
1 problem in b/board.toml"
                .into()
        )
    );
    let manifest = |edits: &[(&str, &str)]| {
        let text = edits.iter().fold(MANIFEST.to_owned(), |text, (line, other)| {
            assert!(text.contains(line), "{line}");
            text.replace(line, other)
        });
        said_of(&[
            ("b/board.toml", &board),
            ("b/person.toml", &text),
            ("b/empty.txt", "\n"),
            ("b/x.txt", "a\nb\n"),
        ])
    };
    let edits = [
        ("sha256 = \"0", "sha256 = \"O"),
        ("layout = \"nchw\"", "layout = \"nchv\""),
        ("mean = [0.5]", "mean = [0.5, 0.5]"),
        ("size = [320, 320]", "size = [320, 330]\nscale = [0.0]"),
        ("head = \"v8\"", "head = \"yolox\"\nvariance = [1.0]"),
        ("labels = [\"person\"]", "labels_file = \"empty.txt\""),
        ("score_threshold = 0.4", "score_threshold = 40"),
    ];
    assert_eq!(
        manifest(&edits),
        (
            Kind::Model,
            "\
b/person.toml:6:10: sha256 = \"O0000000000000000000000000000000000000000000000000000000000...
    must be 64 digits of 0-9 and a-f, as sha256sum prints them
b/person.toml:8:15: labels_file = \"empty.txt\"
    0 labels in this file; 1 to 10000 are needed, one a line
b/person.toml:11:10: input.layout = \"nchv\"
    not known here; did you mean \"nchw\"? One of \"nhwc\", \"nchw\"
b/person.toml:13:8: input.size = [320, 330]
    a yolox head needs multiples of 32 (see decoder.head at b/person.toml:22:8)
b/person.toml:14:9: input.scale = [0.0]
    std is given too; either scale and offset, or mean and std (see input.std at b/person.toml:18:7)
b/person.toml:17:8: input.mean = [0.5, 0.5]
    2 numbers; 1 or 3 numbers needed for these channels (see input.channels at b/person.toml:15:12)
b/person.toml:23:1: decoder.variance
    this key is for kind = \"ssd\" only; take it out here
b/person.toml:24:19: decoder.score_threshold = 40
    too large: 0 to 1 is allowed
8 problems in b/board.toml"
                .into()
        )
    );
    let both = [("labels = [\"person\"]", "labels = [\"person\"]\nlabels_file = \"x.txt\"")];
    assert!(manifest(&both).1.contains("labels is given too; either labels or labels_file, not both"));
}

#[test]
fn mean_and_std_become_scale_and_offset() {
    let memory = Memory::default()
        .with("b/board.toml", format!("{HEAD}{FRONT}"))
        .with("b/person.toml", MANIFEST.replace("mean = [0.5]", "mean = [0.5, 0.0, 1.0]"));
    let input = Board::load_from(&memory, Path::new("b/board.toml")).unwrap().models.remove(0).input;
    assert_eq!((input.scale, input.offset), ([2.0 / 255.0; 3], [-1.0, 0.0, -2.0]));
}

#[test]
fn what_looks_wrong_is_said() {
    let text = FRONT.replace(
        "{ type = \"synthetic\" }",
        "{ type = \"pipeline\", description = \"v4l2src device=/dev/video2 ! videoconvert\" }",
    );
    let sets = "[[sets]]\nid = \"all\"\nstreams = [\"front\"]\ndeadline_ms = 99\n[models.cars]\nmanifest = \"none\"\n";
    let board = load(&format!("{HEAD}{text}{sets}")).unwrap();
    assert_eq!(
        board.warnings,
        [
            "b/board.toml:21:1: models.cars: no stream uses this model; it is not loaded",
            "b/board.toml:11:45: streams[0].source.description: /dev/video2 may be another camera after the next \
         start; use its name in /dev/v4l/by-path",
            "b/board.toml:20:15: sets[0].deadline_ms: the set may close before front has its result, whose latency \
         bound is 100 ms",
        ]
    );
    let text = FRONT
        .replace("{ type = \"synthetic\" }", "{ type = \"uri\", uri = \"rtsp://h/\", latency_ms = 100 }");
    let late = "b/board.toml:11:58: streams[0].source.latency_ms: the jitter buffer alone takes the whole latency \
                bound: every result will be late";
    assert_eq!(load(&format!("{HEAD}{text}")).unwrap().warnings, [late]);
}

#[test]
fn a_v4l2_camera_says_what_it_takes() {
    let source = |rest: &str| {
        let path = "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0";
        FRONT
            .replace("{ type = \"synthetic\" }", &format!("{{ type = \"v4l2\", device = \"{path}\"{rest} }}"))
    };
    let board = load(&format!("{HEAD}{}", source(""))).unwrap();
    assert_eq!(board.warnings, Vec::<String>::new());
    let shown = board.streams[0].source.to_string();
    assert_eq!(shown, "v4l2 /dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0, memory auto, raw");
    let all = ", memory = \"userptr\", fourcc = \"NM12\", controls = { gain = -3, auto_exposure = 1 }";
    let shown = load(&format!("{HEAD}{}", source(all))).unwrap().streams[0].source.to_string();
    assert!(shown.ends_with("index0, memory userptr, raw NM12, auto_exposure = 1, gain = -3"), "{shown}");

    let refused = |rest: &str, problem: &str| {
        let said = said(&format!("{HEAD}{}", source(rest)));
        assert!(said.contains(problem), "{said}");
    };
    refused(", memory = \"dma\"", "One of \"auto\", \"userptr\", \"mmap\", \"dmabuf\", \"copy\"");
    refused(", encoding = \"h264\"", "\"raw\", \"mjpeg\"");
    refused(", controls = { gain = \"high\" }", "streams[0].source.controls.gain = \"high\"");
    refused(", fourcc = \"TOOLONG\"", "streams[0].source.fourcc");
    for memory in ["userptr", "copy"] {
        refused(
            &format!(", encoding = \"mjpeg\", memory = \"{memory}\""),
            "JPEG images are decoded into the pool, never sent there; take it out (see streams[0].source.encoding",
        );
    }
    refused(
        ", encoding = \"mjpeg\", fourcc = \"MJPG\"",
        "streams[0].source.fourcc = \"MJPG\"\n    has no use",
    );
}

#[test]
fn a_v4l2_device_has_one_user_and_a_stable_name() {
    let stream = |id: &str, device: &str| {
        FRONT
            .replace("\"front\"", &format!("\"{id}\""))
            .replace("{ type = \"synthetic\" }", &format!("{{ type = \"v4l2\", device = \"{device}\" }}"))
    };
    let numbered = load(&format!("{HEAD}{}", stream("front", "/dev/video2"))).unwrap();
    assert_eq!(
        numbered.warnings,
        [
            "b/board.toml:11:36: streams[0].source.device: /dev/video2 may be another camera after the next start; use \
          its name in /dev/v4l/by-path"
        ]
    );
    let twice =
        said(&format!("{HEAD}{}{}", stream("a", "/dev/v4l/by-id/x"), stream("b", "/dev/v4l/by-id/x")));
    assert_eq!(
        twice,
        "b/board.toml:19:36: streams[1].source.device = \"/dev/v4l/by-id/x\"\n    another stream takes its frames from \
         this device; a device has one user (see streams[0].source.device at b/board.toml:11:36)\n1 problem in \
         b/board.toml"
    );
    // By two names.
    let folder = tempfile::tempdir().unwrap();
    let names = ["by-id", "by-path"].map(|name| folder.path().join(name));
    names.iter().for_each(|name| std::os::unix::fs::symlink("/dev/null", name).unwrap());
    let [first, second] = names.each_ref().map(|name| name.to_str().unwrap());
    let twice = said(&format!("{HEAD}{}{}", stream("a", first), stream("b", second)));
    assert!(twice.contains("another stream takes its frames from this device"), "{twice}");
    let relative = said(&format!("{HEAD}{}", stream("front", "video0")));
    assert!(relative.contains("a device is named by its whole path"), "{relative}");
}

#[test]
fn files_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let said = |name: &str| {
        let path = folder.path().join(name);
        let problems = Board::load(&path).unwrap_err();
        (problems.kind(), problems.to_string().replace(&*folder.path().to_string_lossy(), "D"))
    };
    let one = |message: &str| format!("D/x.toml:1:1\n    {message}\n1 problem in D/x.toml");
    std::fs::write(folder.path().join("y.toml"), "").unwrap();
    let missing = one("there is no file D/x.toml; did you mean y.toml?");
    assert_eq!(said("x.toml"), (Kind::MissingInput, missing));
    std::fs::write(folder.path().join("x.toml"), b"a = 1\nb = \"\xff\"").unwrap();
    let latin = one("the file is not UTF-8 text, from line 2, column 6 on; save it as UTF-8");
    assert_eq!(said("x.toml"), (Kind::Board, latin));
    std::fs::write(folder.path().join("x.toml"), vec![b'\n'; (1 << 20) + 1]).unwrap();
    let huge = one("the file is larger than 1048576 bytes, which no board needs");
    assert_eq!(said("x.toml"), (Kind::Board, huge));
    std::fs::remove_file(folder.path().join("x.toml")).unwrap();
    std::fs::create_dir(folder.path().join("x.toml")).unwrap();
    assert_eq!(said("x.toml"), (Kind::Board, one("this is a folder; a file is needed")));
    let device = Board::load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(device.contains("the file can't be read: it is not a regular file"), "{device}");
}

#[test]
fn what_the_watchdog_is_told() {
    let models = "[models.small]\nmanifest = \"person.toml\"\n";
    let keys = "misses = [2, 20]\nfreshness_ms = 250\ncheaper_model = \"small\"\n";
    let watch = load(&format!("{HEAD}{models}{FRONT}{keys}")).unwrap().streams[0].watch.clone();
    assert_eq!((watch.misses, watch.freshness), ((2, 20), Some(Duration::from_millis(250))));
    assert!(watch.cheaper_model.is_some());
    let default = |more: &str| load(&format!("{HEAD}{FRONT}{more}")).unwrap().streams[0].watch.misses;
    assert_eq!((default(""), default("criticality = \"critical\"\n")), ((1, 30), (0, 30)));
    for (key, problem) in [
        ("misses = [30, 30]", "the first number must be less than the second"),
        ("cheaper_model = \"smal\"", "is not a model of this board"),
        ("cheaper_model = \"person\"", "is the stream's own model"),
    ] {
        let said = said(&format!("{HEAD}{FRONT}{key}\n"));
        assert!(said.contains(problem), "{said}");
    }
}

/// Three streams, and what stands before them.
fn triggered(triggers: &str, lines: [&str; 3]) -> String {
    let stream = |id: &str, line: &str| format!("{}{line}\n", FRONT.replace("front", id));
    let ids = ["a", "b", "c"];
    let streams: String = ids.iter().zip(lines).map(|(id, line)| stream(id, line)).collect();
    format!("{HEAD}{triggers}{streams}")
}

const TRIGGERS: &str =
    "[[triggers]]\nid = \"left\"\njitter_ms = 0.5\n[[triggers]]\nid = \"right\"\noffset_ms = 16\n";

#[test]
fn streams_on_a_trigger_are_released_at_its_offset() {
    let board = load(&triggered(TRIGGERS, ["trigger = \"left\"", "trigger = \"right\"", ""])).unwrap();
    let on: Vec<_> = board
        .streams
        .iter()
        .map(|stream| {
            stream.trigger.as_ref().map(|t| (t.id.as_str(), t.offset.as_millis(), t.jitter.as_micros()))
        })
        .collect();
    assert_eq!(on, [Some(("left", 0, 500)), Some(("right", 16, 0)), None]);
    let SourceSpec::Synthetic { phase, .. } = board.streams[1].source else { panic!() };
    assert_eq!((phase.as_millis(), board.warnings.len()), (16, 0));
    assert!(board.to_string().contains("trigger right at 16 ms, jitter 0 ms"), "{board}");
}

#[test]
fn what_is_wrong_with_triggers_is_told_at_once() {
    let text = triggered(
        "[[triggers]]\nid = \"left\"\noffset_ms = 34\njitter_ms = 17\n[[triggers]]\nid = \"right\"\n",
        ["trigger = \"left\"", "trigger = \"left\"", "trigger = \"rigth\""],
    );
    let text = text.replace(
        "id = \"b\"\nsource = { type = \"synthetic\" }\nfps = 30",
        "id = \"b\"\nsource = { type = \"synthetic\", phase_ms = 3, jitter_ms = 20 }\nfps = 25",
    );
    let said = said(&text);
    for part in [
        "triggers[0].offset_ms",
        "must be less than the period of the trigger's streams",
        "triggers[0].jitter_ms",
        "must be less than half the period",
        "the streams of trigger left must have one period",
        "leave it out: the trigger's offset_ms says when",
        "must be no more than the trigger's jitter_ms, 17",
        "is not a trigger of this board; did you mean \"right\"?",
        "6 problems in b/board.toml",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
}

#[test]
fn a_trigger_without_streams_looks_wrong() {
    let board = load(&triggered(TRIGGERS, ["trigger = \"left\"", "", ""])).unwrap();
    assert_eq!(board.warnings.len(), 1);
    assert!(board.warnings[0].contains("no stream is on this trigger"), "{:?}", board.warnings);
}

#[test]
fn who_watches_over_the_run() {
    let supervision = |keys: &str| load(&format!("{HEAD}[supervision]\n{keys}{FRONT}")).unwrap().supervision;
    assert_eq!(supervision(""), Supervision::default());
    let device = |seconds| HardwareWatchdog::Device {
        path: "/dev/watchdog1".into(),
        timeout: Duration::from_secs(seconds),
    };
    let named = "hardware_watchdog = \"/dev/watchdog1\"\n";
    assert_eq!(supervision(named).hardware_watchdog, device(60));
    let all = format!("{named}hardware_watchdog_timeout_s = 20\nrestart = true\nstate_dir = \"state\"\n");
    assert_eq!(
        supervision(&all),
        Supervision { hardware_watchdog: device(20), restart: true, state_dir: Some("b/state".into()) }
    );
    assert_eq!(
        supervision(&all).to_string(),
        "supervision: hardware watchdog /dev/watchdog1 after 20 s, restart allowed, last ledger in b/state"
    );
    let systemd = supervision("hardware_watchdog = \"systemd\"\nstate_dir = \"/var/lib/ocelli\"\n");
    assert_eq!(systemd.hardware_watchdog, HardwareWatchdog::Systemd);
    assert_eq!(systemd.state_dir.as_deref(), Some(Path::new("/var/lib/ocelli")));
}

#[test]
fn what_is_wrong_with_who_watches() {
    let said = |keys: &str| said(&format!("{HEAD}{FRONT}[supervision]\n{keys}"));
    let one = |problem: &str| format!("b/board.toml:{problem}\n1 problem in b/board.toml");
    for wrong in ["/dev/watchdog", "/dev/watchdog100", "/dev/watchdog0x", "systemd ", "/dev/sda1", ""] {
        assert_eq!(
            said(&format!("hardware_watchdog = {wrong:?}")),
            one(&format!(
                "18:21: supervision.hardware_watchdog = {wrong:?}\n    must be \"none\", \"systemd\" or a device \
                 with its number, as \"/dev/watchdog0\""
            ))
        );
    }
    assert_eq!(
        said("hardware_watchdog = \"/dev/watchdog0\"\nhardware_watchdog_timeout_s = 5"),
        one("19:31: supervision.hardware_watchdog_timeout_s = 5\n    too small: 10 to 3600 is allowed")
    );
    assert_eq!(
        said("hardware_watchdog = \"systemd\"\nhardware_watchdog_timeout_s = 20"),
        one(
            "19:31: supervision.hardware_watchdog_timeout_s = 20\n    systemd's watchdog has the timeout of \
             RuntimeWatchdogSec= in system.conf; take this out"
        )
    );
    assert_eq!(
        said("hardware_watchdog_timeout_s = 20"),
        one(
            "18:31: supervision.hardware_watchdog_timeout_s = 20\n    of which watchdog? Add hardware_watchdog = \
             \"/dev/watchdog0\", or take this out"
        )
    );
    assert_eq!(
        said("restart = \"yes\""),
        one("18:11: supervision.restart = \"yes\"\n    true or false is needed here, not a string")
    );
    assert_eq!(said("state_dir = \"\""), one("18:13: supervision.state_dir = \"\"\n    must not be empty"));
}
