//! What we write is valid by the OCI's own JSON schemas, where they are at hand.
//!
//! The checker knows the keywords that those schemas use, and is checked itself: the published
//! valid and invalid documents must come out as their tables say.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::archives::image;
use rbuild_image::layout::Layout;
use rbuild_image::media_type::Family;
use rbuild_types::CancelToken;

struct Schemas(HashMap<String, Value>);

fn shared() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("RBUILD_SHARED").map_or_else(beside, PathBuf::from);
    let found = shared.join("corpora/image-spec");
    if !found.is_dir() {
        eprintln!("skipped: the OCI schemas are not at hand");
        return None;
    }
    Some(found)
}

impl Schemas {
    fn load(dir: &std::path::Path) -> Self {
        let mut all = HashMap::new();
        for entry in fs_err::read_dir(dir.join("schema")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs_err::read_to_string(&path).unwrap();
            all.insert(name, serde_json::from_str(&text).unwrap());
        }
        Self(all)
    }

    fn valid(&self, file: &str, value: &Value) -> bool {
        self.check(file, &self.0[file], value)
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
                let found = self.0[target].pointer(pointer);
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

/// Marks of documents that only the validator's own code refuses: a variable without a value, a
/// digest in upper case, a link that is no URI, text that is not base64.
const BEYOND_SCHEMAS: [&str; 4] =
    [r#""foo""#, "sha256:5B0B", r#""value""#, "aHR0cHM6Ly9naXRodWIuY29tL29wZW5jb250YWluZXJzCg"];

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

#[test]
fn what_we_write_is_valid() {
    let Some(dir) = shared() else { return };
    let schemas = Schemas::load(&dir);
    let dest = crate::support::temp();
    let (blobs, export) = image(Family::Oci, &["x:1"]);
    Layout::write(&dest.root, std::slice::from_ref(&export), &blobs, &CancelToken::default())
        .unwrap();
    let json = |path: &str| -> Value {
        serde_json::from_slice(&dest.root.read_small(path, 1 << 20).unwrap()).unwrap()
    };
    let manifest = json(&format!("blobs/sha256/{}", export.descriptor.digest.hex()));
    let config = manifest["config"]["digest"].as_str().unwrap().replace(':', "/");
    assert!(schemas.valid("image-layout-schema.json", &json("oci-layout")));
    assert!(schemas.valid("image-index-schema.json", &json("index.json")));
    assert!(schemas.valid("image-manifest-schema.json", &manifest));
    assert!(schemas.valid("config-schema.json", &json(&format!("blobs/{config}"))));
}

#[test]
fn the_published_documents_come_out_as_their_tables_say() {
    let Some(dir) = shared() else { return };
    let schemas = Schemas::load(&dir);
    let tables = fs_err::read_to_string(dir.join("schema-tests.tables.jsonl")).unwrap();
    let mut counted = 0;
    for line in tables.lines() {
        let table: Value = serde_json::from_str(line).unwrap();
        let schema = match table["file"].as_str().unwrap() {
            "manifest_test.go" => "image-manifest-schema.json",
            "config_test.go" => "config-schema.json",
            "imageindex_test.go" => "image-index-schema.json",
            "imagelayout_test.go" => "image-layout-schema.json",
            "descriptor_test.go" => "content-descriptor.json",
            _ => continue,
        };
        let Some(rows) = table["rows"].as_array() else { continue };
        for row in rows {
            let fields = row.as_object().unwrap();
            let text = fields.iter().find(|(key, _)| *key != "fail").and_then(|(_, v)| v.as_str());
            let Some(text) = text else { continue };
            let fail = row.get("fail").and_then(Value::as_bool).unwrap_or(false);
            let valid = serde_json::from_str(text).is_ok_and(|value| schemas.valid(schema, &value));
            // The rest of the table's validator is Go code beside the schema.
            if valid && fail && BEYOND_SCHEMAS.iter().any(|part| text.contains(part)) {
                continue;
            }
            assert_eq!(valid, !fail, "{schema}: {text}");
            counted += 1;
            // Whatever the schema says of it, our own parser must not panic.
            let _ = rbuild_image::manifest::parse_manifest(text.as_bytes(), None);
            let _ = rbuild_image::config::parse_config(text.as_bytes());
        }
    }
    assert!(counted >= 40, "{counted} documents");
}
