//! What holds for any text that should be a reference, a digest or a platform.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

use proptest::prelude::*;
use rbuild_testkit::property::holds;
use rbuild_types::{Digest, Platform, Reference};

/// Pieces of references, good ones and others.
fn reference() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z0-9]{1,3}",
        1 => prop::sample::select(vec![
            "/", ":", "@", ".", "..", "-", "_", "__", "___", "A", "localhost", "docker.io/",
            "index.docker.io/", "library/", "[::1]", ":5000", ":99999", ":latest", "é", " ", "\n",
        ])
        .prop_map(str::to_owned),
        1 => "sha256:[0-9a-f]{64}",
        1 => Just(format!("@{}", Digest::of("x"))),
    ];
    prop_oneof![4 => prop::collection::vec(piece, 0..8).prop_map(|all| all.concat()), 1 => ".*"]
}

#[test]
fn what_is_a_reference_stays_the_same_reference() {
    holds("references", &reference(), |text| {
        let Ok(found) = text.parse::<Reference>() else { return };
        assert_eq!(found.to_string().parse(), Ok(found.clone()), "{text}");
        assert_eq!(found.familiar().parse(), Ok(found.clone()), "{text}");
        let shown = found.to_string();
        assert!(!shown.contains(|letter: char| letter.is_whitespace() || letter.is_control()));
        assert!(!found.path().split('/').any(|name| name.is_empty() || name.starts_with('.')));
    });
}

#[test]
fn what_is_a_digest_is_written_as_it_was_read() {
    let texts = "(sha256|sha512|SHA256|)(:|-|)[0-9a-fA-F]{60,68}|.*|sha256:[0-9a-f]{64}";
    holds("digests", &texts, |text| {
        if let Ok(found) = text.parse::<Digest>() {
            assert_eq!(found.to_string(), text);
            assert_eq!(found.hex().len(), 64);
        }
    });
}

#[test]
fn what_is_a_platform_stays_the_same_platform() {
    let texts = "(linux|windows|Linux|x|)(/(amd64|x86_64|arm64|arm|armhf|386|[a-z0-9]{0,3}))?(/(v[5-8]|8|[a-z.]{0,3}))?|.*";
    holds("platforms", &texts, |text| {
        let Ok(found) = text.parse::<Platform>() else { return };
        let again: Platform = found.to_string().parse().unwrap();
        assert_eq!(again, found, "{text}");
        assert!(again.satisfies(&found));
    });
}
