//! Manifests, indexes and configs.

use rbuild_image::config::{assemble, parse_config};
use rbuild_image::index::{Index, pick};
use rbuild_image::manifest::{Descriptor, Document, Manifest, chain_ids, parse_manifest};
use rbuild_image::media_type::{self, Family};
use rbuild_types::{Digest, History, ImageConfig, Platform};

fn manifest_text(more: &str) -> String {
    let digest = Digest::of("c");
    format!(
        r#"{{"schemaVersion":2,{more}"config":{{"mediaType":"{}","digest":"{digest}","size":1}}}}"#,
        media_type::OCI_CONFIG
    )
}

fn parse(text: &str, media_type: Option<&str>) -> Result<Document, String> {
    parse_manifest(text.as_bytes(), media_type).map_err(|error| error.to_string())
}

#[test]
fn null_layers_are_no_layers() {
    let Ok(Document::Manifest(manifest)) = parse(&manifest_text(r#""layers":null,"#), None) else {
        panic!("a manifest");
    };
    assert!(manifest.layers.is_empty());
    let index = parse(r#"{"schemaVersion":2,"manifests":null}"#, Some(media_type::OCI_INDEX));
    assert!(matches!(index, Ok(Document::Index(_))));
}

#[test]
fn documents_that_are_two_things_are_refused() {
    let own = |media_type: &str| manifest_text(&format!(r#""mediaType":"{media_type}","#));
    for (text, served) in [
        (manifest_text(r#""manifests":[],"#), None),
        (manifest_text(r#""manifests":null,"layers":[],"#), None),
        (manifest_text(r#""fsLayers":[{}],"#), None),
        (own(media_type::OCI_INDEX), None),
        (own(media_type::OCI_MANIFEST), Some(media_type::OCI_INDEX)),
        (own(media_type::OCI_MANIFEST), Some(media_type::DOCKER_MANIFEST)),
        (own("application/vnd.docker.distribution.manifest.v1+json"), None),
        (manifest_text(""), Some(media_type::DOCKER_INDEX)),
        (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), Some(media_type::OCI_MANIFEST)),
        (r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(), None),
        ("[]".to_owned(), None),
        ("null".to_owned(), None),
        ("[".repeat(200_000), None),
        (manifest_text(&format!(r#""x":{}{},"#, "[".repeat(300), "]".repeat(300))), None),
        (manifest_text(&format!(r#""x":"{}","#, "x".repeat(5 << 20))), None),
        (own(media_type::OCI_MANIFEST).replace("sha256:", "sha256:../"), None),
        (own(media_type::OCI_MANIFEST).replace("\"size\":1", "\"size\":-1"), None),
    ] {
        let error = parse(&text, served).unwrap_err();
        assert!(error.len() < 400, "{error}");
    }
    assert!(
        parse(
            &own(media_type::OCI_MANIFEST),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")
        )
        .is_ok()
    );
    assert!(parse(&own(media_type::DOCKER_MANIFEST), Some("application/json")).is_ok());
    let many = format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::of("l"));
    let many = vec![many; 501].join(",");
    assert!(parse(&manifest_text(&format!(r#""layers":[{many}],"#)), None).is_err());
}

#[test]
fn the_platform_asked_for_is_picked() {
    let image = |platform: &str, mark: &str| {
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, mark.as_bytes());
        let platform: Platform = platform.parse().unwrap();
        descriptor.platform = Some((&platform).into());
        descriptor
    };
    let mut attestation = image("linux/amd64", "attestation");
    attestation
        .annotations
        .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    let index = Index::new(
        Family::Oci,
        vec![
            attestation,
            image("linux/arm/v6", "v6"),
            image("linux/arm64", "64"),
            image("linux/amd64", "amd"),
        ],
    );
    let picked = |wanted: &str| pick(&index, &wanted.parse().unwrap()).map(|found| found.digest);
    assert_eq!(picked("linux/amd64").unwrap(), Digest::of("amd"));
    assert_eq!(picked("linux/arm64/v8").unwrap(), Digest::of("64"));
    assert_eq!(picked("linux/arm/v7").unwrap(), Digest::of("v6"));
    let error = picked("linux/s390x").unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm/v6"), "{error}");
    let alone = Index::new(Family::Oci, vec![Descriptor::of(media_type::OCI_MANIFEST, b"only")]);
    assert!(pick(&alone, &Platform::host()).is_ok());
}

#[test]
fn chain_ids_are_those_of_the_specification() {
    let ids = [Digest::of("a"), Digest::of("b"), Digest::of("c")];
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1])));
    assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], ids[2])));
    assert!(chain_ids(&[]).is_empty());
}

#[test]
fn history_and_layers_must_agree() {
    let item = |empty_layer| History { empty_layer, ..History::default() };
    let config = ImageConfig {
        os: "linux".into(),
        architecture: "amd64".into(),
        history: vec![item(false), item(true), item(false)],
        ..ImageConfig::default()
    };
    let layers = [Digest::of("1"), Digest::of("2")];
    let bytes = assemble(&config, &layers, Some("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(bytes, assemble(&config, &layers, Some("2026-01-01T00:00:00Z")).unwrap());
    let back = parse_config(&bytes).unwrap();
    assert_eq!(back.rootfs.diff_ids, layers);
    assert_eq!(back.created.as_deref(), Some("2026-01-01T00:00:00Z"));
    let error = assemble(&config, &layers[..1], None).unwrap_err().to_string();
    assert!(error.contains("2 layers"), "{error}");
}

#[test]
fn descriptors_check_bytes() {
    let descriptor = Descriptor::of("x", b"abc");
    assert!(descriptor.verify(b"abc", "x").is_ok());
    assert!(descriptor.verify(b"abd", "x").unwrap_err().to_string().contains("digest"));
    assert!(descriptor.verify(b"ab", "x").unwrap_err().to_string().contains("bytes"));
    let manifest = Manifest::new(Family::Docker, descriptor, Vec::new());
    let bytes = manifest.to_bytes().unwrap();
    assert!(parse_manifest(&bytes, Some(media_type::DOCKER_MANIFEST)).is_ok());
}
