//! JSON Schemas of raw forms, and the types that raw forms are made of.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::path::PathBuf;

/// The JSON Schema of a raw form: draft 7, which editors understand, without references. Whatever is not
/// required may be left out; TOML has no null.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes out, here and below, the null that an optional field's schema allows, and puts in the bound that a
/// u32 has (the smaller integers have theirs; TOML's own bound is below that of a u64).
fn tidy(schema: &mut Json) {
    let is_null = |schema: &Json| schema["type"] == "null";
    if let Json::Object(object) = schema {
        if let Some(Json::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if let Some(Json::Array(options)) = object.get("anyOf")
            && let [Json::Object(inner), null] = options.as_slice()
            && is_null(null)
        {
            let inner = inner.clone();
            object.remove("anyOf");
            inner.into_iter().for_each(|(key, value)| {
                object.entry(key).or_insert(value);
            });
        }
        if object.get("format").is_some_and(|format| format == "uint32") {
            object.entry("maximum").or_insert(u32::MAX.into());
        }
        if object.get("default") == Some(&Json::Null) {
            object.remove("default");
        }
        object.values_mut().for_each(tidy);
    } else if let Json::Array(items) = schema {
        items.iter_mut().for_each(tidy);
    }
}

/// The name of a stream, a set, an output or a model.
#[derive(Deserialize)]
pub struct Id(pub String);

impl Id {
    pub(crate) const PATTERN: &str = "^[a-z0-9_-]{1,32}$";
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN })
    }
}

/// A path, relative to the folder of the file in which it stands. In a checked raw form it leads on from
/// where the program runs.
#[derive(Deserialize, Serialize)]
pub struct RelativePath(pub PathBuf);

impl JsonSchema for RelativePath {
    fn schema_name() -> Cow<'static, str> {
        "RelativePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "format": "path" })
    }
}

/// A file's SHA-256, 64 digits in hex.
#[derive(Deserialize)]
pub struct Sha256(pub String);

impl Sha256 {
    pub(crate) const PATTERN: &str = "^[0-9a-f]{64}$";
}

impl JsonSchema for Sha256 {
    fn schema_name() -> Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN })
    }
}

/// Who has the hardware watchdog: `none`, `systemd` or a device, `/dev/watchdog0`.
#[derive(Deserialize, Serialize)]
pub struct WatchdogName(pub String);

impl WatchdogName {
    pub(crate) const PATTERN: &str = "^(none|systemd|/dev/watchdog[0-9]{1,2})$";
}

impl Default for WatchdogName {
    fn default() -> Self {
        Self("none".into())
    }
}

impl JsonSchema for WatchdogName {
    fn schema_name() -> Cow<'static, str> {
        "WatchdogName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN })
    }
}
