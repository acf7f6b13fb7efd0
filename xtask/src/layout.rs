//! Writes a one-layer OCI image layout by hand, so that the other tools can be tried without
//! the engine that is being tried.
//!
//! See the image-layout, config and manifest documents of the OCI image specification 1.0.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::failure::Outcome;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image says about itself besides its files.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// The tag inside the layout.
    pub(crate) tag: &'a str,
    pub(crate) env: &'a [&'a str],
    pub(crate) cmd: &'a [&'a str],
}

/// Makes the layout in `dir`, which must not hold one yet, with the tar file as its layer.
pub(crate) fn write(dir: &Path, rootfs: &Path, image: &Image<'_>) -> Outcome {
    let blobs = dir.join("blobs/sha256");
    fs_err::create_dir_all(&blobs)?;
    let (layer, size) = digest_of(rootfs)?;
    fs_err::copy(rootfs, blobs.join(&layer))?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": { "Env": image.env, "Cmd": image.cmd },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "xtask bases" }],
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store(&blobs, CONFIG, &config)?,
        "layers": [{ "mediaType": LAYER, "digest": format!("sha256:{layer}"), "size": size }],
    });
    let mut entry = store(&blobs, MANIFEST, &manifest)?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": image.tag });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    fs_err::write(dir.join("index.json"), index.to_string())?;
    fs_err::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Packs `dir` with owners 0:0 and no times, so that anyone makes the same bytes.
pub(crate) fn pack(dir: &Path, file: &Path) -> Outcome {
    let out = std::io::BufWriter::new(fs_err::File::create(file)?);
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    builder.mode(tar::HeaderMode::Deterministic);
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        let mut paths: Vec<_> =
            fs_err::read_dir(&folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(dir).unwrap_or(&path);
            builder.append_path_with_name(&path, name)?;
            if fs_err::symlink_metadata(&path)?.is_dir() {
                open.push(path);
            }
        }
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn store(blobs: &Path, media_type: &str, document: &Value) -> Outcome<Value> {
    let bytes = document.to_string();
    let digest = hex(&Sha256::digest(bytes.as_bytes()));
    fs_err::write(blobs.join(&digest), &bytes)?;
    Ok(json!({
        "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len(),
    }))
}

fn digest_of(file: &Path) -> Outcome<(String, u64)> {
    let mut input = fs_err::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..count]);
        size += count as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// This machine's architecture in Go's words, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
