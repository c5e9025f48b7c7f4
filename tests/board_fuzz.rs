//! Board files and manifests that nobody meant to write: never a panic, every problem has its place, and the
//! reader takes whatever the schema allows. 200,000 inputs in all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "board/memory.rs"]
mod memory;

use memory::{MANIFEST, Memory};
use ocelli::board::Board;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;
use std::path::Path;

const BOARD: &str = r#"config_version = 1
inherit = ["base.toml"]
[accelerator]
backend = "onnxruntime"
sessions = 2
[models.person]
manifest = "person.toml"
[models.small]
manifest = "person.toml"
[[streams]]
id = "front"
source = { type = "uri", uri = "rtsp://joe:${PW}@h/a?token=x", latency_ms = 5 }
faults = { stall_at = 3, stall_ms = 7, drop = 0.5 }
fps = 30
size = [640, 360]
format = "NV12"
color = { matrix = "bt601", range = "full" }
latency_bound_ms = 100
model = "person"
cheaper_model = "small"
misses = [2, 30]
freshness_ms = 500
trigger = "left"
[[triggers]]
id = "left"
offset_ms = 8
jitter_ms = 0.5
[[sets]]
id = "all"
streams = ["front"]
deadline_ms = 100
[realtime]
cpus = [1, 2]
[supervision]
hardware_watchdog = "/dev/watchdog0"
hardware_watchdog_timeout_s = 30
restart = true
state_dir = "state"
"#;

const SMALL: &str = r#"config_version = 1
accelerator = { backend = "tensorrt", max_batch = 1 }
models.person.manifest = "person.toml"
[[streams]]
id = "front"
source.type = "synthetic"
fps = 30
size = [640, 360]
format = "NV12"
latency_bound_ms = 100
model = "person"
"#;

const BASE: &str = r#"accelerator.max_batch = 4
[[outputs]]
name = "log"
type = "file"
path = "log.jsonl"
"#;

/// What is put into texts: keys, values and marks that mean something, and some that should not.
const PIECES: [&str; 59] = [
    "[[streams]]\n",
    "[streams]\n",
    "[[sets]]\n",
    "[[outputs]]\n",
    "[models.a]\n",
    "[accelerator]\n",
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\n",
    "\r",
    "\0",
    "#",
    " ",
    "é",
    "\u{202e}",
    "😀",
    "1e999",
    "nan",
    "-inf",
    "-1",
    "0",
    "0.5",
    "99999999999999999999999999999999999999999",
    "0x7fffffffffffffff",
    "true",
    "1979-05-27",
    "[]",
    "{}",
    "${",
    "${PW}",
    "://",
    "@",
    "fps = 0\n",
    "period_ms = 1e-9\n",
    "inherit = [\"base.toml\"]\n",
    "inherit = [\"board.toml\", \"person.toml\"]\n",
    "backend = \"tensorrt\"\n",
    "type = \"pipeline\"\n",
    "type = \"v4l2\"\n",
    "device = \"/dev/video0\"\n",
    "controls = { gain = 1 }\n",
    "[[triggers]]\n",
    "trigger = \"left\"\n",
    "jitter_ms = 16.7\n",
    "misses = [30, 2]\n",
    "freshness_ms = 1e-9\n",
    "cheaper_model = \"person\"\n",
    "[supervision]\n",
    "hardware_watchdog = \"systemd\"\n",
];

/// A change of a text: what, where (as a share of it), how much, and which piece.
type Edit = (u8, u16, u8, usize);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec((0..5_u8, any::<u16>(), 0..40_u8, 0..PIECES.len()), 1..5)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    edits.iter().fold(text.to_owned(), |mut text, (what, place, length, piece)| {
        let at = text.floor_char_boundary(usize::from(*place) * text.len() / usize::from(u16::MAX));
        let end = text.floor_char_boundary((at + usize::from(*length)).min(text.len()));
        let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
        match what {
            0 => text.replace_range(at..end, ""),
            1 => text.insert_str(at, PIECES[*piece]),
            2 => text.replace_range(at..end, PIECES[*piece]),
            3 => text.insert_str(line_end, PIECES[*piece]),
            _ => {
                let line = text[at..line_end].to_owned();
                text.insert_str(line_end, &line);
            }
        }
        text
    })
}

fn memory() -> Memory {
    let mut memory = Memory::default().with("board.toml", BOARD).with("base.toml", BASE);
    memory.variables.insert("PW".into(), "s3cret".into());
    memory.with("person.toml", MANIFEST)
}

/// Loads the board; whatever is said has a place in a file that exists.
fn holds(memory: &Memory) -> Result<Board, String> {
    Board::load_from(memory, Path::new("board.toml")).map_err(|problems| {
        assert!(!problems.list().is_empty());
        for problem in problems.list() {
            let bytes = &memory.files[Path::new(&problem.file)];
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
            let (line, column) = problem.at.unwrap_or_else(|| panic!("no place: {problem}"));
            assert!((1..=lines).contains(&line) && column >= 1, "{problem}");
            assert!(column as usize <= bytes.len() + 1 && !problem.message.is_empty(), "{problem}");
        }
        let shown = problems.to_string();
        assert!(!shown.contains("the schema allows"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
        shown
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn what_is_changed_here_is_right_before() {
    holds(&memory()).unwrap();
    holds(&memory().with("board.toml", SMALL)).unwrap();
}

proptest! {
    #![proptest_config(config(16_000))]
    #[test]
    fn changed_boards(edits in edits()) {
        let board = holds(&memory().with("board.toml", edited(BOARD, &edits)));
        prop_assert!(board.is_err() || !board.unwrap().to_string().contains("s3cret"));
    }
}

proptest! {
    #![proptest_config(config(5_000))]
    #[test]
    fn changed_bases(edits in edits()) {
        let _ = holds(&memory().with("base.toml", edited(BASE, &edits)));
    }
}

proptest! {
    #![proptest_config(config(14_000))]
    #[test]
    fn changed_manifests(edits in edits()) {
        let _ = holds(&memory().with("board.toml", SMALL).with("person.toml", edited(MANIFEST, &edits)));
    }
}

proptest! {
    #![proptest_config(config(115_000))]
    #[test]
    fn pieces_in_a_heap(pieces in vec(0..PIECES.len(), 0..30)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let _ = holds(&memory().with("board.toml", text));
    }
}

proptest! {
    #![proptest_config(config(47_000))]
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..120)) {
        let _ = holds(&memory().with("board.toml", bytes));
    }
}

#[test]
fn deep_nesting_is_refused_or_read_but_never_overflows() {
    let deep = "a.".repeat(79) + "a";
    for text in [
        "[".repeat(100_000),
        "{a=".repeat(100_000),
        "x = ".to_owned() + &"[".repeat(1_000_000),
        "a.".repeat(500_000),
        "x = ".to_owned() + &format!("{{{deep} =").repeat(79),
        format!("x = {}1{}", format!("{{{deep} =").repeat(78), "}".repeat(78)),
        "[[a]]\n".repeat(120_000),
        "x = 1\n".repeat(120_000),
    ] {
        holds(&memory().with("board.toml", text)).unwrap_err();
    }
}

/// A value that the schema allows, as TOML; `choices` decides what is open.
fn instance(schema: &Json, choices: &mut dyn Iterator<Item = u16>) -> String {
    let mut choose = |count: usize| usize::from(choices.next().unwrap_or(0)) % count.max(1);
    if let Some(branches) = schema["oneOf"].as_array()
        && branches[0].get("required").is_none_or(|_| branches[0].get("properties").is_some())
    {
        let branch = &branches[choose(branches.len())];
        return instance(branch, choices);
    }
    if let Some(only) = schema.get("const") {
        return only.to_string();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[choose(words.len())].to_string();
    }
    let number = |key: &str| schema[key].as_f64();
    match schema["type"].as_str().unwrap() {
        "object" if schema["additionalProperties"].is_object() => {
            format!("{{ a = {} }}", instance(&schema["additionalProperties"], choices))
        }
        "object" => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let one_of: Vec<&str> = (schema["oneOf"].as_array().into_iter().flatten())
                .filter_map(|branch| branch["required"][0].as_str())
                .collect();
            let one = one_of.get(choose(one_of.len())).copied();
            let mut entries = Vec::new();
            for (key, property) in schema["properties"].as_object().unwrap() {
                let wanted = usize::from(choices.next().unwrap_or(0)) % 2 == 0;
                let exclusive = one_of.contains(&key.as_str());
                if key != "inherit"
                    && (required.contains(&key.as_str()) || one == Some(key) || (wanted && !exclusive))
                {
                    entries.push(format!("{key} = {}", instance(property, choices)));
                }
            }
            format!("{{ {} }}", entries.join(", "))
        }
        "array" => {
            let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
            let most = schema["maxItems"].as_u64().unwrap_or(3).min(3).max(least as u64) as usize;
            let count = least + choose(most - least + 1);
            let items: Vec<_> = (0..count).map(|_| instance(&schema["items"], choices)).collect();
            format!("[{}]", items.join(", "))
        }
        "integer" => {
            let ends = [number("minimum").unwrap_or(0.0), number("maximum").unwrap_or(1e15)];
            format!("{}", ends[choose(2)] as i64)
        }
        "number" => format!("{:?}", [number("minimum").unwrap(), number("maximum").unwrap()][choose(2)]),
        "boolean" => ["true", "false"][choose(2)].to_owned(),
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("64")) => {
            format!("\"{}\"", "f".repeat(64))
        }
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("watchdog")) => {
            ["\"none\"", "\"systemd\"", "\"/dev/watchdog12\""][choose(3)].to_owned()
        }
        "string" => ["\"a\"", "\"b\""][choose(2)].to_owned(),
        other => panic!("{other}"),
    }
}

/// A file that the schema allows.
fn document(schema: &Json, choices: Vec<u16>) -> String {
    let mut choices = choices.into_iter().chain(std::iter::repeat(0));
    let text = format!("root = {}", instance(schema, &mut choices));
    let root = text.parse::<toml::Table>().unwrap().remove("root").unwrap();
    toml::to_string(&root).unwrap()
}

/// What the check says of a text that its own schema does not allow.
const REFUSALS: [&str; 8] = [
    "unknown key",
    "is needed here, not",
    "missing.",
    "too small:",
    "too large:",
    "not known here",
    "not TOML",
    "the schema allows",
];

fn only_the_meaning_is_wrong(memory: &Memory) -> Result<(), TestCaseError> {
    if let Err(shown) = holds(memory) {
        let refusal = REFUSALS.into_iter().find(|refusal| shown.contains(refusal));
        prop_assert!(refusal.is_none(), "{shown}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(1_500))]
    #[test]
    fn the_reader_takes_what_the_schema_of_boards_allows(choices in vec(any::<u16>(), 100)) {
        let text = document(&ocelli::board::schema(), choices);
        only_the_meaning_is_wrong(&memory().with("board.toml", text))?;
    }
}

proptest! {
    #![proptest_config(config(1_500))]
    #[test]
    fn the_reader_takes_what_the_schema_of_manifests_allows(choices in vec(any::<u16>(), 100)) {
        let text = document(&ocelli::model::schema(), choices);
        only_the_meaning_is_wrong(&memory().with("person.toml", text))?;
    }
}
