//! What is said of images: found as a reader finds it, from the index on.

use base64::Engine as _;
use rbuild::{
    Attestations, BuildRequest, CancelToken, ContextInput, Digest, Engine, Event, Export,
    LayerForm, Output, Provenance, ProvenanceMode, SaveRequest, Silent, SlsaVersion,
};
use serde_json::{Value, json};

use crate::build_http::engine;
use crate::build_push::{Registry, pushed};
use crate::exported::{Exported, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, list, text};
use crate::git_server::{Protocol, served};
use crate::support::{Events, Place, build, build_error, explain};
use crate::tests;
use crate::web::{Web, answer};

tests![
    an_image_says_how_it_was_made_and_what_is_in_it,
    nothing_secret_is_said,
    a_cached_build_says_what_it_was_made_from,
    sources_are_pinned,
    a_registry_gets_them_before_the_index,
    little_is_said_when_little_is_asked_for,
    a_checkout_is_named_unless_that_is_not_wanted,
    versions_of_slsa_say_the_same,
    with_a_fixed_time_stores_say_the_same_bytes,
    merged_layers_are_no_step_s,
    an_artifact_names_its_subject,
    a_stored_image_keeps_what_is_said_of_it,
    each_platform_has_its_own,
    files_have_statements_beside_them,
    what_has_no_place_for_them_is_without,
];

const SPDX: &str = "https://spdx.dev/Document";
const SLSA: &str = "https://slsa.dev/provenance/v1";
const STATUS: &str = "Package: libfoo\nStatus: install ok installed\nVersion: 1.2-3\n";

fn both() -> Attestations {
    Attestations { sbom: true, provenance: Some(Provenance::default()), ..Attestations::default() }
}

fn with(provenance: Provenance) -> Attestations {
    Attestations { provenance: Some(provenance), ..Attestations::default() }
}

/// A request whose image has a package of Debian's.
fn request(place: &Place, text: &str, attestations: Attestations) -> BuildRequest {
    place.write("status", STATUS);
    let text = format!("FROM base\nCOPY status /var/lib/dpkg/status\n{text}");
    BuildRequest { attestations, ..place.request(&text).tag("team/app:1") }
}

/// What is attached to an image.
struct Said {
    image: Value,
    manifest: Value,
    statements: Vec<Value>,
}

impl Said {
    fn predicate(&self, kind: &str) -> &Value {
        let of = |statement: &&Value| statement["predicateType"] == kind;
        &self.statements.iter().find(of).unwrap_or_else(|| panic!("no {kind}"))["predicate"]
    }
}

/// Goes from the index of a layout to every statement, as buildx' `imagetools inspect` does.
fn said(layout: &Exported) -> Vec<Said> {
    layout.check();
    let blob = |descriptor: &Value| -> Value {
        serde_json::from_slice(layout.blob(&text(&descriptor["digest"]))).unwrap()
    };
    let top = &layout.json("index.json")["manifests"][0];
    assert_eq!(top["mediaType"], OCI_INDEX);
    let index = blob(top);
    let (attached, images): (Vec<_>, Vec<_>) = list(&index["manifests"])
        .iter()
        .cloned()
        .partition(|entry| entry["annotations"]["vnd.docker.reference.type"].is_string());
    let entries = attached.into_iter().zip(images).map(|(entry, image)| {
        let platform = json!({ "architecture": "unknown", "os": "unknown" });
        assert_eq!(entry["platform"], platform);
        assert_eq!(entry["mediaType"], OCI_MANIFEST);
        let annotations = &entry["annotations"];
        assert_eq!(annotations["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
        let manifest = blob(&entry);
        let statements = list(&manifest["layers"]).iter().map(|layer| {
            assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
            let statement = blob(layer);
            let kind = &layer["annotations"]["in-toto.io/predicate-type"];
            assert_eq!(statement["predicateType"], *kind);
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
            for subject in list(&statement["subject"]) {
                let sha256 = text(&subject["digest"]["sha256"]);
                assert_eq!(format!("sha256:{sha256}"), text(&image["digest"]));
            }
            statement
        });
        Said { statements: statements.collect(), image, manifest }
    });
    entries.collect()
}

/// Builds and exports.
fn exported(place: &Place, engine: &Engine, request: BuildRequest) -> Exported {
    let path = place.path().join("image.tar");
    build(engine, &request.output(Output::OciArchive(path.clone().into())));
    Exported::from_tar(&path)
}

fn one(place: &Place, engine: &Engine, request: BuildRequest) -> Said {
    let mut all = said(&exported(place, engine, request));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn an_image_says_how_it_was_made_and_what_is_in_it() {
    let place = Place::new();
    let web = Web::start(|_| answer(200, "content"));
    let add = format!("ADD {} /added\nRUN echo > /x\nLABEL of=it", web.url("/file"));
    let request = request(&place, &add, both()).arg("UNUSED", "value").label("l", "v");
    let said = one(&place, &engine(&place), request);
    let names = &said.statements[0]["subject"];
    let platform = rbuild::Platform::host().to_string().replace('/', "%2F");
    assert_eq!(names[0]["name"], format!("pkg:docker/team/app@1?platform={platform}"));

    let packages = said.predicate(SPDX);
    assert_eq!(packages["spdxVersion"], "SPDX-2.3");
    assert_eq!(packages["name"], "team/app:1");
    let names: Vec<_> = list(&packages["packages"]).iter().map(|it| text(&it["name"])).collect();
    assert_eq!(names, ["team/app:1", "libfoo"]);

    let how = said.predicate(SLSA);
    let definition = &how["buildDefinition"];
    let material = json!({
        "uri": web.url("/file"), "digest": { "sha256": Digest::of("content").hex() },
    });
    assert_eq!(definition["resolvedDependencies"], json!([material]));
    let parameters = &definition["externalParameters"];
    assert_eq!(parameters["configSource"], json!({ "path": "Dockerfile" }));
    let locals = json!([{ "name": "context" }, { "name": "dockerfile" }]);
    assert_eq!(parameters["request"]["locals"], locals);
    let args = json!({ "build-arg:UNUSED": "value", "label:l": "v" });
    assert_eq!(parameters["request"]["args"], args);
    assert_eq!(parameters["request"]["frontend"], "dockerfile.v0");
    let details = &how["runDetails"]["metadata"];
    let completeness = json!({ "request": true, "resolvedDependencies": false });
    assert_eq!(details["buildkit_completeness"], completeness);
    for time in ["startedOn", "finishedOn"] {
        assert!(text(&details[time]).parse::<jiff::Timestamp>().is_ok());
    }
    let source = &details["buildkit_metadata"]["source"];
    assert_eq!(source["infos"][0]["language"], "Dockerfile");
    // Steps, the layers that they are, and where they stand: RUN is on line 6.
    let steps = list(&definition["internalParameters"]["buildConfig"]["llbDefinition"]);
    let run = json!({ "start": { "line": 7 }, "end": { "line": 7 } });
    let locations = source["locations"].as_object().unwrap();
    let at = locations.iter().find(|(_, at)| at["locations"][0]["ranges"][0] == run);
    let (step, _) = at.unwrap_or_else(|| panic!("{locations:#?}"));
    assert!(steps.iter().any(|described| described["id"] == **step));
    let layers = list(&details["buildkit_metadata"]["layers"][format!("{step}:0")][0]).len();
    assert_eq!(layers, 5);
    assert_eq!(place.leftovers(), [""; 0]);
}

fn nothing_secret_is_said() {
    let place = Place::new();
    let web = Web::start(|_| answer(200, "content"));
    let url = web.url("/file").replace("http://", "http://user:hidden-1@");
    let run = format!(
        "ADD {url} /added\nRUN --mount=type=secret,id=key,required=true \
         --mount=type=secret,id=other true"
    );
    let mut request = request(&place, &run, both());
    request.options.build_args.insert("PROXY".into(), "http://u:hidden-2@proxy:1/".into());
    request.secrets.insert("key", b"hidden-3".to_vec());
    let image = exported(&place, &engine(&place), request);
    let said = said(&image).remove(0);
    for statement in &said.statements {
        assert!(!statement.to_string().contains("hidden"), "{statement}");
    }
    let how = said.predicate(SLSA);
    let data = &how["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"][0]["data"];
    let dockerfile = base64::engine::general_purpose::STANDARD.decode(text(data)).unwrap();
    let dockerfile = String::from_utf8(dockerfile).unwrap();
    assert!(dockerfile.contains("ADD http://127.0.0.1:") && !dockerfile.contains("hidden"));
    let request = &how["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:PROXY"], "http://proxy:1/");
    assert_eq!(request["secrets"], json!([{ "id": "key" }, { "id": "other", "optional": true }]));
}

fn a_cached_build_says_what_it_was_made_from() {
    let place = Place::new();
    let engine = engine(&place);
    let web = Web::start(|_| answer(200, "content").with("ETag", "\"1\""));
    let add = format!("ADD {} /added", web.url("/file"));
    let first = one(&place, &engine, request(&place, &add, both()));
    web.change(|_| answer(304, ""));
    let again = request(&place, &add, both());
    assert_eq!(build(&engine, &again).executed, 0);
    let second = one(&place, &engine, again);
    let of = |said: &Said| said.predicate(SLSA)["buildDefinition"].clone();
    assert_eq!(of(&first), of(&second));
    assert_eq!(first.image["digest"], second.image["digest"]);
}

fn sources_are_pinned() {
    let registry = Registry::start();
    let base = Place::new();
    let name = registry.name("team/base:7");
    let built = build(&base.engine(), &pushed(base.request("FROM base").tag(&name)));
    let digest = built.image.unwrap().exported.unwrap().digest;
    let (server, _, commit) = served(Protocol::Two);
    let context = server.url("r.git#main").replace("http://", "http://hidden@");
    let text = format!("FROM {name}\nCOPY f /\n");
    let request = BuildRequest {
        context: ContextInput::Git(context),
        attestations: both(),
        ..BuildRequest::new(".").dockerfile_text(text)
    };
    let said = one(&server.place, &engine(&server.place), request);
    let how = said.predicate(SLSA);
    let platform = rbuild::Platform::host().to_string().replace('/', "%2F");
    let image = name.replace("base:7", "base@7");
    let repository = json!({ "uri": server.url("r.git#main"), "digest": { "sha1": commit } });
    let expected = json!([
        {
            "uri": format!("pkg:docker/{image}?digest={digest}&platform={platform}"),
            "digest": { "sha256": digest.hex() },
        },
        repository,
    ]);
    let definition = &how["buildDefinition"];
    assert_eq!(definition["resolvedDependencies"], expected);
    let source = &definition["externalParameters"]["configSource"];
    assert_eq!((&source["uri"], &source["digest"]), (&repository["uri"], &repository["digest"]));
    // Nothing else could get in.
    assert_eq!(definition["externalParameters"]["request"]["locals"], json!([]));
    let details = &how["runDetails"]["metadata"];
    assert_eq!(details["buildkit_completeness"]["resolvedDependencies"], true);
    assert_eq!(details["buildkit_hermetic"], true);
}

fn a_registry_gets_them_before_the_index() {
    let (registry, place) = (Registry::start(), Place::new());
    let request = pushed(request(&place, "", both()));
    let request = BuildRequest { tags: vec![registry.name("team/app:1")], ..request };
    let built = build(&engine(&place), &request).image.unwrap();
    let index = registry.manifest("team/app", "1");
    assert_eq!(built.exported.unwrap().media_type, OCI_INDEX);
    let [image, attached] = list(&index["manifests"]) else { panic!("{index}") };
    let manifest = registry.manifest("team/app", &text(&attached["digest"]));
    assert_eq!(attached["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    // That registry takes no document before all that it names.
    let asked = registry.asked();
    for blob in list(&manifest["layers"]).iter().chain([&manifest["config"]]) {
        let hex = text(&blob["digest"]).replace("sha256:", "");
        let sent = asked.iter().filter(|line| line.starts_with("PUT") && line.contains(&hex));
        assert_eq!(sent.count(), 1, "{hex}: {asked:?}");
    }
}

fn little_is_said_when_little_is_asked_for() {
    let place = Place::new();
    let min = Provenance { mode: ProvenanceMode::Min, ..Provenance::default() };
    let run = "RUN --network=none --mount=type=secret,id=key true";
    let told = Attestations { told: Some(ProvenanceMode::Min), ..with(min) };
    let request = request(&place, run, told).arg("A", "value");
    let path = place.path().join("image.tar");
    let built = build(&engine(&place), &request.output(Output::OciArchive(path.clone().into())));
    let said = said(&Exported::from_tar(&path)).remove(0);
    assert_eq!(said.statements.len(), 1);
    let how = said.predicate(SLSA);
    let request = &how["buildDefinition"]["externalParameters"]["request"];
    assert_eq!((&request["args"], &request["secrets"]), (&json!({}), &Value::Null));
    let details = &how["runDetails"]["metadata"];
    assert_eq!(details["buildkit_completeness"]["request"], false);
    assert_eq!(details["buildkit_metadata"], json!({}));
    assert_eq!(how["buildDefinition"]["internalParameters"]["buildConfig"], Value::Null);
    let [told] = built.provenance.as_slice() else { panic!("{:?}", built.provenance) };
    assert_eq!(told.predicate["materials"], json!([]));
    assert_eq!(told.predicate["metadata"], Value::Null);
}

fn a_checkout_is_named_unless_that_is_not_wanted() {
    let place = Place::new();
    let engine = engine(&place);
    let commit = "a".repeat(40);
    place.write(".git/HEAD", &commit);
    for (without_vcs, vcs) in [(false, json!({"revision": commit})), (true, Value::Null)] {
        let attestations = Attestations { without_vcs, ..with(Provenance::default()) };
        let said = one(&place, &engine, request(&place, "RUN true", attestations));
        let details = &said.predicate(SLSA)["runDetails"]["metadata"];
        assert_eq!(details["buildkit_metadata"]["vcs"], vcs);
    }
}

fn versions_of_slsa_say_the_same() {
    let place = Place::new();
    let engine = engine(&place);
    let provenance = |version| Provenance {
        version,
        builder_id: "https://example.com/me".to_owned(),
        reproducible: true,
        ..Provenance::default()
    };
    let how = |version| {
        let request = request(&place, "RUN true", with(provenance(version)));
        one(&place, &engine, request).statements.remove(0)
    };
    let (new, old) = (how(SlsaVersion::V1), how(SlsaVersion::V02));
    assert_eq!(old["predicateType"], "https://slsa.dev/provenance/v0.2");
    let (new, old) = (&new["predicate"], &old["predicate"]);
    let definition = &new["buildDefinition"];
    for (new, old) in [
        (&definition["buildType"], &old["buildType"]),
        (&definition["resolvedDependencies"], &old["materials"]),
        (&definition["externalParameters"]["request"], &old["invocation"]["parameters"]),
        (&definition["internalParameters"]["buildConfig"], &old["buildConfig"]),
        (&new["runDetails"]["builder"]["id"], &old["builder"]["id"]),
        (
            &new["runDetails"]["metadata"]["buildkit_metadata"],
            &old["metadata"]["https://mobyproject.org/buildkit@v1#metadata"],
        ),
        (&new["runDetails"]["metadata"]["buildkit_reproducible"], &old["metadata"]["reproducible"]),
    ] {
        assert!(!new.is_null());
        assert_eq!(new, old);
    }
    assert_eq!(old["invocation"]["configSource"]["entryPoint"], "Dockerfile");
}

fn with_a_fixed_time_stores_say_the_same_bytes() {
    let made = || {
        let place = Place::new();
        let text = "COPY busybox /x";
        let mut request = request(&place, text, both()).arg("SOURCE_DATE_EPOCH", "1700000000");
        request.options.rewrite_timestamps = Some(true);
        let image = exported(&place, &engine(&place), request);
        let how = said(&image)[0].predicate(SLSA)["runDetails"]["metadata"].clone();
        assert_eq!((&how["startedOn"], &how["invocationId"]), (&Value::Null, &Value::Null));
        image
    };
    let (first, second) = (made(), made());
    assert_eq!(first.json("index.json"), second.json("index.json"));
    assert_eq!(first, second);
}

fn merged_layers_are_no_step_s() {
    let place = Place::new();
    let request = request(&place, "RUN echo > /x", both());
    let request = BuildRequest { packaging: rbuild::Packaging::One, ..request };
    let said = one(&place, &engine(&place), request);
    let metadata = &said.predicate(SLSA)["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(metadata["layers"], json!({}));
    assert_eq!(said.predicate(SPDX)["packages"][1]["name"], "libfoo");
}

fn an_artifact_names_its_subject() {
    let place = Place::new();
    let path = place.path().join("layout");
    let form =
        LayerForm { attestations: rbuild::AttestationForm::Artifact, ..LayerForm::default() };
    let output = Export {
        layers: form,
        names: vec!["other/app:2".to_owned()],
        ..Output::OciLayout(path.clone()).into()
    };
    build(&engine(&place), &request(&place, "", both()).output(output));
    let said = said(&Exported::from_directory(&path)).remove(0);
    let manifest = &said.manifest;
    let kind = "application/vnd.docker.attestation.manifest.v1+json";
    assert_eq!(manifest["artifactType"], kind);
    // In an output with a name of its own that is what it is called.
    let name = text(&said.statements[0]["subject"][0]["name"]);
    assert!(name.starts_with("pkg:docker/other/app@2?"), "{name}");
    for field in ["digest", "size", "mediaType"] {
        assert_eq!(manifest["subject"][field], said.image[field]);
    }
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(manifest["config"]["data"], "e30=");
}

fn a_stored_image_keeps_what_is_said_of_it() {
    let place = Place::new();
    let engine = engine(&place);
    let built = build(&engine, &request(&place, "RUN echo hello > /said", both()));
    let image = built.image.unwrap();
    assert_eq!((image.media_type.as_str(), image.config_digest), (OCI_INDEX, None));
    assert_eq!(place.sh(&engine, "team/app:1", "cat /said"), "hello\n");
    assert_eq!(place.sh(&engine, &image.id.to_string(), "cat /said"), "hello\n");
    // It is a base like any other.
    let next = BuildRequest::new(place.context())
        .dockerfile_text("FROM team/app:1\nRUN cp /said /again\n")
        .tag("next");
    build(&engine, &next);
    assert_eq!(place.sh(&engine, "next", "cat /again"), "hello\n");
    let all = rbuild::PruneOptions { all: true, ..rbuild::PruneOptions::default() };
    engine.prune(&all, &Silent, &CancelToken::default()).unwrap();
    let path = place.path().join("saved.tar");
    let request = SaveRequest {
        images: vec!["team/app:1".to_owned()],
        output: Output::OciArchive(path.clone().into()),
        platform: None,
        form: None,
    };
    engine.save_images(&request, &Silent, &CancelToken::default()).unwrap();
    let said = said(&Exported::from_tar(&path)).remove(0);
    assert_eq!(said.manifest["config"]["mediaType"], OCI_CONFIG);
    let kinds: Vec<_> = said.statements.iter().map(|it| text(&it["predicateType"])).collect();
    assert_eq!(kinds, [SPDX, SLSA]);
}

fn each_platform_has_its_own() {
    let place = Place::new();
    place.write("status", STATUS);
    let request = place.request("FROM scratch\nARG TARGETARCH\nCOPY status /var/lib/dpkg/status\n");
    let request = BuildRequest { attestations: both(), ..request };
    let platforms = ["linux/arm64", "linux/s390x"].map(|platform| platform.parse().unwrap());
    let request = platforms.into_iter().fold(request, BuildRequest::platform);
    let all = said(&exported(&place, &engine(&place), request));
    assert_eq!(all.len(), 2);
    for said in &all {
        assert_eq!(said.statements.len(), 2);
        // Without a name it is the digest alone that says which image is meant.
        assert_eq!(said.statements[0]["subject"][0]["name"], "_");
    }
    assert_ne!(all[0].image["digest"], all[1].image["digest"]);
}

fn files_have_statements_beside_them() {
    let place = Place::new();
    place.write("status", STATUS);
    let text = "FROM scratch\nCOPY status /var/lib/dpkg/status\nCOPY status /provenance.json\n";
    let output = place.path().join("out");
    let built = |name: &str, provenance: Provenance, platforms: &[&str]| {
        let attestations = Attestations { sbom: true, ..with(provenance) };
        let request = BuildRequest { attestations, ..place.request(text) };
        let platforms = platforms.iter().map(|platform| platform.parse().unwrap());
        let request = platforms.fold(request, BuildRequest::platform);
        let output = output.join(name);
        build(&engine(&place), &request.output(Output::Directory(output.clone())));
        Exported::from_directory(&output)
    };
    let one = built("one", Provenance::default(), &[]);
    let statement = one.json("provenance.json");
    assert_eq!(statement["predicateType"], SLSA);
    let sha256 = Digest::of(STATUS).hex();
    let about = json!({ "name": "var/lib/dpkg/status", "digest": { "sha256": sha256 } });
    assert!(list(&statement["subject"]).contains(&about), "{statement}");
    assert_eq!(one.json("sbom.spdx.json")["predicate"]["packages"][1]["name"], "libfoo");
    let filename = "how.json".to_owned();
    let two = built(
        "two",
        Provenance { filename, ..Provenance::default() },
        &["linux/arm64", "linux/s390x"],
    );
    for name in ["linux_arm64/how.json", "linux_s390x/how.json", "linux_s390x/sbom.spdx.json"] {
        assert!(two.0.contains_key(name), "{name}");
    }
    let inline = built("three", Provenance { inline_only: true, ..Provenance::default() }, &[]);
    assert_eq!(inline.file("provenance.json"), STATUS.as_bytes());
    assert_eq!(place.leftovers(), [""; 0]);
}

fn what_has_no_place_for_them_is_without() {
    let place = Place::new();
    let engine = engine(&place);
    let path = place.path().join("docker.tar");
    let wanted = request(&place, "", both()).output(Output::DockerArchive(path.clone().into()));
    let events = Events::default();
    engine.build(&wanted, &events, &CancelToken::default()).unwrap();
    let said = |event: &Event| matches!(event, Event::Notice { message } if message.contains("no place for attestations"));
    assert!(events.take().iter().any(said));
    assert!(Exported::from_tar(&path).0.contains_key("manifest.json"));
    let form = LayerForm { family: rbuild::Family::Docker, ..LayerForm::default() };
    let output = Export { layers: form, ..Output::OciArchive(path.into()).into() };
    let error = build_error(&engine, &request(&place, "", both()).output(output));
    assert!(explain(&error).contains("oci-mediatypes=false"), "{error}");
    let filename = "../p.json".to_owned();
    let wanted = request(&place, "", with(Provenance { filename, ..Provenance::default() }));
    assert!(explain(&build_error(&engine, &wanted)).contains("a name, not a path"));
}
