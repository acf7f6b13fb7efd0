//! Exported images, read back by hand: what the tests believe of them does not come from the code
//! that wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use rbuild::{Digest, Engine, Output};
use rbuild_testkit::schemas::Schemas;
use serde_json::{Value, json};

use crate::support::{Place, build};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The files of an OCI image layout.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Exported(pub BTreeMap<String, Vec<u8>>);

impl Exported {
    pub fn from_tar(path: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(fs_err::File::open(path).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if entry.header().entry_type().is_file() {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                assert!(files.insert(name.clone(), bytes).is_none(), "{name} stands there twice");
            }
        }
        Self(files).valid()
    }

    pub fn from_directory(path: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut waiting = vec![path.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs_err::read_dir(&directory).unwrap() {
                let at = entry.unwrap().path();
                if at.is_dir() {
                    waiting.push(at);
                } else {
                    let name = at.strip_prefix(path).unwrap().display().to_string();
                    files.insert(name, fs_err::read(&at).unwrap());
                }
            }
        }
        Self(files).valid()
    }

    /// Holds all its manifests and indexes against the OCI's schemas.
    fn valid(self) -> Self {
        let Some(schemas) = Schemas::at_hand() else { return self };
        for (name, bytes) in &self.0 {
            if name.starts_with("blobs/") || name == "index.json" {
                check_document(&schemas, bytes);
            }
        }
        self
    }

    pub fn file(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is missing: {:?}", self.0.keys()))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.file(name)).unwrap()
    }

    pub fn blob(&self, digest: &str) -> &[u8] {
        self.file(&format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap()))
    }

    fn json_blob(&self, digest: &str) -> Value {
        serde_json::from_slice(self.blob(digest)).unwrap()
    }

    /// The first image's manifest digest.
    pub fn manifest_digest(&self) -> String {
        text(&self.json("index.json")["manifests"][0]["digest"])
    }

    pub fn manifest(&self) -> Value {
        self.json_blob(&self.manifest_digest())
    }

    pub fn config_digest(&self) -> String {
        text(&self.manifest()["config"]["digest"])
    }

    pub fn config(&self) -> Value {
        self.json_blob(&self.config_digest())
    }

    /// The tars of the first image's layers, bottom first.
    pub fn layers(&self) -> Vec<Vec<u8>> {
        self.layers_of(&self.manifest_digest())
    }

    /// The tars of the layers of the image with this manifest, bottom first.
    pub fn layers_of(&self, manifest: &str) -> Vec<Vec<u8>> {
        let manifest = self.json_blob(manifest);
        manifest["layers"].as_array().unwrap().iter().map(|it| self.layer(it)).collect()
    }

    fn layer(&self, descriptor: &Value) -> Vec<u8> {
        let kind = text(&descriptor["mediaType"]);
        assert!(kind.starts_with(OCI_LAYER), "{kind}");
        let compression = rbuild_image::media_type::layer_compression(&kind).unwrap();
        let blob = self.blob(&text(&descriptor["digest"]));
        let mut tar = Vec::new();
        rbuild_image::compress::reader(compression, blob, "layer")
            .unwrap()
            .read_to_end(&mut tar)
            .unwrap();
        tar
    }

    /// Holds everything against the OCI image specification: what must be there, every digest and
    /// every size against the bytes, and no file beside.
    pub fn check(&self) {
        assert_eq!(self.json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = self.json("index.json");
        let schemas = Schemas::at_hand();
        let fits = |schema: &str, document: &Value| {
            let valid = schemas.as_ref().is_none_or(|schemas| schemas.valid(schema, document));
            assert!(valid, "{schema}: {document}");
        };
        fits("image-layout-schema.json", &self.json("oci-layout"));
        fits("image-index-schema.json", &index);
        assert_eq!(index["schemaVersion"], 2);
        assert_eq!(index["mediaType"], OCI_INDEX);
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut manifests = index["manifests"].as_array().unwrap().clone();
        assert!(!manifests.is_empty());
        while let Some(descriptor) = manifests.pop() {
            if descriptor["mediaType"] == OCI_INDEX {
                let index = self.described(&descriptor, &mut used);
                fits("image-index-schema.json", &index);
                assert_eq!(
                    (&index["schemaVersion"], &index["mediaType"]),
                    (&2.into(), &OCI_INDEX.into())
                );
                manifests.extend(index["manifests"].as_array().unwrap().iter().cloned());
                continue;
            }
            let descriptor = &descriptor;
            assert_eq!(descriptor["mediaType"], OCI_MANIFEST);
            let manifest = self.described(descriptor, &mut used);
            fits("image-manifest-schema.json", &manifest);
            assert_eq!(manifest["schemaVersion"], 2);
            assert_eq!(manifest["mediaType"], OCI_MANIFEST);
            if descriptor["platform"]["os"] == "unknown" {
                // An attestation, of which no more is an image than its manifest.
                for part in std::iter::once(&manifest["config"]).chain(list(&manifest["layers"])) {
                    self.raw(part, &mut used);
                }
                continue;
            }
            assert_eq!(manifest["config"]["mediaType"], OCI_CONFIG);
            let config = self.described(&manifest["config"], &mut used);
            fits("config-schema.json", &config);
            assert_eq!(config["os"], descriptor["platform"]["os"]);
            assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
            assert_eq!(config["variant"], descriptor["platform"]["variant"]);
            assert_ne!(text(&config["architecture"]), "");
            assert_eq!(config["rootfs"]["type"], "layers");
            let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
            let layers = manifest["layers"].as_array().unwrap();
            assert_eq!(layers.len(), diff_ids.len());
            for (layer, diff_id) in layers.iter().zip(diff_ids) {
                self.raw(layer, &mut used);
                assert_eq!(Digest::of(self.layer(layer)).to_string(), text(diff_id));
            }
            let history = config["history"].as_array().unwrap();
            let with_layer = history.iter().filter(|it| it["empty_layer"] != true);
            assert_eq!(with_layer.count(), layers.len(), "{history:?}");
            for time in history.iter().map(|it| &it["created"]).chain([&config["created"]]) {
                assert!(text(time).parse::<jiff::Timestamp>().is_ok(), "{time}");
            }
        }
        let blobs = self.0.keys().filter_map(|name| name.strip_prefix("blobs/sha256/"));
        let blobs: BTreeSet<String> = blobs.map(str::to_owned).collect();
        assert_eq!(blobs, used, "blobs that are there and blobs that are used");
        let others: Vec<_> = self.0.keys().filter(|name| !name.starts_with("blobs/")).collect();
        let known = ["index.json", "manifest.json", "oci-layout"];
        assert!(others.iter().all(|name| known.contains(&name.as_str())), "{others:?}");
    }

    fn described(&self, descriptor: &Value, used: &mut BTreeSet<String>) -> Value {
        serde_json::from_slice(self.raw(descriptor, used)).unwrap()
    }

    fn raw(&self, descriptor: &Value, used: &mut BTreeSet<String>) -> &[u8] {
        let digest = text(&descriptor["digest"]);
        let bytes = self.blob(&digest);
        assert_eq!(Digest::of(bytes).to_string(), digest);
        assert_eq!(descriptor["size"], bytes.len());
        used.insert(digest.strip_prefix("sha256:").unwrap().to_owned());
        bytes
    }
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// Puts a blob into a layout, and describes it.
pub fn put(layout: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs_err::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

/// Holds a manifest or an index, if it is one, against the OCI's schemas.
pub fn check_document(schemas: &Schemas, bytes: &[u8]) {
    // Layers begin with other bytes.
    let document = match bytes.first() {
        Some(b'{') => serde_json::from_slice::<Value>(bytes).unwrap_or_default(),
        _ => return,
    };
    if document.get("schemaVersion").is_none() {
        return;
    }
    let schema = match document.get("manifests") {
        Some(_) => "image-index-schema.json",
        None => "image-manifest-schema.json",
    };
    assert!(schemas.valid(schema, &document), "{schema}: {document}");
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// One file of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: tar::EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    pub link: Option<String>,
    pub content: Vec<u8>,
}

/// The files of a tar by name, without the slash of directories.
pub fn entries(tar: impl Read) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let name = name.trim_end_matches('/').to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        let header = entry.header();
        let one = Entry {
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime: header.mtime().unwrap(),
            link,
            content,
        };
        assert!(found.insert(name.clone(), one).is_none(), "{name} stands there twice");
    }
    found
}

/// The files of each layer of an image, bottom first.
pub fn layers(place: &Place, engine: &Engine, text: &str) -> Vec<BTreeMap<String, Entry>> {
    let directory = tempfile::tempdir_in(place.path()).unwrap();
    let path = directory.path().join("image.tar");
    build(engine, &place.request(text).output(Output::OciArchive(path.clone().into())));
    let image = Exported::from_tar(&path);
    image.layers().iter().map(|layer| entries(layer.as_slice())).collect()
}

/// Names in the topmost layer of an image.
pub fn top_names(place: &Place, engine: &Engine, text: &str) -> Vec<String> {
    let top = layers(place, engine, text).pop().unwrap();
    top.into_keys().filter(|name| !name.is_empty() && name != ".").collect()
}
