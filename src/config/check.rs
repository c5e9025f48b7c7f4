//! Holds a tree to a JSON Schema, and goes on after every error.
//!
//! What comes out always fits the schema: where the text is wrong, a stand-in takes its place and the path
//! is marked as flawed, so that later checks see the whole and stay silent about what was said already.

use super::nearest;
use super::scalar::{integer, real, string};
use super::tree::{Entry, KeyPath, Node, Text, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a check finds: where, with the place of a key that should not be there, and the message.
pub(super) struct Finding {
    pub path: KeyPath,
    /// The problem is the key itself; its value is not shown.
    pub key: Option<super::tree::Place>,
    pub message: String,
}

/// A check under way.
pub(super) struct Check<'a> {
    pub texts: &'a [Text],
    pub findings: Vec<Finding>,
    pub flawed: BTreeSet<KeyPath>,
}

impl Check<'_> {
    fn find(&mut self, path: &KeyPath, message: String) {
        self.flawed.insert(path.clone());
        self.findings.push(Finding { path: path.clone(), key: None, message });
    }

    /// The value of `node` as the schema allows it, or a stand-in.
    pub fn value(&mut self, node: &Node, schema: &Json, path: &KeyPath) -> Json {
        let checked = if let Some(words) = words(schema) {
            one_of(node, &words)
        } else if let Some(kinds) = kinds(schema) {
            return self.tagged(node, schema, &kinds, path);
        } else {
            match (schema["type"].as_str(), &node.value) {
                (Some("object"), Value::Table(table)) => return self.table(table, schema, None, path),
                (Some("array"), Value::Array(items)) => return self.array(items, schema, path),
                (Some("string"), Value::String(text)) => {
                    string(text, schema).map(|()| match schema["format"] == "path" {
                        true => json!(self.texts[node.place.file].relative(text)),
                        false => json!(text),
                    })
                }
                (Some("integer"), Value::Integer(number)) => integer(*number, schema),
                (Some("number"), Value::Integer(number)) => real(*number as f64, schema),
                (Some("number"), Value::Float(number)) => real(*number, schema),
                (Some("boolean"), Value::Boolean(value)) => Ok(json!(value)),
                _ => Err(wrong_kind(node, schema, path)),
            }
        };
        checked.unwrap_or_else(|message| {
            self.find(path, message + &example(schema, path));
            stand_in(schema)
        })
    }

    fn array(&mut self, items: &[Node], schema: &Json, path: &KeyPath) -> Json {
        let bound = |key: &str| schema[key].as_u64().map(|bound| bound as usize);
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        if items.len() < least || items.len() > most {
            let allowed = match (least, most) {
                (least, most) if least == most => format!("exactly {least}"),
                (least, usize::MAX) => format!("at least {least}"),
                (0, most) => format!("at most {most}"),
                (least, most) => format!("{least} to {most}"),
            };
            let count = items.len();
            self.find(path, format!("{allowed} needed here, there are {count}") + &example(schema, path));
            return stand_in(schema);
        }
        let check = |(index, item)| self.value(item, &schema["items"], &path.index(index));
        items.iter().enumerate().map(check).collect()
    }

    /// A table whose keys depend on the word at one of them.
    fn tagged(&mut self, node: &Node, schema: &Json, kinds: &Kinds<'_>, path: &KeyPath) -> Json {
        let Value::Table(table) = &node.value else {
            self.find(path, wrong_kind(node, schema, path) + &example(schema, path));
            return stand_in(schema);
        };
        let at = path.key(&kinds.tag);
        let words: Vec<&str> = kinds.branches.iter().map(|(word, _)| *word).collect();
        let chosen = match table.get(&kinds.tag) {
            Some(entry) => one_of(&entry.node, &words),
            None => {
                Err(format!("missing; one of {} is needed here{}", quoted(&words), example(schema, path)))
            }
        };
        match chosen {
            Ok(word) => {
                let branch = kinds.branches.iter().find(|(kind, _)| word == *kind);
                self.table(table, branch.map_or(schema, |(_, schema)| schema), Some(kinds), path)
            }
            Err(message) => {
                // Without the word nothing can be said of the other keys.
                self.find(&at, message);
                self.flawed.insert(path.clone());
                stand_in(schema)
            }
        }
    }

    fn table(
        &mut self,
        table: &BTreeMap<String, Entry>,
        schema: &Json,
        kinds: Option<&Kinds<'_>>,
        path: &KeyPath,
    ) -> Json {
        let none = Map::new();
        let known = schema["properties"].as_object().unwrap_or(&none);
        let mut out = Map::new();
        for (key, entry) in table {
            let at = path.key(key);
            if let Some(schema) = known.get(key) {
                out.insert(key.clone(), self.value(&entry.node, schema, &at));
            } else if schema["additionalProperties"].is_object() {
                if let Err(message) = string(key, &schema["propertyNames"]) {
                    self.findings.push(Finding { path: at.clone(), key: Some(entry.key), message });
                }
                out.insert(key.clone(), self.value(&entry.node, &schema["additionalProperties"], &at));
            } else {
                let message = unknown(key, known, kinds);
                self.flawed.insert(at.clone());
                self.findings.push(Finding { path: at, key: Some(entry.key), message });
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(key) {
                let property = &known[key];
                let at = path.key(key);
                let meaning = property["description"].as_str().map(first_sentence).unwrap_or_default();
                let how = header(property, &at).unwrap_or_else(|| example(property, &at));
                self.find(&at, format!("missing. {meaning}{how}"));
                out.insert(key.to_owned(), stand_in(property));
            }
        }
        self.exactly_one(table, schema, &mut out, path);
        Json::Object(out)
    }

    /// `oneOf` with nothing but `required` in its branches: exactly one of these keys.
    fn exactly_one(
        &mut self,
        table: &BTreeMap<String, Entry>,
        schema: &Json,
        out: &mut Map<String, Json>,
        path: &KeyPath,
    ) {
        let branches = schema["oneOf"].as_array().into_iter().flatten();
        let keys: Vec<&str> = branches.filter_map(|branch| branch["required"][0].as_str()).collect();
        let given: Vec<&str> = keys.iter().copied().filter(|key| table.contains_key(*key)).collect();
        let words = keys.join(" or ");
        match (keys.as_slice(), given.as_slice()) {
            ([], _) | (_, [_]) => {}
            ([first, ..], []) => {
                self.flawed.extend(keys.iter().map(|key| path.key(key)));
                self.findings.push(Finding {
                    path: path.key(first),
                    key: None,
                    message: format!("missing; either {words} is needed here"),
                });
                out.insert((*first).to_owned(), stand_in(&schema["properties"][first]));
            }
            (_, [first, rest @ ..]) => {
                for second in rest {
                    let message = format!("{first} is given too; either {words}, not both");
                    self.find(&path.key(second), message);
                    self.flawed.insert(path.key(first));
                    out.remove(*second);
                }
            }
        }
    }
}

/// The words that a schema lists, if it is one of words.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(listed) = schema["enum"].as_array() {
        return Some(listed.iter().filter_map(Json::as_str).collect());
    }
    let branches = schema["oneOf"].as_array()?;
    branches.iter().map(|branch| branch["const"].as_str()).collect()
}

/// The kinds of table that a schema lists: the key that tells them apart, and each one's word and schema.
struct Kinds<'a> {
    tag: String,
    branches: Vec<(&'a str, &'a Json)>,
}

fn kinds(schema: &Json) -> Option<Kinds<'_>> {
    let branches = schema["oneOf"].as_array()?;
    let properties = branches.first()?["properties"].as_object()?;
    let (tag, _) = properties.iter().find(|(_, value)| value["const"].is_string())?;
    let branches = branches
        .iter()
        .filter_map(|branch| Some((branch["properties"][tag]["const"].as_str()?, branch)))
        .collect();
    Some(Kinds { tag: tag.clone(), branches })
}

fn one_of(node: &Node, words: &[&str]) -> Result<Json, String> {
    match &node.value {
        Value::String(word) if words.contains(&word.as_str()) => Ok(json!(word)),
        Value::String(word) => Err(match nearest(word, words.iter().copied()) {
            Some(near) => format!("not known here; did you mean \"{near}\"? One of {}", quoted(words)),
            None => format!("not known here; one of {} is", quoted(words)),
        }),
        _ => Err(format!("one of {} is needed here, not {}", quoted(words), node.kind())),
    }
}

fn unknown(key: &str, known: &Map<String, Json>, kinds: Option<&Kinds<'_>>) -> String {
    if let Some(Kinds { tag, branches }) = kinds {
        let has = |(_, schema): &&(&str, &Json)| schema["properties"].get(key).is_some();
        let elsewhere: Vec<&str> = branches.iter().filter(has).map(|(word, _)| *word).collect();
        if !elsewhere.is_empty() {
            return format!("this key is for {tag} = {} only; take it out here", quoted(&elsewhere));
        }
    }
    match nearest(key, known.keys().map(String::as_str)) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => {
            let mut keys: Vec<&str> = known.keys().map(String::as_str).collect();
            keys.sort_unstable();
            format!("unknown key; known here: {}", keys.join(", "))
        }
    }
}

fn wrong_kind(node: &Node, schema: &Json, path: &KeyPath) -> String {
    let needed = match schema["type"].as_str() {
        Some("array") if is_table(&schema["items"]) => {
            let given = node.kind();
            return format!("one or more tables are needed here, each begun by [[{path}]], not {given}");
        }
        Some("string") => "a string in quotes",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "an array",
        _ => "a table",
    };
    format!("{needed} is needed here, not {}", node.kind())
}

fn is_table(schema: &Json) -> bool {
    schema["type"] == "object" || kinds(schema).is_some()
}

/// How a table that stands by itself begins.
fn header(schema: &Json, path: &KeyPath) -> Option<String> {
    match schema["type"] == "array" {
        _ if schema.get("examples").is_some() => None,
        true if is_table(&schema["items"]) => Some(format!("; each begins with [[{path}]]")),
        false if schema["additionalProperties"].is_object() => {
            Some(format!("; each begins with [{path}.NAME]"))
        }
        false if is_table(schema) => Some(format!("; it begins with [{path}]")),
        _ => None,
    }
}

/// `; for example ...`, where the schema has an example.
fn example(schema: &Json, path: &KeyPath) -> String {
    match (&schema["examples"][0], path.last_key()) {
        (Json::Null, _) | (_, None) => String::new(),
        (value, Some(key)) => format!("; for example {key} = {}", toml(value)),
    }
}

/// A value as TOML writes it on one line.
fn toml(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Json::Object(table) => {
            let entries: Vec<_> =
                table.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The first sentence of a description, on one line, without its stop.
fn first_sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.split_once(". ").map_or(line.trim_end_matches('.'), |(first, _)| first).to_owned()
}

/// The plainest value that fits the schema, in place of a wrong one.
fn stand_in(schema: &Json) -> Json {
    if let Some(Kinds { branches, .. }) = kinds(schema) {
        return branches.first().map_or(Json::Null, |(_, schema)| stand_in(schema));
    }
    if let Some(word) = words(schema).and_then(|words| words.first().copied()) {
        return json!(word);
    }
    if schema.get("const").is_some() {
        return schema["const"].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
            let entry = |key: &str| (key.to_owned(), stand_in(&schema["properties"][key]));
            let mut table: Map<_, _> = required.map(entry).collect();
            let branch = &schema["oneOf"][0]["required"][0];
            table.extend(branch.as_str().map(entry));
            Json::Object(table)
        }
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            (0..least).map(|_| stand_in(&schema["items"])).collect()
        }
        Some("integer" | "number") => match schema.get("minimum") {
            Some(least) => least.clone(),
            None => json!(0),
        },
        Some("boolean") => json!(false),
        _ => json!(""),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::scalar::PATTERNS;
    use super::*;

    /// Every keyword that a raw form's schema uses is one that the check knows, so that the schema which
    /// editors read allows exactly what the program takes.
    fn keywords_are_known(schema: &Json, path: &str) {
        const KNOWN: [&str; 22] = [
            "$schema",
            "title",
            "description",
            "default",
            "examples",
            "format",
            "type",
            "const",
            "enum",
            "oneOf",
            "properties",
            "required",
            "additionalProperties",
            "propertyNames",
            "items",
            "minItems",
            "maxItems",
            "minLength",
            "maxLength",
            "pattern",
            "minimum",
            "maximum",
        ];
        let Json::Object(object) = schema else { return };
        for (keyword, value) in object {
            assert!(KNOWN.contains(&keyword.as_str()), "{path}: the check does not know {keyword}");
            match keyword.as_str() {
                "properties" => value
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(key, schema)| keywords_are_known(schema, &format!("{path}.{key}"))),
                "oneOf" => value.as_array().unwrap().iter().for_each(|s| keywords_are_known(s, path)),
                "items" | "additionalProperties" | "propertyNames" => keywords_are_known(value, path),
                "pattern" => assert!(PATTERNS.iter().any(|p| value == p.regex), "{path}: {value}"),
                _ => {}
            }
        }
        if object.contains_key("properties") {
            let closed = object.get("additionalProperties") == Some(&json!(false));
            assert!(closed, "{path}: unknown keys must be refused");
        }
    }

    /// Every key has a meaning, and is required, has a default, or says what happens without it.
    fn keys_are_documented(schema: &Json, path: &str) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let description = property["description"].as_str().unwrap_or_default();
            let is_tag = property["const"].is_string();
            assert!(is_tag || !description.is_empty(), "{path} has no description");
            let list = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
            let required = list("required").contains(&json!(key))
                || list("oneOf").iter().any(|branch| branch["required"][0] == *key);
            let said = description.contains("Without");
            assert!(
                required || property.get("default").is_some() || said,
                "{path}: what happens without it?"
            );
            keys_are_documented(property, &path);
            keys_are_documented(&property["items"], &path);
            keys_are_documented(&property["additionalProperties"], &path);
        }
        schema["oneOf"].as_array().into_iter().flatten().for_each(|s| keys_are_documented(s, path));
    }

    /// For the tests of whoever derives a schema.
    pub(crate) fn says_what_the_check_does(schema: &Json) {
        keywords_are_known(schema, "");
        keys_are_documented(schema, "");
    }
}
