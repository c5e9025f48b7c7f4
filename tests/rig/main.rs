//! The rig: scenarios of faults on a real kernel driver, in a virtual machine. `scripts/rig` runs it.
//!
//! The same program is the first process inside the machine.

mod acts;
mod agent;
mod archive;
mod board;
mod expected;
mod guest;
mod judge;
mod lie;
mod machine;
mod report;
mod scenario;
mod seen;
mod unit;

use clap::{Parser, ValueEnum};
use machine::Parts;
use report::{Line, Verdict};
use scenario::{Scenario, Suite};
use seen::Seen;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Runs scenarios in virtual machines and says what was not as expected.
#[derive(Debug, Parser)]
#[command(name = "scripts/rig")]
struct Arguments {
    /// What scripts/rig says first.
    #[arg(long = "run", hide = true)]
    _run: bool,
    /// Say what scenarios there are, and run none.
    #[arg(long)]
    list: bool,
    /// Only scenarios whose name matches, of whatever suite; * stands for anything.
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Only these.
    #[arg(long, value_enum)]
    suite: Option<Choice>,
    /// Write the verdicts as JUnit's XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Machines at a time. Without it: one a processor.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run what applies on a real board, over ssh, with its own cameras and ocelli (or --ocelli), and say what does not.
    #[arg(long, value_name = "USER@BOARD")]
    host: Option<String>,
    /// What the board's cameras are, in keys of [[streams]]: 'format = "YUY2", size = [1280, 720], fps = 30'.
    #[arg(long, value_name = "TOML", requires = "host", default_value = "")]
    stream: String,
    /// Judge what the last runs left, and run nothing.
    #[arg(long)]
    judge: bool,
    /// The program under test. Without it: the one of this tree, in the profile of tests.
    #[arg(long, value_name = "FILE")]
    ocelli: Option<PathBuf>,
    /// Test programs of the project that scenarios run in place of it.
    #[arg(long, hide = true, value_name = "NAME=FILE")]
    program: Vec<String>,
    /// Start no machine after so many minutes, and first those of the core, then the shortest; what was not started
    /// is skipped, and said.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Why no machine can be made here.
    #[arg(long, hide = true, value_name = "REASON")]
    skip: Option<String>,
    /// The kernel's folder.
    #[arg(long, hide = true, value_name = "FOLDER", default_value = "assets/rig/kernel")]
    kernel: PathBuf,
}

/// What `--suite` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// A few scenarios of suite one that show most.
    Core,
    /// Virtual time: exact.
    One,
    /// GStreamer and systemd.
    Two,
    /// A lot of virtual time.
    Soak,
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::main();
        return ExitCode::SUCCESS;
    }
    match std::env::args().nth(1).as_deref() {
        Some("--run") => {}
        Some("inside") => {
            guest::inside();
            return ExitCode::SUCCESS;
        }
        // A test runner that asks for tests: machines take minutes and all processors.
        Some("--list") => return ExitCode::SUCCESS,
        _ => {
            say("the rig is run by scripts/rig, not here\n");
            return ExitCode::SUCCESS;
        }
    }
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "rig: error: {why}");
            ExitCode::from(64)
        }
    }
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Whether nothing failed.
fn act(arguments: &Arguments) -> Result<bool, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scenarios = load(&root.join("tests/rig/scenarios"))?;
    scenarios.retain(|(name, scenario)| wanted(arguments, name, scenario));
    if scenarios.is_empty() {
        return Err("no scenario is wanted; scripts/rig --list has them all".to_owned());
    }
    if arguments.list {
        for (name, scenario) in &scenarios {
            let suite = format!("{:?}", scenario.suite).to_lowercase();
            say(&format!(
                "{name:24} {suite:5} {}{}\n",
                scenario.title,
                if scenario.core { " (core)" } else { "" }
            ));
        }
        return Ok(true);
    }
    let began = Instant::now();
    if let Some(host) = &arguments.host {
        let lines = on_board(arguments, host, &scenarios, root)?;
        return finish(arguments, &lines, began);
    }
    let lines = match &arguments.skip {
        Some(why) => scenarios.iter().map(|(name, scenario)| skipped(name, scenario, why)).collect(),
        None if arguments.judge => scenarios.iter().map(judged).collect(),
        None => all(&parts(arguments, root)?, scenarios, arguments.jobs, arguments.minutes),
    };
    finish(arguments, &lines, began)
}

fn parts(arguments: &Arguments, root: &Path) -> Result<Parts, String> {
    let ocelli = arguments.ocelli.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_ocelli")));
    let tests: Vec<_> = arguments.program.iter().filter_map(|program| program.split_once('=')).collect();
    let tests: Vec<_> = tests.into_iter().map(|(name, path)| (name, Path::new(path))).collect();
    Parts::new(root, root.join(&arguments.kernel), ocelli, &tests, &folder(""))
}

/// Says how it went; whether nothing failed.
fn finish(arguments: &Arguments, lines: &[Line], began: Instant) -> Result<bool, String> {
    say(&format!("{}{:.0} s in all\n", report::table(lines), began.elapsed().as_secs_f64()));
    if let Some(junit) = &arguments.junit {
        fs::write(junit, report::junit(lines)).map_err(|error| format!("{}: {error}", junit.display()))?;
    }
    Ok(!lines.iter().any(Line::failed))
}

/// One after the other: the board has its cameras once.
fn on_board(
    arguments: &Arguments,
    host: &str,
    scenarios: &[(String, Scenario)],
    root: &Path,
) -> Result<Vec<Line>, String> {
    let stream: toml::Table = format!("stream = {{ {} }}", arguments.stream)
        .parse()
        .map_err(|error| format!("--stream: {error}"))?;
    let stream = stream["stream"].as_table().cloned().unwrap_or_default();
    let board = board::Board::look("ssh", host, arguments.ocelli.as_deref(), stream, root)?;
    let run = |(name, scenario): &(String, Scenario)| {
        let began = Instant::now();
        let folder = folder(&format!("board/{name}"));
        let verdict = match board.run(scenario, &folder) {
            Ok(Ok(())) => again(scenario, &folder),
            Ok(Err(why)) => Verdict::Skipped(why),
            Err(why) => Verdict::Broken(why),
        };
        Line { name: name.clone(), title: scenario.title.clone(), verdict, wall: began.elapsed() }
    };
    let lines = scenarios.iter().map(run).collect();
    board.leave();
    Ok(lines)
}

fn skipped(name: &str, scenario: &Scenario, why: &str) -> Line {
    let verdict = Verdict::Skipped(why.to_owned());
    Line { name: name.to_owned(), title: scenario.title.clone(), verdict, wall: Duration::ZERO }
}

fn load(folder: &Path) -> Result<Vec<(String, Scenario)>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    let name =
        |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    paths.iter().map(|path| Ok((name(path), Scenario::load(path)?))).collect()
}

fn wanted(arguments: &Arguments, name: &str, scenario: &Scenario) -> bool {
    let named = arguments.only.as_ref().is_none_or(|glob| matches(glob, name));
    let of_suite = match arguments.suite {
        Some(Choice::Core) => scenario.core,
        Some(Choice::One) => scenario.suite == Suite::One,
        Some(Choice::Two) => scenario.suite == Suite::Two,
        Some(Choice::Soak) => scenario.suite == Suite::Soak,
        // Soaks take long: they have to be named.
        None => scenario.suite != Suite::Soak || arguments.only.is_some() || arguments.list,
    };
    named && of_suite
}

/// Whether a name is what a pattern with `*` allows.
fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

/// Runs all, several at a time.
fn all(
    parts: &Parts,
    scenarios: Vec<(String, Scenario)>,
    jobs: Option<usize>,
    minutes: Option<u64>,
) -> Vec<Line> {
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut numbered: Vec<_> = scenarios.into_iter().enumerate().collect();
    // The longest first, so that none is left to run alone at the end; where time is short, as many as it allows, and
    // before them those that show most.
    numbered.sort_by(|(_, (_, one)), (_, (_, other))| match until {
        None => other.seconds.total_cmp(&one.seconds),
        Some(_) => other.core.cmp(&one.core).then(one.seconds.total_cmp(&other.seconds)),
    });
    let left = Mutex::new(numbered.into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().map_or(None, |mut left| left.next());
                    let Some((number, (name, scenario))) = next else { return };
                    let line = match until.is_some_and(|until| Instant::now() > until) {
                        true => skipped(&name, &scenario, "no time was left to start it"),
                        false => one(parts, &name, &scenario),
                    };
                    let _ = writeln!(
                        std::io::stderr(),
                        "rig: {:7} {name} ({:.1} s)",
                        line.word(),
                        line.wall.as_secs_f64()
                    );
                    if let Ok(mut done) = done.lock() {
                        done.push((number, line));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, line)| line).collect()
}

fn one(parts: &Parts, name: &str, scenario: &Scenario) -> Line {
    let began = Instant::now();
    let verdict = run(parts, name, scenario).unwrap_or_else(Verdict::Broken);
    Line { name: name.to_owned(), title: scenario.title.clone(), verdict, wall: began.elapsed() }
}

fn judged((name, scenario): &(String, Scenario)) -> Line {
    let verdict = again(scenario, &folder(name));
    Line { name: name.clone(), title: scenario.title.clone(), verdict, wall: Duration::ZERO }
}

/// The verdict on what a run left.
fn again(scenario: &Scenario, folder: &Path) -> Verdict {
    match Seen::read(folder) {
        Ok(seen) => Verdict::Judged(judge::judge(scenario, &seen)),
        Err(why) => Verdict::Broken(why),
    }
}

/// Where the files of a scenario's machine go.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("rig").join(name)
}

fn run(parts: &Parts, name: &str, scenario: &Scenario) -> Result<Verdict, String> {
    let folder = folder(name);
    parts.run(scenario, &folder)?;
    let mut shown = judge::judge(scenario, &Seen::read(&folder)?);
    if scenario.twice {
        let again = folder.with_extension("again");
        parts.run(scenario, &again)?;
        shown.wrong.extend(differences(&folder, &again)?);
    }
    Ok(Verdict::Judged(shown))
}

/// Files that two runs left and that are not the same.
fn differences(one: &Path, other: &Path) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let failed = |error: std::io::Error| format!("{}: {error}", one.display());
    for entry in fs::read_dir(one).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name == "console" {
            continue; // Its last line is from when the files had been handed home.
        }
        let [first, second] = [one, other].map(|folder| fs::read(folder.join(&name)).unwrap_or_default());
        if first != second {
            let same = first.iter().zip(&second).take_while(|(one, other)| one == other).count();
            let name = name.display();
            wrong.push(format!("{name} should be the same when run again; it differs from byte {same} on"));
        }
    }
    Ok(wrong)
}
