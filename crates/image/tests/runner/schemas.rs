//! What we write is valid by the OCI's own JSON schemas, where they are at hand. The checker is
//! checked itself: the published valid and invalid documents must come out as their tables say.

use rbuild_image::layout::Layout;
use rbuild_image::media_type::Family;
use rbuild_testkit::schemas::Schemas;
use rbuild_types::CancelToken;
use serde_json::Value;

use crate::archives::image;

/// Marks of documents that only the validator's own code refuses: a variable without a value, a
/// digest in upper case, a link that is no URI, text that is not base64.
const BEYOND_SCHEMAS: [&str; 4] =
    [r#""foo""#, "sha256:5B0B", r#""value""#, "aHR0cHM6Ly9naXRodWIuY29tL29wZW5jb250YWluZXJzCg"];

#[test]
fn what_we_write_is_valid() {
    let Some(schemas) = Schemas::at_hand() else { return };
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
    let Some(schemas) = Schemas::at_hand() else { return };
    let tables =
        fs_err::read_to_string(schemas.directory.join("schema-tests.tables.jsonl")).unwrap();
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
