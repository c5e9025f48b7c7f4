//! Strings and numbers held to their schemas. Errors say what would be right.

use super::schema::{Id, Sha256, WatchdogName};
use serde_json::{Value as Json, json};

/// A pattern that raw forms use: what it accepts, in code and in words.
pub(super) struct Pattern {
    pub regex: &'static str,
    accepts: fn(&str) -> bool,
    in_words: &'static str,
}

pub(super) const PATTERNS: [Pattern; 3] = [
    Pattern { regex: Id::PATTERN, accepts: is_id, in_words: "1 to 32 of the characters a-z, 0-9, _ and -" },
    Pattern {
        regex: Sha256::PATTERN,
        accepts: is_sha256,
        in_words: "64 digits of 0-9 and a-f, as sha256sum prints them",
    },
    Pattern {
        regex: WatchdogName::PATTERN,
        accepts: is_watchdog,
        in_words: "\"none\", \"systemd\" or a device with its number, as \"/dev/watchdog0\"",
    },
];

fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_watchdog(text: &str) -> bool {
    let is_number =
        |digits: &str| (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    text == "none" || text == "systemd" || text.strip_prefix("/dev/watchdog").is_some_and(is_number)
}

pub(super) fn string(text: &str, schema: &Json) -> Result<(), String> {
    if let Some(least) = schema["minLength"].as_u64()
        && (text.chars().count() as u64) < least
    {
        return Err("must not be empty".into());
    }
    if let Some(most) = schema["maxLength"].as_u64()
        && text.chars().count() as u64 > most
    {
        return Err(format!("too long: at most {most} characters"));
    }
    if let Some(pattern) = PATTERNS.iter().find(|pattern| schema["pattern"] == pattern.regex)
        && !(pattern.accepts)(text)
    {
        return Err(format!("must be {}", pattern.in_words));
    }
    if schema["format"] == "path" && text.contains("://") {
        return Err("the path of a file is needed here, not an address".into());
    }
    match text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        true => Err("must not hold control characters".into()),
        false => Ok(()),
    }
}

pub(super) fn integer(number: i128, schema: &Json) -> Result<Json, String> {
    if let Some(only) = schema["const"].as_i64() {
        return if number == only.into() { Ok(json!(only)) } else { Err(format!("must be {only}")) };
    }
    let bound = |key: &str| schema[key].as_f64().map(|bound| bound as i128);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), _) if number < least => return Err(out_of_range("too small", schema)),
        (_, Some(most)) if number > most => return Err(out_of_range("too large", schema)),
        _ => {}
    }
    i64::try_from(number).map(|number| json!(number)).map_err(|_| format!("too large: at most {}", i64::MAX))
}

pub(super) fn real(number: f64, schema: &Json) -> Result<Json, String> {
    if !number.is_finite() {
        return Err("must be a finite number".into());
    }
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(least), _) if number < least => Err(out_of_range("too small", schema)),
        (_, Some(most)) if number > most => Err(out_of_range("too large", schema)),
        _ => Ok(json!(number)),
    }
}

fn out_of_range(what: &str, schema: &Json) -> String {
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(least), Some(most)) => format!("{what}: {least} to {most} is allowed"),
        (Some(least), None) => format!("{what}: at least {least}"),
        (None, Some(most)) => format!("{what}: at most {most}"),
        (None, None) => what.to_owned(),
    }
}
