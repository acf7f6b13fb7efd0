//! The OCI's own JSON schemas, where they are at hand: `corpora/image-spec` of the shared folder.
//!
//! The checker knows the keywords that those schemas use and no other.

#![allow(
    clippy::unwrap_used,
    reason = "a part of tests: a schema that is not as expected ends them"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The schemas by file name.
#[derive(Debug)]
pub struct Schemas {
    all: HashMap<String, Value>,
    /// Where they lie.
    pub directory: PathBuf,
}

impl Schemas {
    /// Those of the shared folder; says so when there is none.
    ///
    /// # Panics
    ///
    /// When a schema cannot be read.
    pub fn at_hand() -> Option<Self> {
        let directory = crate::corpora::at_hand("image-spec")?;
        let all = Self::load(&directory.join("schema"));
        Some(Self { all, directory })
    }

    fn load(directory: &Path) -> HashMap<String, Value> {
        let entries = fs_err::read_dir(directory).expect("the folder is there");
        entries
            .map(|entry| {
                let path = entry.expect("it can be read").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = fs_err::read_to_string(&path).expect("a schema is text");
                (name, serde_json::from_str(&text).expect("a schema is JSON"))
            })
            .collect()
    }

    /// Whether a document fits the schema in `file`, such as `config-schema.json`.
    ///
    /// # Panics
    ///
    /// When there is no such schema, or it uses a keyword that is not known here.
    pub fn valid(&self, file: &str, value: &Value) -> bool {
        self.check(file, &self.all[file], value)
    }

    /// Whether `value` fits `schema`, which stands in `file`.
    fn check(&self, file: &str, schema: &Value, value: &Value) -> bool {
        let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
        schema.iter().all(|(keyword, rule)| match keyword.as_str() {
            "$ref" => {
                let rule = rule.as_str().unwrap();
                let (target, pointer) = rule.split_once('#').unwrap_or((rule, ""));
                let target = match target.rsplit('/').next().unwrap() {
                    "" => file,
                    name => name,
                };
                let found = self.all[target].pointer(pointer);
                self.check(target, found.unwrap_or_else(|| panic!("{rule}")), value)
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array()
                    .unwrap()
                    .iter()
                    .all(|name| object.contains_key(name.as_str().unwrap()))
            }),
            "properties" => value.as_object().is_none_or(|object| {
                rule.as_object().unwrap().iter().all(|(name, rule)| {
                    object.get(name).is_none_or(|value| self.check(file, rule, value))
                })
            }),
            "patternProperties" => value.as_object().is_none_or(|object| {
                rule.as_object().unwrap().iter().all(|(pattern, rule)| {
                    let pattern = regex::Regex::new(pattern).unwrap();
                    object.iter().all(|(name, value)| {
                        !pattern.is_match(name) || self.check(file, rule, value)
                    })
                })
            }),
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|value| self.check(file, rule, value))),
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap())
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| {
                regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)
            }),
            "anyOf" => rule.as_array().unwrap().iter().any(|rule| self.check(file, rule, value)),
            "oneOf" => {
                rule.as_array().unwrap().iter().filter(|rule| self.check(file, rule, value)).count()
                    == 1
            }
            "allOf" => rule.as_array().unwrap().iter().all(|rule| self.check(file, rule, value)),
            // Notes, names, and `format`, which validators may leave alone.
            "description" | "$schema" | "id" | "$id" | "definitions" | "format" | "title"
            | "media" | "default" => true,
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                value.as_object().is_none_or(|object| {
                    object
                        .iter()
                        .filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)))
                        .all(|(_, value)| self.check(file, rule, value))
                })
            }
            other => panic!("keyword {other} is not known"),
        })
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other} is not known"),
    }
}
