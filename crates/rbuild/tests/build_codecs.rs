//! Layers in the forms in which they leave: codecs, levels, media types.

use std::collections::BTreeSet;

use rbuild::{
    BuildRequest, Digest, Encoding, Export, Family, LayerForm, NamedContextInput, Output,
};

use crate::exported::{Exported, text};
use crate::support::{Place, build, build_error};
use crate::tests;

tests![
    every_codec_holds_the_same_layers,
    a_layer_is_compressed_once_for_each_codec_and_level,
    each_output_has_its_own_codec,
    base_layers_keep_their_form_unless_forced,
    dockers_media_types_are_written_when_asked_for,
    a_tree_that_was_changed_does_not_leave,
];

const TEXT: &str = "FROM base\nRUN seq 100000 > /numbers\nCOPY one.txt /\n";

const OF_ALL: [Encoding; 7] = [
    Encoding::Uncompressed,
    Encoding::Gzip { level: 0 },
    Encoding::GZIP,
    Encoding::Gzip { level: 9 },
    Encoding::Zstd { level: 1 },
    Encoding::ZSTD,
    Encoding::Zstd { level: 19 },
];

fn place() -> Place {
    let place = Place::new();
    place.write("one.txt", "1\n");
    place
}

fn of(encoding: Encoding) -> LayerForm {
    LayerForm { encoding, ..LayerForm::default() }
}

/// The archive of a request, with its layers in this form.
fn archive(place: &Place, request: &BuildRequest, form: LayerForm) -> Exported {
    let path = place.path().join("image.tar");
    let output = Export { layers: form, ..Export::from(Output::OciArchive(path.clone().into())) };
    let built = build(&place.engine(), &request.clone().output(output));
    let image = Exported::from_tar(&path);
    let exported = built.image.unwrap().exported.unwrap();
    assert_eq!(exported.digest.to_string(), image.manifest_digest());
    image
}

/// Media types of the layers, without what all have in front.
fn forms(image: &Exported) -> Vec<String> {
    let manifest = image.manifest();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|it| text(&it["mediaType"]).rsplit('.').next().unwrap().to_owned()).collect()
}

fn blobs(place: &Place) -> BTreeSet<Digest> {
    let store = rbuild_cache::Store::open(place.store()).unwrap();
    store.blobs().list().unwrap().into_iter().collect()
}

fn every_codec_holds_the_same_layers() {
    let place = place();
    let request = place.request(TEXT);
    let expected = archive(&place, &request, LayerForm::default());
    for encoding in OF_ALL {
        let image = archive(&place, &request, of(encoding));
        image.check();
        let form = match encoding {
            Encoding::Uncompressed => "tar",
            Encoding::Gzip { .. } | Encoding::Estargz { .. } => "tar+gzip",
            Encoding::Zstd { .. } => "tar+zstd",
        };
        assert_eq!(forms(&image), [form; 4], "{encoding:?}");
        assert!(image.layers() == expected.layers(), "{encoding:?}");
        assert_eq!(image.config_digest(), expected.config_digest(), "the image id is the same");
        let again = archive(&place, &request, of(encoding));
        assert!(image == again, "{encoding:?}");
    }
}

fn a_layer_is_compressed_once_for_each_codec_and_level() {
    let place = place();
    let request = place.request(TEXT);
    build(&place.engine(), &request);
    let before = blobs(&place);
    let mut known = before.clone();
    for (encoding, new) in OF_ALL.into_iter().zip([0, 4, 4, 4, 4, 4, 4]) {
        archive(&place, &request, of(encoding));
        let now = blobs(&place);
        // Only what is compressed is kept; and no level of a small layer gives another's bytes
        // often enough to count on it.
        assert!(now.len() - known.len() <= new, "{encoding:?}");
        assert_eq!(now.len() > known.len(), new > 0, "{encoding:?}");
        archive(&place, &request, of(encoding));
        assert_eq!(blobs(&place), now, "{encoding:?}");
        known = now;
    }
}

fn each_output_has_its_own_codec() {
    let place = place();
    let path = |name: &str| place.path().join(name);
    let (oci, docker, layout) = (path("oci.tar"), path("docker.tar"), path("layout"));
    let zstd = Export {
        layers: of(Encoding::ZSTD),
        ..Export::from(Output::OciArchive(oci.clone().into()))
    };
    let plain = Export {
        layers: of(Encoding::Uncompressed),
        ..Export::from(Output::DockerArchive(docker.clone().into()))
    };
    let request = place.request(TEXT).tag("app").output(zstd).output(plain);
    build(&place.engine(), &request.output(Output::OciLayout(layout.clone())));
    let images =
        [Exported::from_tar(&oci), Exported::from_tar(&docker), Exported::from_directory(&layout)];
    let found: Vec<_> = images.iter().map(|image| forms(image).remove(0)).collect();
    assert_eq!(found, ["tar+zstd", "tar", "tar+gzip"]);
    images.iter().for_each(Exported::check);
}

fn base_layers_keep_their_form_unless_forced() {
    let (away, place) = (place(), place());
    let layout = away.path().join("layout");
    build(&away.engine(), &away.request(TEXT).output(Output::OciLayout(layout.clone())));
    let base = Exported::from_directory(&layout);
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM away\nCOPY one.txt /own\n")
        .build_context(
            "away",
            NamedContextInput::OciLayout { path: layout, tag: None, digest: None },
        );
    let kept = archive(&place, &request, of(Encoding::ZSTD));
    kept.check();
    assert_eq!(forms(&kept), ["tar+gzip", "tar+gzip", "tar+gzip", "tar+gzip", "tar+zstd"]);
    let layers = |image: &Exported| image.manifest()["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&kept)[..4], layers(&base), "the very blobs");
    for (encoding, form) in [
        (Encoding::ZSTD, "tar+zstd"),
        (Encoding::Uncompressed, "tar"),
        (Encoding::GZIP, "tar+gzip"),
    ] {
        let forced = LayerForm { force: true, ..of(encoding) };
        let image = archive(&place, &request, forced);
        image.check();
        assert_eq!(forms(&image), [form; 5]);
        assert!(image.layers() == kept.layers(), "{encoding:?}");
    }
    // Compressed from a blob or from a tree: the bytes are the same.
    let of_tree = archive(&away, &away.request(TEXT), of(Encoding::ZSTD));
    let forced = LayerForm { force: true, ..of(Encoding::ZSTD) };
    assert_eq!(layers(&archive(&place, &request, forced))[..4], layers(&of_tree));
}

fn dockers_media_types_are_written_when_asked_for() {
    let place = place();
    let form = LayerForm { family: Family::Docker, ..LayerForm::default() };
    let image = archive(&place, &place.request(TEXT), form);
    let manifest = image.manifest();
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    }
}

fn a_tree_that_was_changed_does_not_leave() {
    let place = place();
    let request = place.request(TEXT);
    build(&place.engine(), &request);
    let snapshots = fs_err::read_dir(place.store().join("snapshots")).unwrap();
    let numbers = snapshots
        .map(|entry| entry.unwrap().path().join("fs/numbers"))
        .find(|path| path.is_file())
        .unwrap();
    fs_err::write(numbers, "1\n").unwrap();
    for encoding in [Encoding::Uncompressed, Encoding::GZIP, Encoding::ESTARGZ, Encoding::ZSTD] {
        let path = place.path().join("image.tar");
        let output = Export {
            layers: of(encoding),
            ..Export::from(Output::OciArchive(path.clone().into()))
        };
        let error = build_error(&place.engine(), &request.clone().output(output));
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(message.contains("damaged") && message.contains("prune -a"), "{message}");
        assert!(!path.exists());
    }
}
