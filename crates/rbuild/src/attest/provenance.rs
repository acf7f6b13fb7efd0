//! How an image was made, in the fields that BuildKit uses for it
//! (`docs/attestations/slsa-definitions.md` of BuildKit), so that what reads BuildKit's provenance
//! reads this. The type of the build is another: steps are listed without the instructions that
//! BuildKit would execute for them.

use serde_json::{Map, Value, json};

use super::facts::{Facts, Material, Steps};
use super::statement::{PROVENANCE_V1, PROVENANCE_V02, Predicate};
use super::{Provenance, ProvenanceMode, SlsaVersion};
use crate::sources::remote::base64;

/// Names the meaning of the parameters: those of a build of a Dockerfile.
const BUILD_TYPE: &str = "urn:x-rbuild:dockerfile@v1";
/// The frontend whose parameters they are, by BuildKit's name.
const FRONTEND: &str = "dockerfile.v0";
/// Fields of BuildKit's own in SLSA 0.2.
const METADATA: &str = "https://mobyproject.org/buildkit@v1#metadata";
const HERMETIC: &str = "https://mobyproject.org/buildkit@v1#hermetic";
/// The file among files of the image, if no other was asked for.
const FILE: &str = "provenance.json";

impl Facts {
    /// In the version that was asked for.
    pub(super) fn predicate(&self, options: &Provenance) -> Predicate {
        let (kind, body) = match options.version {
            SlsaVersion::V02 => (PROVENANCE_V02, self.v02(options)),
            SlsaVersion::V1 => (PROVENANCE_V1, self.v1(options)),
        };
        let file = match options.filename.as_str() {
            "" => FILE.to_owned(),
            name => name.to_owned(),
        };
        Predicate { kind, file, body, inline_only: options.inline_only }
    }

    fn v1(&self, options: &Provenance) -> Value {
        let mut internal = json!({ "builderPlatform": self.platform.to_string() });
        if let Some(steps) = self.steps(options) {
            internal["buildConfig"] = build_config(steps);
        }
        let mut metadata = json!({
            "buildkit_metadata": self.metadata(options),
            "buildkit_completeness": {
                "request": self.names_all(options),
                "resolvedDependencies": self.is_complete,
            },
        });
        if let Some(run) = &self.run {
            metadata["invocationId"] = json!(run.id);
            metadata["startedOn"] = json!(run.started);
            metadata["finishedOn"] = json!(run.finished);
        }
        if options.reproducible {
            metadata["buildkit_reproducible"] = json!(true);
        }
        if self.is_hermetic() {
            metadata["buildkit_hermetic"] = json!(true);
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": self.config_source("path"),
                    "request": self.request(options),
                },
                "internalParameters": internal,
                "resolvedDependencies": self.materials(),
            },
            "runDetails": {
                "builder": {
                    "id": options.builder_id,
                    "version": { "rbuild": env!("CARGO_PKG_VERSION") },
                },
                "metadata": metadata,
            },
        })
    }

    pub(super) fn v02(&self, options: &Provenance) -> Value {
        let mut metadata = json!({
            "completeness": {
                "parameters": self.names_all(options),
                "environment": true,
                "materials": self.is_complete,
            },
            "reproducible": options.reproducible,
            METADATA: self.metadata(options),
        });
        if let Some(run) = &self.run {
            metadata["buildInvocationID"] = json!(run.id);
            metadata["buildStartedOn"] = json!(run.started);
            metadata["buildFinishedOn"] = json!(run.finished);
        }
        if self.is_hermetic() {
            metadata[HERMETIC] = json!(true);
        }
        let mut predicate = json!({
            "builder": { "id": options.builder_id },
            "buildType": BUILD_TYPE,
            "materials": self.materials(),
            "invocation": {
                "configSource": self.config_source("entryPoint"),
                "parameters": self.request(options),
                "environment": { "platform": self.platform.to_string() },
            },
            "metadata": metadata,
        });
        if let Some(steps) = self.steps(options) {
            predicate["buildConfig"] = build_config(steps);
        }
        predicate
    }

    /// Whether nothing but the materials could get into the image.
    fn is_hermetic(&self) -> bool {
        self.is_complete && !self.has_network
    }

    /// Whether all parameters are named.
    fn names_all(&self, options: &Provenance) -> bool {
        options.mode == ProvenanceMode::Max || !self.args.keys().any(|name| has_value(name))
    }

    fn config_source(&self, path: &str) -> Value {
        let mut source = Map::new();
        if let Some(context) = &self.config_source {
            source.extend(described(context));
        }
        if let Some(file) = &self.path {
            source.insert(path.to_owned(), json!(file));
        }
        Value::Object(source)
    }

    fn request(&self, options: &Provenance) -> Value {
        let is_max = options.mode == ProvenanceMode::Max;
        let args = self.args.iter().filter(|(name, _)| is_max || !has_value(name));
        let args: Map<_, _> = args.map(|(name, value)| (name.clone(), json!(value))).collect();
        let locals: Vec<_> = self.locals.iter().map(|name| json!({ "name": name })).collect();
        let mut request = json!({ "frontend": FRONTEND, "args": args, "locals": locals });
        if is_max {
            for (field, names) in [("secrets", &self.secrets), ("ssh", &self.agents)] {
                let named = names.iter().map(|(id, optional)| match optional {
                    true => json!({ "id": id, "optional": true }),
                    false => json!({ "id": id }),
                });
                if !names.is_empty() {
                    request[field] = named.collect();
                }
            }
        }
        request
    }

    fn materials(&self) -> Value {
        self.materials.iter().map(|material| Value::Object(described(material))).collect()
    }

    fn steps(&self, options: &Provenance) -> Option<&Steps> {
        self.steps.as_ref().filter(|_| options.mode == ProvenanceMode::Max)
    }

    /// BuildKit's own.
    fn metadata(&self, options: &Provenance) -> Value {
        let mut metadata = Map::new();
        if !self.vcs.is_empty() {
            metadata.insert("vcs".to_owned(), json!(self.vcs));
        }
        if let Some(steps) = self.steps(options) {
            let source = json!({
                "infos": [{
                    "filename": self.path.as_deref().unwrap_or("Dockerfile"),
                    "language": "Dockerfile",
                    "data": base64(steps.dockerfile.as_bytes()),
                }],
                "locations": steps.locations,
            });
            metadata.insert("source".to_owned(), source);
            metadata.insert("layers".to_owned(), json!(steps.layers));
        }
        Value::Object(metadata)
    }
}

fn build_config(steps: &Steps) -> Value {
    json!({ "llbDefinition": steps.described })
}

/// Whether an option holds a value that somebody may not want to show.
fn has_value(name: &str) -> bool {
    name.starts_with("build-arg:") || name.starts_with("label:")
}

fn described(material: &Material) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("uri".to_owned(), json!(material.uri));
    if let Some((algorithm, hex)) = &material.digest {
        fields.insert("digest".to_owned(), json!({ *algorithm: hex }));
    }
    fields
}
