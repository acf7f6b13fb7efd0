//! Checks beside builds: what a store knows, and what findings do to a build.

use std::collections::BTreeMap;

use rbuild::{BuildError, BuildRequest, CancelToken, Engine, Event, check};

use crate::support::{Events, Place, build, build_error};
use crate::tests;

tests![
    a_check_knows_base_images_of_the_store_and_leaves_it_as_it_is,
    findings_are_warnings_of_a_build_in_the_stages_that_it_needs,
    error_true_stops_a_build_before_its_first_step,
];

fn codes(events: &Events) -> Vec<&'static str> {
    let warning = |event| match event {
        Event::Warning(diagnostic) => Some(diagnostic.code),
        _ => None,
    };
    events.take().into_iter().filter_map(warning).collect()
}

/// Every file of a directory with its size.
fn files(directory: &std::path::Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs_err::read_dir(next).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => open.push(entry.path()),
                false => drop(found.insert(entry.path().display().to_string(), metadata.len())),
            }
        }
    }
    found
}

fn a_check_knows_base_images_of_the_store_and_leaves_it_as_it_is() {
    let place = Place::new();
    let engine = place.engine();
    let base = place.request("FROM base\nENV FROM_BASE=1\nSHELL [\"/bin/sh\", \"-c\"]\n");
    build(&engine, &base.tag("app-base"));
    drop(engine);

    let before = files(&place.store());
    let text = "FROM app-base\nCOPY $FROM_BASE $nothing /\nCMD a\n";
    let request = BuildRequest::new(place.context()).dockerfile_text(text);
    let engine = Engine::read_only(place.options()).unwrap();
    let checked = check(&request, Some(&engine), &CancelToken::default()).unwrap();
    let messages: Vec<_> =
        checked.findings.iter().map(|finding| finding.diagnostic.message.as_str()).collect();
    assert_eq!(messages, ["Usage of undefined variable '$nothing'"]);
    assert!(checked.unknown_images.is_empty() && checked.errors.is_empty());
    drop(engine);
    assert_eq!(files(&place.store()), before);

    // Without the store nobody knows what the image sets.
    let checked = check(&request, None, &CancelToken::default()).unwrap();
    let codes: Vec<_> = checked.findings.iter().map(|finding| finding.diagnostic.code).collect();
    assert_eq!(codes, ["JSONArgsRecommended"]);
    assert_eq!(checked.unknown_images, ["app-base:latest"]);
}

fn findings_are_warnings_of_a_build_in_the_stages_that_it_needs() {
    let place = Place::new();
    place.write(".dockerignore", "secret.txt\n");
    let engine = place.engine();
    let text = "FROM base AS other\nENV a b\nFROM base AS Last\nCMD a\n";
    let events = Events::default();
    engine.build(&place.request(text), &events, &CancelToken::default()).unwrap();
    // The legacy ENV is in a stage that is not built; a name is looked at anywhere.
    assert_eq!(codes(&events), ["StageNameCasing", "JSONArgsRecommended"]);

    let ignored = place.request("FROM base\nCOPY secret.txt /\n");
    assert!(engine.build(&ignored, &events, &CancelToken::default()).is_err());
    assert_eq!(codes(&events), ["CopyIgnoredFile"]);

    let skipped = place.request(text).arg("BUILDKIT_DOCKERFILE_CHECK", "skip=all");
    engine.build(&skipped, &events, &CancelToken::default()).unwrap();
    assert_eq!(codes(&events), [""; 0]);
}

fn error_true_stops_a_build_before_its_first_step() {
    let place = Place::new();
    let engine = place.engine();
    let request = place.request("FROM base\nRUN echo a\nENV a b\nCMD a\n");
    let request = request.arg("BUILDKIT_DOCKERFILE_CHECK", "error=true");
    let error = build_error(&engine, &request);
    let BuildError::Dockerfile { diagnostics, .. } = &error else { panic!("{error:?}") };
    let expected = "lint violation found for rules: LegacyKeyValueFormat, JSONArgsRecommended";
    assert_eq!(diagnostics[0].message, expected);
    let again = place.request("FROM base\nRUN echo a\nENV a b\nCMD a\n");
    assert_eq!(build(&engine, &again).cached, 0, "a step ran before the error");
}
