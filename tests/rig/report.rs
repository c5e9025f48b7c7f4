//! What is said of all scenarios: a table for people, JUnit's XML for machines.

use crate::judge::Shown;
use std::fmt::Write as _;
use std::time::Duration;

/// A scenario's end.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub title: String,
    pub verdict: Verdict,
    pub wall: Duration,
}

#[derive(Debug)]
pub enum Verdict {
    /// Passed where nothing was wrong.
    Judged(Shown),
    /// The machine could not be made, or gave nothing back.
    Broken(String),
    /// Not run, and why.
    Skipped(String),
}

impl Line {
    pub fn word(&self) -> &'static str {
        match &self.verdict {
            Verdict::Judged(shown) if shown.wrong.is_empty() => "ok",
            Verdict::Judged(_) => "FAILED",
            Verdict::Broken(_) => "BROKEN",
            Verdict::Skipped(_) => "SKIPPED",
        }
    }

    pub fn failed(&self) -> bool {
        matches!(self.word(), "FAILED" | "BROKEN")
    }

    /// What was wrong, one problem a line.
    pub fn problems(&self) -> Vec<String> {
        match &self.verdict {
            Verdict::Judged(shown) => shown.wrong.clone(),
            Verdict::Broken(why) | Verdict::Skipped(why) => vec![why.clone()],
        }
    }
}

/// Letters of the cell of who noticed what.
const NOTICED: usize = 52;

/// All scenarios as a table, then what was wrong.
pub fn table(lines: &[Line]) -> String {
    let head = ["scenario", "noticed by", "within", "healed", "outage", "others missed", "verdict", "time"];
    let mut rows = vec![head.map(str::to_owned)];
    for line in lines {
        let empty = Shown::default();
        let shown = if let Verdict::Judged(shown) = &line.verdict { shown } else { &empty };
        rows.push([
            line.name.clone(),
            cut(&shown.noticed, NOTICED),
            shown.within.clone(),
            shown.healed.clone(),
            shown.outage.clone(),
            shown.others.clone(),
            line.word().to_owned(),
            format!("{:.1} s", line.wall.as_secs_f64()),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    for line in lines.iter().filter(|line| line.failed()) {
        let _ = writeln!(text, "\n{} ({}) {}:", line.name, line.title, line.word());
        line.problems().iter().for_each(|problem| {
            let _ = writeln!(text, "  {problem}");
        });
    }
    let count = |word: &str| lines.iter().filter(|line| line.word() == word).count();
    let (ok, skipped) = (count("ok"), count("SKIPPED"));
    let _ = writeln!(
        text,
        "\n{} scenarios: {ok} ok, {} failed, {skipped} skipped",
        lines.len(),
        lines.len() - ok - skipped
    );
    let mut reasons: Vec<_> = (lines.iter())
        .filter_map(|line| if let Verdict::Skipped(why) = &line.verdict { Some(why.as_str()) } else { None })
        .collect();
    reasons.sort_unstable();
    for group in reasons.chunk_by(|one, next| one == next) {
        let _ = writeln!(text, "SKIPPED: {} ({} scenarios)", group[0], group.len());
    }
    text
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        text.chars().take(most - 3).chain("...".chars()).collect()
    }
}

/// The same for what reads JUnit's XML.
pub fn junit(lines: &[Line]) -> String {
    let count = |word: &str| lines.iter().filter(|line| line.word() == word).count();
    let wall: f64 = lines.iter().map(|line| line.wall.as_secs_f64()).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"rig\" tests=\"{}\" failures=\"{}\" errors=\"{}\" \
         skipped=\"{}\" time=\"{wall:.3}\">\n",
        lines.len(),
        count("FAILED"),
        count("BROKEN"),
        count("SKIPPED")
    );
    for line in lines {
        let problems = escaped(&line.problems().join("\n"));
        let inside = match line.word() {
            "FAILED" => format!("<failure>{problems}</failure>"),
            "BROKEN" => format!("<error>{problems}</error>"),
            "SKIPPED" => format!("<skipped message=\"{problems}\"/>"),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "<testcase classname=\"rig\" name=\"{}\" time=\"{:.3}\">{inside}</testcase>",
            escaped(&line.name),
            line.wall.as_secs_f64()
        );
    }
    text.push_str("</testsuite>\n");
    text
}

fn escaped(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() && letter != '\n' { ' ' } else { letter };
    let text: String = text.chars().map(plain).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
